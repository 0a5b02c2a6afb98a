"""What the tests share: the chart, rendered by the Helm engine, and what Kubernetes and roomcast think of the outcome."""
import json
import os
import pathlib
import subprocess
import sys

import helm_python as helm
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/roomcast"
BINARY = os.environ.get("ROOMCAST_BINARY", str(ROOT / "target/debug/roomcast"))
# Programs of this Python's environment, before those of the system.
BIN = pathlib.Path(sys.prefix) / "bin"
# The chart's oldest and the newest there is.
VERSIONS = ("1.30", "1.37")

sys.path.insert(0, str(ROOT / "helm"))


def example(name):
    """The values of helm/roomcast/ci/<name>.yaml."""
    return yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())


def render(values, name="chat", chart=CHART):
    """The objects that an installation makes."""
    with helm.Chart.load(chart) as loaded:
        files = loaded.render(values, name=name, namespace="chat")
    objects = []
    for path, text in sorted(files.items()):
        if path.endswith(".yaml"):
            objects += [item for item in yaml.safe_load_all(text) if item]
    return objects


def of_kind(objects, *kinds):
    return [item for item in objects if item["kind"] in kinds]


def pods(objects):
    """(object, pod spec) of everything that makes pods."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item, item["spec"]
        elif item["kind"] in ("Deployment", "StatefulSet"):
            yield item, item["spec"]["template"]["spec"]


def run(*command, **options):
    """A finished program, with what it said as text."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture(scope="session")
def settings():
    """Every setting of roomcast, by name."""
    listed = run(BINARY, "config", "--json", check=True).stdout
    return {info["name"]: info for info in json.loads(listed)}
