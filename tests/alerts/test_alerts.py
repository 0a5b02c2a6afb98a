"""Alerts: their rules are sound, each is tried both ways, and each has its entry in the runbook."""

import re
import subprocess

import pytest
import yaml

import declared
import promql
from declared import ROOT

RULES = sorted((ROOT / "helm/roomcast/rules").glob("*.yaml"))
CASES = sorted((ROOT / "tests/alerts").glob("*.test.yaml"))
RUNBOOK = ROOT / "docs/runbook.md"
BY_FILE = [(file, rule) for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for _, rule in BY_FILE if "alert" in rule}
RECORDED = {rule["record"] for _, rule in BY_FILE if "record" in rule}


def promtool(*arguments):
    said = subprocess.run(
        ["promtool", *map(str, arguments)], cwd=ROOT / "tests/alerts", capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_prometheus_takes_the_rules():
    promtool("check", "rules", *RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_alerts_fire_when_they_should_and_only_then(case):
    promtool("test", "rules", case)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    fires, silent = set(), set()
    for case in CASES:
        for test in yaml.safe_load(case.read_text())["tests"]:
            for check in test["alert_rule_test"]:
                (fires if check["exp_alerts"] else silent).add(check["alertname"])
    assert fires == silent == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_with_figures_and_where_to_go_on(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert "{{" not in annotations["summary"] and len(annotations["summary"]) <= 60
    # What is gone, or has stopped, has no figure.
    assert "$value" in annotations["description"] or name in ("RoomcastNotScraped", "RoomcastDeliveryStopped")
    assert annotations["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_an_entry_for_every_alert_and_no_other():
    entries = re.split(r"^### ", RUNBOOK.read_text(), flags=re.M)[1:]
    named = {entry.split("\n")[0]: entry for entry in entries}
    assert named.keys() == ALERTS.keys()
    for name, entry in named.items():
        severity = ALERTS[name]["labels"]["severity"]
        for part in (f"*{severity}* · ", "**Look at**", "**Do**"):
            assert part in entry, f"{name}: {part}"


def test_queries_and_commands_of_the_runbook_exist(tmp_path):
    text = RUNBOOK.read_text()
    queries = [
        query for query in re.findall(r"`([^`\n]+)`", text) if re.search(r"[({].*\broomcast_|\broomcast_\w+[{\[]|:ratio_", query)
    ]
    assert len(queries) > 20
    rules = [{"record": "a:b", "expr": query} for query in queries]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", tmp_path / "queries.yaml")
    for query in queries:
        assert not declared.unknown(promql.selectors(query), promql.groupings(query), RECORDED), query
    sources = "".join(path.read_text() for path in (ROOT / "src/cli").rglob("*.rs")) + (ROOT / "src/cli.rs").read_text()
    for command in re.findall(r"`roomcast ([a-z-]+(?: [a-z-]+)?)", text):
        for word in command.split():
            wanted = "".join(part.capitalize() for part in word.split("-"))
            assert re.search(rf"^    {wanted}\b", sources, re.M), command


def test_links_of_the_runbook_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK.read_text()):
        path, _, anchor = target.partition("#")
        file = declared.PAGE if path == "metrics.md" else RUNBOOK.parent / path if path else RUNBOOK
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
        names = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in names, target


@pytest.mark.parametrize(
    ("file", "rule"), BY_FILE, ids=lambda part: part.get("alert", part.get("record")) if isinstance(part, dict) else ""
)
def test_rules_ask_for_what_there_is(file, rule):
    assert not declared.unknown(promql.selectors(rule["expr"]), promql.groupings(rule["expr"]), RECORDED)


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum(rate(roomcast_connection[5m]))", "metric roomcast_connection"),
        ('roomcast_posts_total{resul="ok"}', "label resul of roomcast_posts_total"),
        ('roomcast_posts_total{result=~"ok|fine"}', "roomcast_posts_total{result=fine}"),
        ("sum by (reason) (roomcast_posts_total)", "label reason"),
        ("roomcast_post_duration_seconds", "metric roomcast_post_duration_seconds"),
    ],
)
def test_a_name_that_is_not_declared_is_found(expr, problem):
    assert declared.unknown(promql.selectors(expr), promql.groupings(expr)) == [problem]
