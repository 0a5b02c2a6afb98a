"""The dashboards of the chart as Grafana reads them, made of the lists in boards/."""

import json

from boards import DASHBOARDS

# Of Grafana 12; older ones take what they know of it.
SCHEMA_VERSION = 42
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOK = "docs/runbook.md"


def query_variable(name, query, label, hidden=False):
    """A choice of label values; all of them at first, and where the label is missing."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 2 if hidden else 0,
    }


def variables(by_pod):
    """Which Prometheus, which installation, and on some dashboards which pod."""
    made = [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
            "current": {},
            "includeAll": False,
            "multi": False,
            "refresh": 1,
        },
        query_variable("namespace", "label_values(roomcast_build_info, namespace)", "Namespace"),
        query_variable("job", 'label_values(roomcast_build_info{namespace=~"$namespace"}, job)', "Job"),
    ]
    chosen = 'roomcast_build_info{namespace=~"$namespace", job=~"$job"}'
    # Off Kubernetes there are no pods; instances are there everywhere.
    made.append(query_variable("pod", f"label_values({chosen}, pod)", "Pod", hidden=not by_pod))
    made.append(query_variable("instance", f"label_values({chosen}, instance)", "Instance", hidden=not by_pod))
    return made


def chosen(expr):
    """The expression with the choice of the variables in each of its selectors: `%` in braces stands for it."""
    return expr.replace("%", 'namespace=~"$namespace", job=~"$job", pod=~"$pod", instance=~"$instance"')


def thresholds(levels, rising):
    """Green, and from each level on yellow, then red; where less is worse, the other way round."""
    first, *colors = ("green", "yellow", "red") if rising else ("red", "yellow", "green")
    steps = [{"color": color, "value": level} for color, level in zip(colors, levels)]
    return {"mode": "absolute", "steps": [{"color": first, "value": None}, *steps]}


def panel(number, place, given):
    """One panel, `given` by boards/."""
    custom = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if given.levels:
        custom["thresholdsStyle"] = {"mode": "line"}
    if given.stacked:
        custom["stacking"] = {"mode": "normal"}
    stat = given.kind == "stat"
    bounds = {name: value for name, value in (("min", given.least), ("max", given.most)) if value is not None}
    return {
        "id": number,
        "type": given.kind,
        "title": given.title,
        "description": given.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": given.unit,
                **bounds,
                "custom": {} if stat else custom,
                "thresholds": thresholds(given.levels, given.rising),
                "color": {"mode": "thresholds" if stat else "palette-classic"},
            },
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
        if stat
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": chosen(expr),
                "legendFormat": legend,
                "editorMode": "code",
                "range": True,
                "instant": False,
            }
            for index, (legend, expr) in enumerate(given.queries)
        ],
        "links": [
            {"title": f"Runbook: {alert}", "url": f"{RUNBOOK}#{alert.lower()}", "targetBlank": True} for alert in given.alerts
        ],
    }


def dashboard(given):
    """One dashboard; panels fill rows from the left."""
    panels, x, y, tallest = [], 0, 0, 0
    for number, one in enumerate(given.panels, 1):
        if x + one.width > WIDTH:
            x, y, tallest = 0, y + tallest, 0
        panels.append(panel(number, {"x": x, "y": y, "w": one.width, "h": one.height}, one))
        x, tallest = x + one.width, max(tallest, one.height)
    return {
        "uid": f"roomcast-{given.name}",
        "title": f"Roomcast / {given.title}",
        "description": given.description,
        "tags": ["roomcast"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {"list": variables(given.by_pod)},
        "panels": panels,
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Roomcast",
                "tags": ["roomcast"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            },
            {"type": "link", "title": "Runbook", "url": RUNBOOK, "targetBlank": True, "icon": "doc"},
        ],
    }


def make(chart):
    """Every dashboard's file."""
    return {
        chart / "dashboards" / f"{given.name}.json": json.dumps(dashboard(given), indent=1, ensure_ascii=False) + "\n"
        for given in DASHBOARDS
    }
