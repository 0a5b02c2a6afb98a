"""The chart's monitors give series the labels that its rules and dashboards ask for: relabelled by Prometheus itself."""

import json
import shutil
import sys

import pytest
import yaml

from conftest import ROOT, example, render, run
from matrix import merged

sys.path.insert(0, str(ROOT / "tests/alerts"))
import declared
import monitors
import promql

EXPRESSIONS = [
    rule["expr"]
    for file in sorted((ROOT / "helm/roomcast/rules").glob("*.yaml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]


def labels_of(monitor, folder):
    """{name of what makes the pods: labels of their series}."""
    objects = render(merged(example("production"), {"metrics": {"monitor": monitor}}))
    targets = [(f"{name}:9090", told) for name, told in monitors.pods_of(objects, "chat")]
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump({"scrape_configs": [monitors.scrape_config(objects, "chat", targets)]}))
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: run .ci/packages"
    said = run(promtool, "check", "service-discovery", "--timeout=2s", file, "watched")
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert not [one for one in found if one.get("error")], said.stdout
    return {one["labels"]["instance"].removesuffix(":9090"): one["labels"] for one in found}


@pytest.mark.parametrize("monitor", ["pod", "service"])
def test_every_node_and_worker_is_scraped_with_the_labels_that_are_asked_for(monitor, tmp_path):
    found = labels_of(monitor, tmp_path)
    assert found.keys() == {"chat-roomcast-node", "chat-roomcast-worker"}
    for name, labels in found.items():
        shown = {label: labels[label] for label in declared.SCRAPED}
        assert (shown["namespace"], shown["pod"], shown["component"]) == ("chat", f"{name}-0", name.rsplit("-")[-1])
    # Rules compare nodes with workers: both must be one job.
    assert len({labels["job"] for labels in found.values()}) == 1


@pytest.mark.parametrize("monitor", ["pod", "service"])
def test_no_label_of_a_metric_is_taken_by_the_scrape(monitor, tmp_path):
    (given, *_) = labels_of(monitor, tmp_path).values()
    own = {label for labels in declared.metrics().values() for label in labels}
    assert not own & given.keys()


def test_rules_choose_by_components_that_there_are():
    chosen = {
        value
        for expr in EXPRESSIONS
        for _, matchers in promql.selectors(expr)
        for label, _, value in matchers
        if label == "component"
    }
    assert chosen == {"node", "worker"}
