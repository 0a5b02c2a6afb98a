"""The plain manifests in k8s/: what the chart renders, without Helm's own labels. The kustomizations, their settings and
patches are written by hand; tests/helm holds their output against the chart."""
import re

import helm_python as helm
import yaml

# Changes with every setting, which kustomize's own hashed names already tell.
HELMS = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by|checksum/[a-z]+): .*\n", re.M)
EMPTY = re.compile(r"^( *)annotations:\n(?!\1 )", re.M)
NOTE = "# Made from helm/roomcast by `make helm-docs`; change it there, or by a patch in an overlay.\n"

# The least that renders; what is specific to an installation comes from overlays.
BASE = {
    "settings": {"AUTH_URL": "http://auth", "API_URL": "http://api", "VISION_APP_INFO": "App"},
    "secrets": {"existingSecret": "roomcast-secrets", "keys": ["JWT_SECRET"]},
    "redis": {"url": "redis://redis"},
}

VALUES = {"base": BASE, "emptiest": BASE | {"nodes": {"podDeletionCost": True}}}

# file in k8s/: (values, template, kinds)
FILES = {
    "base/nodes.yaml": ("base", "nodes", None),
    "base/workers.yaml": ("base", "workers", None),
    "base/services.yaml": ("base", "services", None),
    "base/disruption.yaml": ("base", "disruption", None),
    "base/network.yaml": ("base", "network", None),
    "base/service-account.yaml": ("base", "config", {"ServiceAccount"}),
    "components/pod-deletion-cost/rbac.yaml": ("emptiest", "rbac", None),
    "overlays/local/trial.yaml": ("trial", "trial", None),
    "overlays/local/network.yaml": ("trial", "network", None),
    "overlays/production/autoscaling.yaml": ("production", "autoscaling", None),
    "overlays/production/ingress.yaml": ("production", "ingress", None),
    "overlays/production/monitoring.yaml": ("production", "monitoring", {"PodMonitor"}),
}


def values(chart, name):
    """The values by name: one of those above, or an example."""
    return VALUES[name] if name in VALUES else yaml.safe_load((chart / "ci" / f"{name}.yaml").read_text())


def objects(text):
    """The objects of a rendered template, as text each."""
    for part in re.split(r"^---\n", text, flags=re.M):
        if yaml.safe_load(part):
            yield part.strip() + "\n"


def make(chart):
    """Every generated file in k8s/."""
    made, rendered = {}, {}
    with helm.Chart.load(chart) as loaded:
        for name in {name for name, _, _ in FILES.values()}:
            rendered[name] = loaded.render(values(chart, name), name="roomcast", namespace="roomcast")
    base = list(objects(rendered["base"]["roomcast/templates/network.yaml"]))
    for file, (name, template, kinds) in FILES.items():
        parts = objects(rendered[name][f"roomcast/templates/{template}.yaml"])
        parts = [part for part in parts if kinds is None or yaml.safe_load(part)["kind"] in kinds]
        if name != "base" and template == "network":
            # Only what the base does not have.
            parts = [part for part in parts if part not in base]
        text = EMPTY.sub("", HELMS.sub("", "---\n".join(parts)))
        made[chart.parent.parent / "k8s" / file] = NOTE + text
    return made
