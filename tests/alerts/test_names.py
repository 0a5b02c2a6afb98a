"""Whatever of this project names a metric names one that there is."""

import re

import pytest

import declared
import panels
from declared import ROOT

FILES = [
    path
    for folder in ("helm", "k8s", "deploy", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".yaml", ".yml", ".json", ".tpl", ".txt", ".md", ".py") and path != declared.PAGE
]


def named(text):
    """Metrics that a text names."""
    return set(re.findall(r"\broomcast_[a-z][a-z_]*[a-z]\b", text))


@pytest.mark.parametrize("path", [*FILES, ROOT / "README.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_names_only_metrics_that_there_are(path):
    series = declared.metrics()
    # A histogram is also called by the name that its three series share.
    known = series.keys() | {name.removesuffix("_bucket") for name in series}
    assert not named(path.read_text()) - known


def test_autoscaling_of_nodes_asks_for_what_the_adapter_shows():
    template = (ROOT / "helm/roomcast/templates/autoscaling.yaml").read_text()
    asked = set(re.findall(r"metric: \{name: (\w+)\}", template))
    assert asked == {name for _, name, _ in panels.scaling()} == {"roomcast_connections", "roomcast_capacity_used_ratio"}
