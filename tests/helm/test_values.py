"""What an operator may write into values, what is refused, and what roomcast makes of the settings."""
import concurrent.futures
import os
import pathlib
import re

import helm_python as helm
import pytest
import yaml

from conftest import BINARY, CHART, example, of_kind, pods, render, run
from matrix import JWT, MATRIX, SERVICES, merged

REDIS = {"redis": {"url": "redis://redis:6379"}}
GOOD = merged(SERVICES, JWT, REDIS)

# (what is wrong, what the message must name)
REFUSED_BY_SCHEMA = [
    ({"replicas": 3}, "replicas"),
    ({"nodes": {"replica": 3}}, "replica"),
    ({"nodes": {"replicas": 0}}, "/nodes/replicas"),
    ({"nodes": {"replicas": "3"}}, "/nodes/replicas"),
    ({"nodes": {"drain": {"reserveSeconds": 5}}}, "reserveSeconds"),
    ({"nodes": {"resources": {"requests": {"cpu": "lots"}}}}, "/nodes/resources"),
    ({"nodes": {"podDisruptionBudget": {"maxUnavailable": "150%"}}}, "maxUnavailable"),
    ({"nodes": {"topologySpread": {"whenUnsatisfiable": "Never"}}}, "whenUnsatisfiable"),
    ({"workers": {"autoscaling": {"minReplicas": 0}}}, "minReplicas"),
    ({"workers": {"autoscaling": {"redis": {"addresses": ["redis://redis:6379"]}}}}, "addresses"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"redis": {"trial": {"image": {"tag": ""}}}}, "/redis/trial/image"),
    ({"redis": {"url": "redis:6379"}}, "/redis/url"),
    ({"settings": {"GUARD_STRIKE": 5}}, "GUARD_STRIKE"),
    ({"settings": {"JWT_SECRET": "x"}}, "JWT_SECRET"),
    ({"settings": {"ROOMCAST_LISTEN": "0.0.0.0:80"}}, "ROOMCAST_LISTEN"),
    ({"settings": {"ROOMCAST_DRAIN_SPREAD": "5m"}}, "ROOMCAST_DRAIN_SPREAD"),
    ({"settings": {"TRUSTED_PROXIES": ["10.0.0.0/8"]}}, "TRUSTED_PROXIES"),
    ({"secrets": {"values": {"AUTH_URL": "http://auth"}}}, "AUTH_URL"),
    ({"secrets": {"values": {"JWT_SECRET": ""}}}, "JWT_SECRET"),
    ({"secrets": {"existingSecret": "s", "keys": ["jwt"]}}, "/secrets/keys"),
    ({"service": {"type": "ExternalName"}}, "/service/type"),
    ({"ingress": {"controller": "apache"}}, "/ingress/controller"),
    ({"ingress": {"timeoutSeconds": 60}}, "/ingress/timeoutSeconds"),
    ({"ingress": {"hosts": ["https://chat.example.org"]}}, "/ingress/hosts"),
    ({"metrics": {"monitor": True}}, "/metrics/monitor"),
    ({"metrics": {"runbook": "a runbook"}}, "/metrics/runbook"),
]

# (what does not fit together, what the message must say)
REFUSED_BY_TEMPLATES = [
    (merged(JWT, REDIS), "settings.AUTH_URL"),
    (merged(GOOD, {"image": {"tag": "latest"}}), "image.tag: latest"),
    (merged(GOOD, {"redis": {"trial": {"image": {"tag": "latest"}}}}), "redis.trial.image.tag: latest"),
    (merged(GOOD, {"redis": {"url": "redis://user:password@redis:6379"}}), "the secret REDIS_URL"),
    (merged(GOOD, {"redis": {"url": "redis-sentinel://s:26379?sentinelPassword=x"}}), "the secret REDIS_URL"),
    (merged(JWT, SERVICES), "no Redis is named"),
    (merged(GOOD, {"redis": {"trial": {"enabled": True}}}), "redis.trial.enabled and redis.url"),
    (merged(SERVICES, REDIS), "exactly one key"),
    (merged(GOOD, {"settings": {"JWKS_URL": "https://auth/jwks"}}), "exactly one key"),
    (merged(GOOD, {"secrets": {"existingSecret": "s"}}), "both set"),
    (merged(SERVICES, REDIS, {"secrets": {"existingSecret": "s"}}), "secrets.keys"),
    (merged(SERVICES, REDIS, {"secrets": {"keys": ["JWT_SECRET"]}}), "secrets.existingSecret"),
    (merged(REDIS, {"backend": {"enabled": True}, "settings": {"AUTH_MODE": "http"}}), "JWT_SECRET"),
    (merged(GOOD, {"workers": {"autoscaling": {"enabled": True}}}), "workers.autoscaling.redis.addresses"),
    (merged(GOOD, {"nodes": {"autoscaling": {"minReplicas": 30}}}), "minReplicas"),
    (merged(GOOD, {"nodes": {"autoscaling": {"enabled": True, "cpuPercent": 0}}}), "nodes.autoscaling"),
    (merged(GOOD, {"gateway": {"enabled": True}}), "gateway.parentRefs"),
    (merged(GOOD, {"ingress": {"enabled": True}}), "ingress.hosts"),
    (merged(GOOD, {"serviceAccount": {"create": False}}), "serviceAccount.name"),
]


