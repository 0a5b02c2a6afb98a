"""The metrics that there are, with their labels and the labels' values, as docs/metrics.md lists them."""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = pathlib.Path(os.environ.get("METRICS_PAGE", ROOT / "docs/metrics.md"))

# What Prometheus and the scrape configuration of the chart or of compose.yaml put on every series.
SCRAPED = {"namespace", "job", "pod", "instance", "component"}


def metrics():
    """{series: {label: values}}; no values: any. A histogram's three series are listed each."""
    found = {"up": {}}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
        name = re.match(r"`(\w+)`", section)[1]
        labels = {}
        for label, rest in re.findall(r"^\* label `(\w+)`: (.*)$", section, re.M):
            labels[label] = set(re.findall(r"`([^`]+)`", rest))
        if re.search(r"^histogram ", section, re.M):
            found[f"{name}_bucket"] = {**labels, "le": set()}
            found[f"{name}_sum"] = found[f"{name}_count"] = labels
        else:
            found[name] = labels
    # Declared without values, but the help names them.
    found["roomcast_failing_condition"]["condition"] = conditions()
    return found


def conditions():
    section = PAGE.read_text().split("## `roomcast_failing_condition`")[1].split("\n* label")[0]
    return set(re.findall(r"`([^`]+)`", section))


def unknown(selectors, groupings, recorded=frozenset()):
    """What of an expression does not exist: metrics, labels, values."""
    known, problems, labels = metrics(), [], set(SCRAPED)
    for name, matchers in selectors:
        if name in recorded:
            continue
        if name not in known:
            problems.append(f"metric {name}")
            continue
        labels |= known[name].keys()
        for label, operator, value in matchers:
            values = known[name].get(label)
            if values is None and label not in SCRAPED:
                problems.append(f"label {label} of {name}")
            elif values and not value.startswith("$"):
                alternatives = value.split("|") if operator in ("=~", "!~") else [value]
                problems += [f"{name}{{{label}={one}}}" for one in alternatives if one not in values]
    return problems + [f"label {label}" for label in groupings - labels]
