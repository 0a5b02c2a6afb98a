#!/usr/bin/env python3
"""Watches a deployment under load as production is watched, and fails where anything that operators look at is missing.

Usage: watched.py --binary target/debug/roomcast [--seconds 60]

Redis, the services, three nodes and two workers run as processes of their own; Prometheus scrapes them with the labels that
the chart's monitors give and evaluates the chart's rules. While people chat, ask, sync, stray and come back, every panel of
every dashboard, every recorded ratio and every query that pods are scaled by must return data, every page of metrics must
please `promtool check metrics`, what Redis hands out must be received, and no alert may fire or be about to.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.parse

import yaml

import monitors
import panels
from crowd import EXPECTED, Crowd
from declared import ROOT
from deployment import Deployment, free_port, get, until_answers

sys.path.insert(0, str(ROOT / "tests/helm"))
from conftest import example, render

NODES, WORKERS, PEOPLE, ROOMS = 3, 2, 36, 6
NAMESPACE = "chat"
# Often enough that a rate over a minute has many values.
INTERVAL = "3s"
# How long what has no data yet may take: some scrapes.
WAIT = 20
# How much longer than people chat the whole may take.
LIMIT = 180
# How often alerts are looked at while people chat.
GLANCE = 3

# What begins although all is well, and why.
BEGIN = {
    "RoomcastBusLosesMessages": "its rates over 15 minutes are guessed of one, unevenly for processes that are scraped at different "
    "times; the counts themselves are compared here",
}


def start_prometheus(deployment):
    """A Prometheus that watches as the chart says; returns its address."""
    objects = render(example("production"), name="chat")
    pods = {told["__meta_kubernetes_pod_label_app_kubernetes_io_component"]: told for _, told in monitors.pods_of(objects, NAMESPACE)}
    targets = [
        (role.ops.removeprefix("http://"), pods[role.component] | {"__meta_kubernetes_pod_name": f"chat-roomcast-{role.name}"})
        for role in deployment.roles
    ]
    config = {
        "global": {"evaluation_interval": INTERVAL},
        "rule_files": [str(ROOT / "helm/roomcast/rules/*.yaml")],
        "scrape_configs": [monitors.scrape_config(objects, NAMESPACE, targets, INTERVAL)],
    }
    file = deployment.folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    storage = f"--storage.tsdb.path={deployment.folder / 'series'}"
    deployment.run("prometheus", "prometheus", f"--config.file={file}", storage, f"--web.listen-address={address}")
    until_answers(f"http://{address}/-/ready")
    return f"http://{address}"


def asked(prometheus, query):
    """The series that an expression returns now."""
    return json.loads(get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))["data"]["result"]


def pages(deployment):
    """What `promtool check metrics` says against each page of metrics."""
    for role in deployment.roles:
        page = get(f"{role.ops}/metrics")
        said = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=30)
        if said.returncode or said.stderr:
            yield f"{role.name}: {said.stderr.strip()}"


def recorded():
    """(where, what, query) of every series that the rules record."""
    for file in sorted((ROOT / "helm/roomcast/rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    yield "recorded", rule["record"], rule["record"]


def broken_rules(prometheus):
    """Rules that cannot be evaluated, each with its error."""
    for group in json.loads(get(f"{prometheus}/api/v1/rules"))["data"]["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                yield f"{rule['name']} is {rule['health']}: {rule.get('lastError', '')}"


def alerts(prometheus, state):
    """Names of the alerts in this state: `firing` or `pending`."""
    return {series["metric"]["alertname"] for series in asked(prometheus, f'ALERTS{{alertstate="{state}"}}')}


def unlabelled(prometheus):
    """Targets whose labels are not what dashboards and rules need."""
    wanted = {("node", f"chat-roomcast-node-{n}") for n in range(NODES)}
    wanted |= {("worker", f"chat-roomcast-worker-{n}") for n in range(WORKERS)}
    up = [series["metric"] for series in asked(prometheus, "up == 1")]
    found = {(labels.get("component"), labels.get("pod")) for labels in up}
    if found != wanted or {(labels.get("namespace"), labels.get("job")) for labels in up} != {(NAMESPACE, "chat/chat-roomcast")}:
        yield f"scraped are {up}"


def scaled_by_stream(deployment):
    """What KEDA cannot read of the stream that workers are scaled by."""
    groups = subprocess.run(
        [*deployment.redis, "--json", "-3", "XINFO", "GROUPS", "rc:{gpt}:ready"], capture_output=True, text=True, timeout=10
    ).stdout
    for group in json.loads(groups):
        if group["name"] == "workers" and isinstance(group["lag"], int) and isinstance(group["pending"], int):
            return
    yield f"the stream of questions has no group with a lag: {groups}"


def without_data(prometheus):
    """Panels, recorded series and scaling queries without data, each asked again for some scrapes."""
    missing, until = [*panels.panels(), *panels.scaling(), *recorded()], time.monotonic() + WAIT
    for node in range(NODES):
        missing += panels.panels(f"chat-roomcast-node-{node}", "node")
    print(f"{len(missing)} queries of panels, rules and autoscaling")
    while True:
        found = list(panels.failures(prometheus, missing))
        if not found or time.monotonic() >= until:
            return [f"{where}: {what}: {problem}\n    {query}" for where, what, query, problem in found]
        missing = [(where, what, query) for where, what, query, _ in found]
        time.sleep(panels.PAUSE)


def counted(deployment, name):
    """A counter over all nodes and workers."""
    lines = [line for role in deployment.roles for line in get(f"{role.ops}/metrics").splitlines()]
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def lost(deployment):
    """Whether less was received of the bus than Redis handed out, once all is quiet."""
    until = time.monotonic() + WAIT
    while True:
        received, published = (
            counted(deployment, f"roomcast_{name}_total") for name in ("bus_messages_received", "events_published")
        )
        if received == published > 0:
            print(f"{received:.0f} copies of events published and received")
            return
        if time.monotonic() > until:
            yield f"{published} copies of events were published, {received} received"
            return
        time.sleep(1)


async def limited(deployment, prometheus, seconds):
    """`live`, ended where it takes far longer than it may."""
    async with asyncio.timeout(seconds + LIMIT):
        return await live(deployment, prometheus, seconds)


async def live(deployment, prometheus, seconds):
    """Lets people chat, asks for everything at the end, while they go on; returns what is wrong."""
    crowd, fired = Crowd(deployment, PEOPLE), set()

    async def watch_alerts():
        while True:
            fired.update(await asyncio.to_thread(alerts, prometheus, "firing"))
            await asyncio.sleep(GLANCE)

    watch = asyncio.create_task(watch_alerts())
    await crowd.run(seconds)
    talk = asyncio.create_task(crowd.chat(WAIT * 3))
    problems = await asyncio.to_thread(lambda: list(judged(deployment, prometheus)))
    crowd.hush()
    watch.cancel()
    for outcome in await asyncio.gather(watch, talk, return_exceptions=True):
        if outcome and not isinstance(outcome, asyncio.CancelledError):
            problems.append(f"the run itself: {outcome!r}")
    problems += lost(deployment)
    await crowd.leave()
    print(f"{crowd.done.total()} events of {PEOPLE} people: {dict(crowd.done)}; refused: {dict(crowd.refused)}")
    problems += [f"an event was refused as {code}" for code in crowd.refused.keys() - EXPECTED]
    problems += [f"{name} fired although all was well" for name in sorted(fired)]
    return problems + [f"{name} has ended, see {name}.log" for name in deployment.ended()]


def judged(deployment, prometheus):
    """What is wrong with what there is to see while people chat."""
    yield from without_data(prometheus)
    yield from pages(deployment)
    yield from broken_rules(prometheus)
    yield from unlabelled(prometheus)
    yield from scaled_by_stream(deployment)
    for name in alerts(prometheus, "pending") - BEGIN.keys():
        yield f"{name} is about to fire although all is well"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, default=60, help="how long people chat before everything is asked for")
    arguments = parser.parse_args()
    binary = (ROOT / arguments.binary).resolve()
    with Deployment(binary, NODES, WORKERS, PEOPLE, ROOMS) as deployment:
        prometheus = start_prometheus(deployment)
        problems = asyncio.run(limited(deployment, prometheus, arguments.seconds))
        if problems:
            print("\n".join(problems), file=sys.stderr)
            raise SystemExit(1)
    print("every panel, rule and scaling query returns data, and no alert fires")


if __name__ == "__main__":
    main()
