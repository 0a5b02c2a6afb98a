"""The plain manifests in k8s/: what kustomize makes of them is what the chart makes."""
import base64
import copy
import os
import re

import pytest
import yaml

from conftest import BIN, BINARY, ROOT, VERSIONS, example, of_kind, pods, render, run, validate
from matrix import merged

# Which example each overlay is.
OVERLAYS = {"local": "trial", "production": "production"}


def kustomize(overlay):
    return kustomize_folder(ROOT / "k8s/overlays" / overlay)


def kustomize_folder(folder):
    said = run(BIN / "kubectl", "kustomize", folder)
    assert said.returncode == 0, said.stderr
    assert not said.stderr, said.stderr
    return list(yaml.safe_load_all(said.stdout))


@pytest.fixture(params=OVERLAYS, scope="module")
def overlay(request):
    return request.param


@pytest.fixture(scope="module")
def objects(overlay):
    return kustomize(overlay)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(objects, version):
    validate(objects, version)


def common(objects):
    """The objects by kind and name, without what Helm and kustomize each do in their own way."""
    named = {}
    for item in copy.deepcopy(objects):
        item["metadata"].pop("namespace", None)
        # kustomize tells of a change by a hash in the name.
        if item["kind"] in ("ConfigMap", "Secret"):
            item["metadata"]["name"] = re.sub(r"-[a-z0-9]{10}$", "", item["metadata"]["name"])
        if item["kind"] == "Secret":
            item["metadata"].pop("labels", None)
            for name, value in item.pop("stringData", {}).items():
                item.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
        for metadata in (item["metadata"], item.get("spec", {}).get("template", {}).get("metadata", {})):
            for kind, helms in (("labels", r"helm\.sh/|app\.kubernetes\.io/managed-by"), ("annotations", "checksum/")):
                kept = {key: value for key, value in metadata.pop(kind, {}).items() if not re.match(helms, key)}
                if kept:
                    metadata[kind] = kept
        for _, spec in pods([item]):
            for container in spec["containers"]:
                container.get("env", []).sort(key=lambda variable: variable["name"])
                for source in container.get("envFrom", []):
                    source["configMapRef"]["name"] = re.sub(r"-[a-z0-9]{10}$", "", source["configMapRef"]["name"])
            for volume in spec.get("volumes", []):
                if "secret" in volume:
                    volume["secret"]["secretName"] = re.sub(r"-[a-z0-9]{10}$", "", volume["secret"]["secretName"])
        named[item["kind"], item["metadata"]["name"]] = item
    return named


def test_chart_and_manifests_agree(overlay, objects):
    made = common([item for item in objects if item["kind"] != "Namespace"])
    wanted = common([item for item in render(example(OVERLAYS[overlay]), name="roomcast") if item["kind"] != "Pod"])
    # Alerts and dashboards come with the chart: plain, they are files that a Prometheus or a Grafana reads itself.
    wanted = {key: item for key, item in wanted.items() if key[0] != "PrometheusRule" and "-dashboard-" not in key[1]}
    assert made.keys() == wanted.keys()
    for key, item in wanted.items():
        assert made[key] == item, key


def test_the_component_does_what_the_chart_does_by_a_value(tmp_path):
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    to_k8s = os.path.relpath((ROOT / "k8s").resolve(), overlay.resolve())
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
        "namespace": "roomcast",
        "resources": [f"{to_k8s}/overlays/production"],
        "components": [f"{to_k8s}/components/pod-deletion-cost"],
    }))
    made = common(kustomize_folder(overlay))
    wanted = common(render(merged(example("production"), {"nodes": {"podDeletionCost": True}}), name="roomcast"))
    for kind, name in (("Deployment", "roomcast-node"), ("Role", "roomcast-node"), ("RoleBinding", "roomcast-node")):
        one, other = made[kind, name], wanted[kind, name]
        for item in (one, other):
            for subject in item.get("subjects", []):
                assert subject.pop("namespace")
        assert one == other, kind


def test_everything_is_in_one_namespace_that_is_restricted(objects):
    namespace = of_kind(objects, "Namespace")[0]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for item in objects:
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == namespace["name"], item["metadata"]["name"]


def test_no_secret_of_production_is_in_the_repository():
    assert not of_kind(kustomize("production"), "Secret")


def test_what_is_generated_is_up_to_date():
    said = run(BIN / "python", ROOT / "helm/generate.py", "--check", "--binary", BINARY)
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_load_test_is_one_that_kubernetes_takes(version):
    validate(kustomize_folder(ROOT / "k8s/loadtest"), version)


def test_the_load_test_fits_what_it_tests_and_its_namespace():
    objects = kustomize_folder(ROOT / "k8s/loadtest")
    agents, job = of_kind(objects, "StatefulSet")[0], of_kind(objects, "Job")[0]
    leader = job["spec"]["template"]["spec"]
    arguments = leader["containers"][0]["args"]
    named = arguments[arguments.index("--agents") + 1].split(",")
    service = agents["spec"]["serviceName"]
    assert named == [f"{service}-{n}.{service}:7700" for n in range(agents["spec"]["replicas"])]
    url = arguments[arguments.index("--url") + 1]
    nodes = [item for item in of_kind(kustomize("production"), "Service") if "node" in str(item["spec"]["selector"])]
    assert url in {f"http://{item['metadata']['name']}:{port['port']}" for item in nodes for port in item["spec"]["ports"]}
    namespace = of_kind(kustomize("production"), "Namespace")[0]["metadata"]["name"]
    assert {item["metadata"]["namespace"] for item in objects} == {namespace}
    for spec in (leader, agents["spec"]["template"]["spec"]):
        # What the standard `restricted`, which the namespace enforces, asks for.
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]
        confined = spec["containers"][0]["securityContext"]
        assert not confined["allowPrivilegeEscalation"] and confined["capabilities"] == {"drop": ["ALL"]}
        assert spec["containers"][0]["image"].startswith("roomcast-load:")


def test_nodes_that_are_closed_let_the_clients_of_the_load_test_in_when_that_is_asked_for():
    objects = kustomize_folder(ROOT / "k8s/loadtest")
    production = kustomize("production")
    policy = yaml.safe_load((ROOT / "k8s/loadtest/closed-nodes.yaml").read_text())
    node = next(labels for item, labels in templates(production) if item["metadata"]["name"] == "roomcast-node")
    client = next(labels for item, labels in templates(objects) if item["kind"] == "StatefulSet")

    def lets_in(item):
        """Whether this policy is about nodes and lets clients of the same namespace to their port."""
        spec = item["spec"]
        return selects(spec["podSelector"], node) and any(
            {"port": "http"} in rule["ports"]
            and any("namespaceSelector" not in peer and selects(peer["podSelector"], client) for peer in rule.get("from", []))
            for rule in spec["ingress"])

    for version in VERSIONS:
        validate([policy], version)
    assert not any(lets_in(item) for item in of_kind(production, "NetworkPolicy")), "then it would not be needed"
    assert lets_in(policy)
    # A policy that selects nodes closes them where they have no other: none may come unasked.
    assert not any(selects(item["spec"]["podSelector"], node) for item in of_kind(objects, "NetworkPolicy"))


def templates(objects):
    """(object, labels of its pods) of everything that makes pods."""
    return [(item, item["spec"]["template"]["metadata"]["labels"]) for item in objects if "template" in item.get("spec", {})]


def selects(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items()
