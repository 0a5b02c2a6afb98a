"""What the Prometheus operator makes of the chart's monitors: which pods they choose, what Kubernetes tells of those, and how
their series are labelled. Written after the operator's documentation; no operator and no Kubernetes is needed."""

import re

# As the operator names what it relabels by, of pods and of the endpoints of services.
OF_PODS = {
    "namespace": "__meta_kubernetes_namespace",
    "container": "__meta_kubernetes_pod_container_name",
    "pod": "__meta_kubernetes_pod_name",
}
OF_SERVICES = OF_PODS | {"service": "__meta_kubernetes_service_name"}


def chosen(objects, kinds, selector):
    """The objects of these kinds whose own labels the selector wants."""
    return [item for item in objects if item["kind"] in kinds and selector.items() <= item["metadata"]["labels"].items()]


def meta(kind, labels):
    """Labels of an object as Kubernetes' discovery tells them."""
    return {f"__meta_kubernetes_{kind}_label_{re.sub(r'[^A-Za-z0-9_]', '_', name)}": value for name, value in labels.items()}


def monitor_of(objects):
    """The one monitor."""
    (monitor,) = [item for item in objects if item["kind"] in ("PodMonitor", "ServiceMonitor")]
    return monitor


def pods_of(objects, namespace):
    """(name of what makes the pod, what discovery tells of it) of each that the monitor chooses."""
    monitor = monitor_of(objects)
    selector = monitor["spec"]["selector"]["matchLabels"]
    service, of_service = None, {}
    if monitor["kind"] == "ServiceMonitor":
        (service,) = chosen(objects, ("Service",), selector)
        selector = service["spec"]["selector"]
        of_service = meta("service", service["metadata"]["labels"]) | {
            "__meta_kubernetes_service_name": service["metadata"]["name"]
        }
        (wanted,) = {port["targetPort"] for port in service["spec"]["ports"] if port["name"] == endpoint_of(monitor)["port"]}
    else:
        wanted = endpoint_of(monitor)["port"]
    for item in objects:
        template = item.get("spec", {}).get("template")
        if item["kind"] not in ("Deployment", "StatefulSet") or not selector.items() <= template["metadata"]["labels"].items():
            continue
        (container,) = [
            one for one in template["spec"]["containers"] if wanted in {port["name"] for port in one.get("ports", [])}
        ]
        name = item["metadata"]["name"]
        yield name, meta("pod", template["metadata"]["labels"]) | of_service | {
            "__meta_kubernetes_namespace": namespace,
            "__meta_kubernetes_pod_name": f"{name}-0",
            "__meta_kubernetes_pod_container_name": container["name"],
        }


def endpoint_of(monitor):
    """Its one endpoint."""
    (endpoint,) = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
    return endpoint


def relabeling(objects, namespace):
    """The operator's own rules, then those of the monitor."""
    monitor = monitor_of(objects)
    pod = monitor["kind"] == "PodMonitor"
    rules = [{"source_labels": [source], "target_label": label} for label, source in (OF_PODS if pod else OF_SERVICES).items()]
    if pod:
        rules.append({"target_label": "job", "replacement": f"{namespace}/{monitor['metadata']['name']}"})
    else:
        rules.append({"source_labels": [OF_SERVICES["service"]], "target_label": "job", "replacement": "${1}"})
    endpoint = endpoint_of(monitor)
    rules.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    return rules + [
        {re.sub("[A-Z]", lambda match: "_" + match[0].lower(), name): value for name, value in rule.items()}
        for rule in endpoint["relabelings"]
    ]


def scrape_config(objects, namespace, targets, interval=None):
    """A job of Prometheus' configuration over `targets`: (address, what discovery tells of its pod)."""
    endpoint = endpoint_of(monitor_of(objects))
    return {
        "job_name": "watched",
        "scrape_interval": interval or endpoint["interval"],
        "scrape_timeout": interval or "10s",
        "metrics_path": endpoint["path"],
        "relabel_configs": relabeling(objects, namespace),
        "static_configs": [{"targets": [address], "labels": told} for address, told in targets],
    }
