"""Every installation of the matrix: what Kubernetes would take, and what matters about it."""
import re
import shutil

import helm_python as helm
import pytest
import yaml

from conftest import CHART, VERSIONS, example, of_kind, pods, render, run, validate
from matrix import MATRIX, merged


@pytest.fixture(params=MATRIX, scope="module")
def values(request):
    return MATRIX[request.param]


@pytest.fixture(scope="module")
def objects(values):
    return render(values)


def test_the_chart_is_linted_strictly(values):
    report = helm.lint(CHART, values, strict=True, namespace="chat")
    found = [message for message in report["messages"] if "icon is recommended" not in message["error"]]
    assert (found, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(objects, version):
    validate(objects, version)


def test_names_are_unique_and_labelled(objects):
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(names) == len(set(names))
    for item in objects:
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == "chat", item["metadata"]["name"]


def test_pods_may_do_nothing_they_need_not(objects):
    for item, spec in pods(objects):
        name = item["metadata"]["name"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        # Only a node that writes its pod's deletion cost has something to ask.
        asks = any(variable["name"] == "ROOMCAST_POD" for variable in spec["containers"][0].get("env", []))
        assert spec["automountServiceAccountToken"] is asks, name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


def test_only_nodes_that_write_their_deletion_cost_may_patch_pods(objects):
    asking = [item for item, spec in pods(objects) if spec["automountServiceAccountToken"]]
    assert all(item["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "node" for item in asking)
    roles = [item for item in objects if item["kind"] == "Role"]
    assert [role["rules"] for role in roles] == [[{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]] * len(asking)
    for binding in (item for item in objects if item["kind"] == "RoleBinding"):
        account = asking[0]["spec"]["template"]["spec"]["serviceAccountName"]
        assert binding["roleRef"]["name"] == roles[0]["metadata"]["name"] and binding["subjects"][0]["name"] == account


def test_pods_have_resources_and_those_that_last_have_probes(objects):
    for item, spec in pods(objects):
        for container in spec["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys() and "memory" in resources["limits"]
            if item["kind"] != "Pod":
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), item["metadata"]["name"]


def test_nodes_and_workers_are_asked_the_right_question(objects):
    for item, spec in pods(of_kind(objects, "Deployment")):
        container = spec["containers"][0]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "ops"}


def test_every_pod_that_is_not_alone_is_spread_over_zones_and_machines(objects):
    for item, spec in pods(of_kind(objects, "Deployment")):
        constraints = spec["topologySpreadConstraints"]
        assert [c["topologyKey"] for c in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for constraint in constraints:
            selector = constraint["labelSelector"]["matchLabels"]
            assert selector == item["spec"]["selector"]["matchLabels"]
    for item in of_kind(objects, "StatefulSet"):
        assert item["spec"]["replicas"] == 1


def seconds(text):
    assert text.endswith("s"), text
    return int(text[:-1])


def test_the_grace_period_is_longer_than_the_drain(objects):
    settings = of_kind(objects, "ConfigMap")[0]["data"]
    node = next(spec for item, spec in pods(objects) if item["metadata"]["name"].endswith("-node"))
    pre_stop = node["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = pre_stop + seconds(settings["ROOMCAST_DRAIN_NOTICE"]) + seconds(settings["ROOMCAST_DRAIN_SPREAD"])
    deployment = next(item for item in of_kind(objects, "Deployment") if item["metadata"]["name"].endswith("-node"))
    # One node at a time is emptied in a rollout.
    assert deployment["spec"]["minReadySeconds"] >= max(drain, 10)
    assert deployment["spec"]["progressDeadlineSeconds"] > deployment["spec"]["minReadySeconds"]
    # What a node does after its drain takes up to 17 s when clients and Redis hang.
    assert node["terminationGracePeriodSeconds"] >= drain + 20


def test_no_image_is_of_no_version(objects):
    for _, spec in pods(objects):
        for container in spec["containers"]:
            assert re.search(r":(?!latest$)[A-Za-z0-9._-]+$|@sha256:[0-9a-f]{64}$", container["image"]), container["image"]


def test_no_secret_is_in_a_config_map_or_in_an_environment(objects, values, settings):
    secret = {name for name, info in settings.items() if info["secret"]}
    hidden = values.get("secrets", {}).get("values", {}).values()
    for item in of_kind(objects, "ConfigMap"):
        # An address of Redis may be there while it holds no password.
        assert not secret & item["data"].keys() - {"REDIS_URL"}
        assert "@" not in item["data"].get("REDIS_URL", "")
    for item in objects:
        if item["kind"] != "Secret":
            assert not [word for word in hidden if word in yaml.safe_dump(item, width=10**6)], item["metadata"]["name"]
    for _, spec in pods(objects):
        for container in spec["containers"]:
            assert not secret & {variable["name"] for variable in container.get("env", [])}


def test_every_variable_is_a_setting(objects, settings):
    for item in of_kind(objects, "ConfigMap"):
        if item["metadata"]["name"].endswith("-settings"):
            assert item["data"].keys() <= settings.keys()
            assert all(isinstance(value, str) for value in item["data"].values())
    for _, spec in pods(objects):
        for container in spec["containers"]:
            for variable in container.get("env", []):
                name = variable["name"].removesuffix("_FILE")
                if name not in ("POD_NAME", "POD_NAMESPACE", "ROOMCAST_POD"):
                    assert settings[name]["secret"], variable


def test_files_named_to_roomcast_are_mounted(objects):
    config = of_kind(objects, "ConfigMap")[0]["data"]
    for item, spec in pods(of_kind(objects, "Deployment", "Pod")):
        container = spec["containers"][0]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        there = set()
        for mount in container.get("volumeMounts", []):
            files = volumes[mount["name"]].get("secret", {}).get("items", [])
            there |= {f"{mount['mountPath']}/{file['path']}" for file in files}
        named = {variable["value"] for variable in container.get("env", []) if variable["name"].endswith("_FILE")}
        named |= {value for name, value in config.items() if name.endswith("_FILE")}
        assert named == there, item["metadata"]["name"]


def test_services_budgets_monitors_and_policies_find_their_pods(objects):
    labels = [item["spec"]["template"]["metadata"]["labels"] for item in of_kind(objects, "Deployment", "StatefulSet")]

    def found(selector):
        return [one for one in labels if selector.items() <= one.items()]

    for item in of_kind(objects, "Service"):
        count = len(found(item["spec"]["selector"]))
        assert count == (2 if item["metadata"]["name"].endswith("-ops") else 1), item["metadata"]["name"]
    for item in of_kind(objects, "PodDisruptionBudget"):
        assert len(found(item["spec"]["selector"]["matchLabels"])) == 1
    for item in of_kind(objects, "NetworkPolicy"):
        assert len(found(item["spec"]["podSelector"]["matchLabels"])) == 1
    for item in of_kind(objects, "PodMonitor"):
        assert len(found(item["spec"]["selector"]["matchLabels"])) == 2
    for item in of_kind(objects, "ServiceMonitor"):
        wanted = item["spec"]["selector"]["matchLabels"].items()
        assert len([one for one in of_kind(objects, "Service") if wanted <= one["metadata"]["labels"].items()]) == 1
    for item in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = item["spec"]["scaleTargetRef"]["name"]
        deployment = next(one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == target)
        assert "replicas" not in deployment["spec"]


def test_workers_that_are_busy_count_for_autoscaling():
    scaled = of_kind(render(MATRIX["standalone KEDA"]), "ScaledObject")[0]["spec"]
    assert scaled["advanced"]["scalingModifiers"]["formula"] == "lag + pending"
    lag, pending = scaled["triggers"]
    assert (lag["name"], pending["name"]) == ("lag", "pending")
    assert lag["metadata"]["lagCount"] == pending["metadata"]["pendingEntriesCount"] == "24"
    for trigger in scaled["triggers"]:
        metadata = trigger["metadata"]
        assert (metadata["address"], metadata["databaseIndex"]) == ("redis:6379", "1")
        # The names that src/redis/keys.rs and src/redis/questions.rs use.
        assert (metadata["stream"], metadata["consumerGroup"]) == ("rc:{gpt}:ready", "workers")
    assert scaled["minReplicaCount"] >= 1


def test_the_stream_that_autoscaling_reads_is_the_one_workers_read():
    root = CHART.parents[1] / "src/redis"
    assert 'GPT_READY: &str = "rc:{gpt}:ready"' in (root / "keys.rs").read_text()
    assert 'GROUP: &str = "workers"' in (root / "questions.rs").read_text()


def test_nodes_do_not_get_the_key_of_the_model():
    files = {}
    for item, spec in pods(render(example("production"))):
        secret = next(volume["secret"] for volume in spec["volumes"] if volume["name"] == "secrets")
        files[item["metadata"]["name"]] = {file["key"] for file in secret["items"]}
    assert "GPT_API_KEY" not in files["chat-roomcast-node"] and "GPT_API_KEY" in files["chat-roomcast-worker"]


def test_pods_are_replaced_when_a_setting_or_a_secret_changes():
    def checksums(change):
        found = render(merged(example("trial"), change))
        return [item["spec"]["template"]["metadata"]["annotations"] for item in of_kind(found, "Deployment")]

    before = checksums({})
    assert checksums({}) == before
    for change in ({"settings": {"ROOMCAST_LOG": "debug"}}, {"secrets": {"values": {"JWT_SECRET": "another-one"}}}):
        assert all(new != old for new, old in zip(checksums(change), before, strict=True))


def test_polling_clients_get_affinity_and_long_connections_last():
    nginx = of_kind(render(example("production")), "Ingress")[0]["metadata"]["annotations"]
    assert nginx["nginx.ingress.kubernetes.io/affinity"] == "cookie"
    assert int(nginx["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 90
    route = of_kind(render(MATRIX["gateway"]), "HTTPRoute")[0]["spec"]["rules"][0]
    assert route["timeouts"] == {"request": "0s", "backendRequest": "0s"} and "sessionPersistence" in route
    service = of_kind(render(MATRIX["traefik ingress"]), "Service")[0]["metadata"]["annotations"]
    assert service["traefik.ingress.kubernetes.io/service.sticky.cookie"] == "true"
    service = of_kind(render(MATRIX["haproxy ingress"]), "Service")[0]["metadata"]["annotations"]
    assert service["haproxy.org/cookie-persistence"] and service["haproxy.org/timeout-server"] == "3600s"


def test_dashboards_and_rules_come_from_their_folders_as_they_are(tmp_path):
    chart = tmp_path / "roomcast"
    shutil.copytree(CHART, chart)
    for folder in ("dashboards", "rules"):
        for file in (chart / folder).iterdir():
            file.unlink()
    on = merged(example("trial"), {"metrics": {"rules": True, "dashboards": {"enabled": True}}})
    assert not of_kind(render(on, chart=chart), "PrometheusRule")
    dashboard = '{"title": "Fleet", "legend": "{{pod}}"}'
    rules = 'groups:\n  - name: chat\n    rules:\n      - {alert: Down, expr: up == 0, annotations: {summary: "{{ $labels.pod }} is down"}}\n'
    (chart / "dashboards/fleet.json").write_text(dashboard)
    (chart / "rules/chat.yaml").write_text(rules)
    objects = render(on, chart=chart)
    assert of_kind(objects, "PrometheusRule")[0]["spec"] == yaml.safe_load(rules)
    made = [item for item in of_kind(objects, "ConfigMap") if "fleet.json" in item["data"]]
    assert made[0]["data"]["fleet.json"] == dashboard and made[0]["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_alerts_and_dashboards_link_to_the_runbook_where_it_is_read():
    on = {"metrics": {"rules": True, "dashboards": {"enabled": True}, "runbook": "https://wiki.example.org/runbook"}}
    objects = render(merged(example("trial"), on))
    rules, dashboards = of_kind(objects, "PrometheusRule"), [item for item in of_kind(objects, "ConfigMap") if "-dashboard-" in item["metadata"]["name"]]
    assert len(rules) >= 5 and len(dashboards) >= 6
    for item in rules + dashboards:
        text = yaml.safe_dump(item, width=10**6)
        assert "docs/runbook.md" not in text and "https://wiki.example.org/runbook" in text, item["metadata"]["name"]


def test_the_adapter_shows_what_nodes_are_scaled_on(tmp_path):
    rule = yaml.safe_load((CHART.parents[1] / "k8s/addons/prometheus-adapter.yaml").read_text())["rules"]["custom"][0]
    wanted = merged(example("production"), {"nodes": {"autoscaling": {"connections": 1}}})
    metrics = of_kind(render(wanted), "HorizontalPodAutoscaler")[0]["spec"]["metrics"]
    names = [metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"]
    assert names == ["roomcast_connections", "roomcast_capacity_used_ratio"]
    for name in names:
        assert name in rule["seriesQuery"]
        query = rule["metricsQuery"].replace("<<.Series>>", name).replace("<<.GroupBy>>", "pod")
        query = query.replace("<<.LabelMatchers>>", 'namespace="chat",pod=~"a|b"')
        (tmp_path / "rule.yaml").write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": [{"record": "a:b", "expr": query}]}]}))
        said = run("promtool", "check", "rules", tmp_path / "rule.yaml")
        assert said.returncode == 0, said.stdout + said.stderr