@pytest.mark.parametrize(("bad", "named"), REFUSED_BY_SCHEMA, ids=lambda part: str(part)[:60])
def test_a_bad_value_is_refused_by_its_name(bad, named):
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(GOOD))
        with pytest.raises(helm.HelmError) as refused:
            chart.render(merged(GOOD, bad), name="chat", namespace="chat")
    assert named in str(refused.value)


@pytest.mark.parametrize(("bad", "said"), REFUSED_BY_TEMPLATES, ids=lambda part: str(part)[:60])
def test_values_that_do_not_fit_together_are_refused_with_the_cure(bad, said):
    with pytest.raises(helm.HelmError) as refused:
        render(bad)
    assert said in str(refused.value) and "password@" not in str(refused.value)


def test_large_numbers_and_switches_reach_roomcast_as_written():
    data = of_kind(render(merged(GOOD, {"settings": {
        "ROOMCAST_ARCHIVE_MAX_BYTES": 67108864, "GPT_TEMPERATURE": 0.25, "GPT_PARALLEL": 8, "GPT_SYSTEM_PROMPT": 'Say "hi"\n: #x'
    }})), "ConfigMap")[0]["data"]
    assert data["ROOMCAST_ARCHIVE_MAX_BYTES"] == "67108864"
    assert (data["GPT_TEMPERATURE"], data["GPT_PARALLEL"]) == ("0.25", "8")
    assert data["GPT_SYSTEM_PROMPT"] == 'Say "hi"\n: #x'


def with_nobody_there(url):
    """An address of Redis with this machine's hosts in it: names that no server knows are waited for."""
    return re.sub(r"(?<=[@/=])[a-z0-9.-]+(?=:[0-9])", "127.0.0.1", url)


def check_config(values, folder):
    """What `roomcast check-config` says in the environment that a node's container would have."""
    objects = render(values)
    environment = dict(of_kind(objects, "ConfigMap")[0]["data"])
    node = next(spec for item, spec in pods(objects) if item["metadata"]["name"].endswith("-node"))
    given = next((item["stringData"] for item in of_kind(objects, "Secret")), {})
    stand_ins = {"REDIS_URL": "redis://127.0.0.1:1", "JWT_SECRET": "s3cret-s3cret-s3cret"}
    for variable in node["containers"][0].get("env", []):
        if not variable["name"].endswith("_FILE"):
            continue
        name = pathlib.Path(variable["value"]).name
        value = given.get(name, stand_ins.get(name, "s3cret"))
        (folder / name).write_text(with_nobody_there(value) if name == "REDIS_URL" else value)
        environment[variable["name"]] = str(folder / name)
    if "REDIS_URL" in environment:
        environment["REDIS_URL"] = with_nobody_there(environment["REDIS_URL"])
    # The certificates are in a Secret of the operator's.
    environment = {name: value for name, value in environment.items() if not name.startswith("REDIS_TLS_")}
    return run(BINARY, "check-config", env={"PATH": os.environ["PATH"], **environment}, cwd=folder)


def test_roomcast_takes_the_settings_of_every_installation(tmp_path):
    def check(name):
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        return name, check_config(MATRIX[name], folder)

    # Each waits seconds for a Redis that is not there: 69. Bad settings are 64.
    with concurrent.futures.ThreadPoolExecutor(len(MATRIX)) as pool:
        for name, said in pool.map(check, MATRIX):
            assert said.returncode == 69, f"{name}: {said.returncode} {said.stderr}"


def test_every_setting_that_is_no_secret_can_be_set(settings):
    properties = helm_schema()["definitions"]["settings"]["properties"]
    from generate import OWNED

    assert properties.keys() == {name for name, info in settings.items() if not info["secret"]} - OWNED


def helm_schema():
    with helm.Chart.load(CHART) as chart:
        return chart.schema


def test_the_notes_say_what_is_missing():
    with helm.Chart.load(CHART) as chart:
        trial = chart.render(example("trial"), name="chat", namespace="chat")["roomcast/templates/NOTES.txt"]
        production = chart.render(example("production"), name="chat", namespace="chat")["roomcast/templates/NOTES.txt"]
    assert "This is a trial" in trial and "TRUSTED_PROXIES" in trial and "Nobody watches it" in trial
    assert "https://chat.example.org" in production
    for missing in ("trial", "TRUSTED_PROXIES", "affinity", "Nobody"):
        assert missing not in production


def test_the_values_in_the_documentation_install():
    text = (CHART.parents[1] / "docs/kubernetes.md").read_text()
    whole, workers = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    for values in (whole, merged(whole, workers)):
        assert of_kind(render(values), "Ingress")
    trial = {}
    for path, value in re.findall(r"--set ([a-z.A-Z_]+)=(true|\$\()", text.split("## For real")[0]):
        values = True if value == "true" else "s3cret-s3cret-s3cret"
        for name in reversed(path.split(".")):
            values = {name: values}
        trial = merged(trial, values)
    assert of_kind(render(trial), "StatefulSet")


def test_links_of_the_documentation_lead_somewhere():
    docs = CHART.parents[1] / "docs"
    text = (docs / "kubernetes.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        file = docs / path if path else docs / "kubernetes.md"
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
        names = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in names, target
