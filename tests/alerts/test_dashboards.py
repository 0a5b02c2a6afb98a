"""Dashboards: they are what their list makes of them, ask for what there is, and explain themselves."""

import http.server
import json
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest
import yaml

import declared
import panels
import promql
from declared import ROOT
from test_alerts import ALERTS, RECORDED, promtool

sys.path.insert(0, str(ROOT / "helm"))
import dashboards

FILES = dashboards.make(ROOT / "helm/roomcast")
BOARDS = {path.stem: json.loads(text) for path, text in FILES.items()}
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in panels.walk(board["panels"])]
IDS = [f"{name}: {panel['title']}" for name, panel in PANELS]


def test_the_files_are_what_the_list_makes_of_them():
    there = {path: path.read_text() for path in (ROOT / "helm/roomcast/dashboards").glob("*.json")}
    assert there == FILES, "run `make helm-docs` and commit what it writes"


def test_dashboards_can_be_told_apart_and_share_their_choices():
    assert BOARDS.keys() == {"fleet", "node", "delivery", "guard", "gpt", "redis"}
    assert len({board["uid"] for board in BOARDS.values()}) == len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        variables = {variable["name"]: variable for variable in board["templating"]["list"]}
        assert list(variables) == ["datasource", "namespace", "job", "pod", "instance"]
        # Off Kubernetes series have no namespace and no pod: all of them must match what is not there.
        assert all(variable["allValue"] == ".*" for name, variable in variables.items() if name != "datasource")


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_a_panel_explains_itself_and_leaves_the_choice_to_the_variables(board, panel):
    assert panel["title"] and panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"]
    for link in panel["links"]:
        page, _, anchor = link["url"].partition("#")
        assert page == "docs/runbook.md" and anchor in {name.lower() for name in ALERTS}, link
    for target in panel["targets"]:
        for name, matchers in promql.selectors(target["expr"]):
            chosen = {label for label, _, value in matchers if value == f"${label}"}
            assert chosen == {"namespace", "job", "pod", "instance"}, f"{name} in {target['expr']}"
        if "rate(" in target["expr"]:
            assert "[$__rate_interval]" in target["expr"], target["expr"]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_a_panel_asks_for_what_there_is(board, panel):
    for target in panel["targets"]:
        expr = target["expr"]
        assert not declared.unknown(promql.selectors(expr), promql.groupings(expr), RECORDED), expr
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert label in promql.groupings(expr) | all_labels(expr), f"{label} in {target['legendFormat']}"


def all_labels(expr):
    """Labels that the result has where nothing groups it."""
    known = declared.metrics()
    return set() if " by (" in expr else declared.SCRAPED.union(*(known[name] for name, _ in promql.selectors(expr)))


def test_panels_do_not_lie_upon_each_other():
    for board in BOARDS.values():
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells


def test_prometheus_takes_every_query(tmp_path):
    rules = [
        {"record": "a:b", "expr": query, "labels": {"n": str(n)}}
        for n, (_, _, query) in enumerate([*panels.panels(), *panels.scaling()])
    ]
    assert len(rules) > 80
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "queries.yaml")


def test_what_may_be_empty_is_there():
    there = {(where, what) for where, what, _ in panels.panels()}
    assert panels.EMPTY.keys() <= there


def test_nodes_are_scaled_by_what_there_is():
    known = declared.metrics()
    names = [name for _, name, _ in panels.scaling()]
    assert names and all(name in known for name in names)


class Prometheus(http.server.BaseHTTPRequestHandler):
    """Answers queries with what the test wants of each."""

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)["query"][0]
        status, body = self.server.answer(query)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


def said_with(answer):
    """What the program says of a Prometheus that answers so."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prometheus) as server:
        server.answer = answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        said = subprocess.run(
            [sys.executable, "-B", ROOT / "tests/alerts/panels.py", "--prometheus", address],
            capture_output=True,
            text=True,
            timeout=60,
        )
        server.shutdown()
    return said


def series(*values):
    return 200, {"data": {"result": [{"value": [0, value]} for value in values]}}


def test_the_program_takes_data_and_asks_without_variables():
    asked = []
    said = said_with(lambda query: (asked.append(query), series("0"))[1])
    assert said.returncode == 0 and f"{len(asked)} of {len(asked)} queries" in said.stdout, said.stderr
    assert not [query for query in asked if "$" in query or "<<" in query]
    assert any("[1m]" in query and 'pod=~".*"' in query for query in asked)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (series(), "no data"),
        (series("NaN"), "no data"),
        ((400, {"error": "bad query"}), "bad query"),
    ],
    ids=["empty", "not a number", "an error"],
)
def test_the_program_fails_for_one_panel_without_an_answer(bad, problem):
    said = said_with(lambda query: bad if "roomcast_gpt_paused" in query else series("1"))
    assert said.returncode == 1 and f"gpt: Paused: {problem}" in said.stderr, said.stderr
