#!/usr/bin/env python3
"""Asks a real Prometheus for everything that dashboards show and that nodes are scaled by, and fails where it answers with
an error or with nothing.

Usage: panels.py --prometheus http://127.0.0.1:9090 [--wait SECONDS]

The Prometheus must scrape running nodes and workers that have had something to do, for two minutes and more.
"""

import argparse
import json
import math
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# How long it takes to ask again for what is not there yet.
PAUSE = 5

# What may be empty, by (dashboard, panel), and why.
EMPTY = {
    ("fleet", "What fails"): "a condition is shown while it fails, and no longer",
    ("node", "What fails"): "the same",
    ("redis", "What fails"): "the same",
}


def expanded(expr, pod=".*"):
    """The query as Grafana would ask it with everything chosen, or one pod: a minute is what it takes for a scrape every 15 s."""
    expr = re.sub(r"\$\{?__rate_interval\}?", "1m", expr)
    expr = re.sub(r"\$\{?pod\b\}?", pod, expr)
    return re.sub(r"\$\{?\w+\}?", ".*", expr)


def panels(pod=".*", dashboard="*"):
    """(dashboard, panel, query) of every query of every panel, or of one dashboard's, for all pods or one."""
    for file in sorted((ROOT / "helm/roomcast/dashboards").glob(f"{dashboard}.json")):
        for panel in walk(json.loads(file.read_text())["panels"]):
            for target in panel.get("targets", []):
                yield file.stem, panel["title"], expanded(target["expr"], pod)


def walk(found):
    """Panels, and those within collapsed rows."""
    for panel in found:
        yield panel
        yield from walk(panel.get("panels", []))


def scaling():
    """(what, metric, query) of everything that pods are scaled by and that is a metric of ours."""
    adapter = yaml.safe_load((ROOT / "k8s/addons/prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["custom"]:
        names = re.search(r'__name__=~?"([^"]+)"', rule["seriesQuery"])[1]
        for name in names.split("|"):
            query = rule["metricsQuery"].replace("<<.Series>>", name).replace("<<.GroupBy>>", "namespace, pod")
            yield "scaling", name, query.replace("<<.LabelMatchers>>", 'namespace=~".*", pod=~".*"')


def ask(prometheus, query):
    """How many series have a value now; raises ValueError with what Prometheus says is wrong."""
    address = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error).get("error", str(error))) from error
    # A share of nothing, or a quantile of nothing, is not a number.
    return sum(not math.isnan(float(series["value"][1])) for series in result)


def failures(prometheus, asked):
    """(where, what, query, problem) of everything without an answer."""
    for where, what, query in asked:
        try:
            if not ask(prometheus, query) and (where, what) not in EMPTY:
                yield where, what, query, "no data"
        except ValueError as error:
            yield where, what, query, str(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--wait", type=float, default=0, help="for how many seconds to ask again for what has no data yet")
    arguments = parser.parse_args()
    asked = [*panels(), *scaling()]
    missing, until = asked, time.monotonic() + arguments.wait
    while True:
        found = list(failures(arguments.prometheus, missing))
        if not found or time.monotonic() >= until:
            break
        missing = [(where, what, query) for where, what, query, _ in found]
        time.sleep(PAUSE)
    for where, what, query, problem in found:
        print(f"{where}: {what}: {problem}\n    {query}", file=sys.stderr)
    print(f"{len(asked) - len(found)} of {len(asked)} queries return data")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
