#!/usr/bin/env python3
"""Makes what follows from other files: the settings in the chart's schema (from `roomcast config`), the chart's README
(from its values), its dashboards (from boards/), and the plain manifests in k8s/ (from the chart). With --check it only
says what is stale.

Usage: generate.py [--check] --binary target/debug/roomcast
"""
import argparse
import json
import pathlib
import subprocess
import sys

import dashboards
import manifests
import readme

CHART = pathlib.Path(__file__).resolve().parent / "roomcast"

# What the chart sets itself, from other values.
OWNED = {
    "ROOMCAST_LISTEN", "ROOMCAST_OPS_LISTEN", "ROOMCAST_DRAIN_NOTICE", "ROOMCAST_DRAIN_SPREAD", "ROOMCAST_POD",
    "REDIS_TLS_CA_FILE", "REDIS_TLS_CERT_FILE", "REDIS_TLS_KEY_FILE",
}


def schema(binary):
    """values.schema.json with the settings that this build knows: a misspelt one is refused before anything is installed."""
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    listed = json.loads(subprocess.run([binary, "config", "--json"], check=True, capture_output=True).stdout)
    definitions = schema["definitions"]
    definitions["secretName"]["enum"] = sorted(info["name"] for info in listed if info["secret"])
    definitions["settings"]["properties"] = {
        info["name"]: {"$ref": "#/definitions/setting", "description": " ".join(info["doc"].split())}
        for info in sorted(listed, key=lambda info: info["name"])
        if not info["secret"] and info["name"] not in OWNED
    }
    return {path: json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--binary", required=True)
    arguments = parser.parse_args()
    stale = []
    # In this order: the manifests are rendered under the new schema.
    makers = (lambda chart: schema(arguments.binary), readme.make, dashboards.make, manifests.make)
    for make in makers:
        for path, text in make(CHART).items():
            if path.exists() and path.read_text() == text:
                continue
            stale.append(str(path.relative_to(CHART.parent.parent)))
            if not arguments.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if stale and arguments.check:
        print(f"stale: {', '.join(stale)}\nrun `make helm-docs` and commit what it writes", file=sys.stderr)
        return 1
    print(f"{'written: ' + ', '.join(stale) if stale else 'the schema, README and dashboards of the chart and the manifests are up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
