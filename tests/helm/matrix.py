"""Installations that must render: each with its values over those of an example."""
from conftest import example

JWT = {"secrets": {"values": {"JWT_SECRET": "s3cret-s3cret-s3cret"}}}
SERVICES = {"settings": {"AUTH_URL": "http://auth", "API_URL": "http://api", "VISION_APP_INFO": "App"}}


def merged(*parts):
    """Values over values, as Helm merges them."""
    whole = {}
    for part in parts:
        for key, value in part.items():
            known = whole.get(key)
            whole[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return whole


def with_url(url, **redis):
    return merged(SERVICES, {"secrets": {"values": {"JWT_SECRET": "s3cret-s3cret-s3cret", "REDIS_URL": url}}}, redis)


TLS = {"redis": {"tls": {"existingSecret": "redis-tls", "certKey": "tls.crt", "keyKey": "tls.key"}}}
KEDA = {"workers": {"autoscaling": {"enabled": True}}}

MATRIX = {
    "trial": example("trial"),
    "production": example("production"),
    "trial with volumes and autoscaling": merged(
        example("trial"), KEDA, {"redis": {"trial": {"storage": "1Gi"}}, "backend": {"storage": "1Gi", "openLogin": False}}
    ),
    "standalone": merged(SERVICES, JWT, {"redis": {"url": "redis://redis:6379/2"}}),
    "sentinel": with_url("redis-sentinel://u:p@s1:26379?node=s2:26379&sentinelServiceName=mymaster"),
    "cluster with TLS": merged(
        with_url("rediss-cluster://u:p@c1:6379?node=c2:6379"), TLS, KEDA,
        {"workers": {"autoscaling": {"redis": {
            "mode": "cluster", "addresses": ["c1:6379", "c2:6379"], "tls": True, "username": "u",
            "passwordSecret": {"name": "redis-auth"}}}}},
    ),
    "standalone KEDA": merged(
        SERVICES, JWT, {"redis": {"url": "redis://redis:6379"}}, KEDA,
        {"workers": {"autoscaling": {"redis": {"addresses": ["redis:6379"], "databaseIndex": 1}}}},
    ),
    "keys by JWKS": merged(SERVICES, {"settings": {"JWKS_URL": "https://auth/jwks"}, "redis": {"url": "redis://r:6379"}}),
    "tokens checked by the service": merged(
        SERVICES, {"settings": {"AUTH_MODE": "http"}, "redis": {"url": "redis://r:6379"}}
    ),
    "emptiest node first": merged(example("production"), {"nodes": {"podDeletionCost": True}}),
    "emptiest trial node first": merged(example("trial"), {"nodes": {"podDeletionCost": True}}),
    "load balancer": merged(example("trial"), {"service": {
        "type": "LoadBalancer", "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
        "annotations": {"example.org/lb": "nlb"}}}),
    "gateway": merged(example("trial"), {"gateway": {
        "enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": ["chat.example.org"],
        "sessionPersistence": True}, "service": {"appProtocol": "kubernetes.io/ws"}}),
    "haproxy ingress": merged(example("production"), {"ingress": {"controller": "haproxy", "tls": []}}),
    "traefik ingress": merged(example("production"), {"ingress": {"controller": "traefik"}, "metrics": {"monitor": "service"}}),
    "everything off": merged(example("trial"), {
        "networkPolicy": {"enabled": False}, "serviceAccount": {"create": False, "name": "default"},
        "nodes": {"replicas": 1, "podDisruptionBudget": {"enabled": False}, "drain": {"preStopSeconds": 0, "noticeSeconds": 0, "spreadSeconds": 0}},
        "workers": {"podDisruptionBudget": {"enabled": False}}}),
    "placed": merged(example("production"), {
        "image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "pull"}], "fullnameOverride": "c",
        "nodes": {"nodeSelector": {"pool": "chat"}, "priorityClassName": "high", "podLabels": {"team": "chat"},
                  "podAnnotations": {"example.org/x": "y"}, "affinity": {"nodeAffinity": {}},
                  "tolerations": [{"key": "chat", "operator": "Exists"}], "rollout": {"maxSurge": "25%"},
                  "autoscaling": {"connections": 12000, "cpuPercent": 0}}}),
}
