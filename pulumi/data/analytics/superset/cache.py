"""Valkey, Superset's cache and queue. The images of the chart's own Redis are no longer published."""

from __future__ import annotations

import pulumi
from lib.k8s import labels
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import Service
from pulumi_kubernetes.networking.v1 import NetworkPolicy
from settings import Settings

NAME = "superset-valkey"
PORT = 6379
IMAGE = "docker.io/valkey/valkey:9.1-alpine"
SELECTOR = {"app.kubernetes.io/name": NAME}


def cache(settings: Settings, *, after: pulumi.Resource) -> Service:
    """Create one pod without a volume: its contents can be computed again."""
    policy = NetworkPolicy(
        NAME, metadata=_metadata(settings), spec=only_superset(), opts=pulumi.ResourceOptions(depends_on=[after])
    )
    pod = Deployment(
        NAME, metadata=_metadata(settings), spec=deployment_spec(), opts=pulumi.ResourceOptions(depends_on=[policy])
    )
    spec = {"selector": SELECTOR, "ports": [{"name": "redis", "port": PORT, "targetPort": "redis"}]}
    return Service(NAME, metadata=_metadata(settings), spec=spec, opts=pulumi.ResourceOptions(depends_on=[pod]))


def only_superset() -> dict[str, object]:
    """Admit only Superset: Valkey has no password, and it holds results of queries."""
    superset = {"podSelector": {"matchLabels": {"release": "superset"}}}
    return {
        "podSelector": {"matchLabels": SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [superset], "ports": [{"protocol": "TCP", "port": PORT}]}],
    }


def deployment_spec() -> dict[str, object]:
    probe = {"exec": {"command": ["valkey-cli", "ping"]}, "periodSeconds": 10, "timeoutSeconds": 5}
    container = {
        "name": "valkey",
        "image": IMAGE,
        "args": ["--save", "", "--appendonly", "no", "--maxmemory", "192mb", "--maxmemory-policy", "volatile-lru"],
        "ports": [{"name": "redis", "containerPort": PORT}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    }
    return {
        "replicas": 1,
        "selector": {"matchLabels": SELECTOR},
        "template": {
            "metadata": {"labels": labels(NAME)},
            "spec": {"automountServiceAccountToken": False, "containers": [container]},
        },
    }


def _metadata(settings: Settings) -> dict[str, object]:
    return {"name": NAME, "namespace": settings.namespace, "labels": labels(NAME)}
