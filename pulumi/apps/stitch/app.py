"""Stitch in the cluster: the pod, its Service and its network policy."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pulumi
from lib.database import POD_PORT, AppDatabase
from lib.k8s import labels, wait_annotations
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import Secret, Service
from pulumi_kubernetes.networking.v1 import NetworkPolicy
from settings import Settings
from twitch import NAME

SELECTOR = {"app.kubernetes.io/name": NAME}
PULL_SECRET = f"{NAME}-registry"
PRIVATE = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]


def registry_secret(settings: Settings, *, after: pulumi.Resource) -> list[Secret]:
    """Create the login of a private registry, if it is set."""
    if settings.registry_login is None:
        return []
    pull_secret = Secret(
        PULL_SECRET,
        metadata={"name": PULL_SECRET, "namespace": settings.namespace, "labels": labels(NAME)},
        type="kubernetes.io/dockerconfigjson",
        string_data={".dockerconfigjson": settings.registry_login},
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )
    return [pull_secret]


def deployment(
    settings: Settings, database: AppDatabase, twitch: Secret, *, after: list[pulumi.Resource]
) -> Deployment:
    """Create the pod and wait for three minutes only, so that an image that cannot be pulled fails soon."""
    return Deployment(
        NAME,
        metadata=metadata(settings) | {"annotations": wait_annotations(timeout=180)},
        spec={
            "replicas": 1,
            "selector": {"matchLabels": SELECTOR},
            "template": {
                "metadata": {"labels": labels(NAME), "annotations": {"checksum/secrets": checksum(settings)}},
                "spec": pod(settings, [database.secret_name, NAME]),
            },
        },
        opts=pulumi.ResourceOptions(depends_on=[*database.ready, twitch, *after]),
    )


def checksum(settings: Settings) -> pulumi.Output[str]:
    """Hash the pod's secrets, so that a changed secret restarts the pod. The hash discloses none of them."""
    values = (
        settings.postgres_host,
        settings.database_password,
        settings.eventsub_secret,
        settings.twitch_client_id,
        settings.twitch_client_secret,
        settings.callback,
    )
    digest = pulumi.Output.all(*values).apply(lambda found: hashlib.sha256(json.dumps(found).encode()).hexdigest())
    return pulumi.Output.unsecret(digest)


def pod(settings: Settings, environment: list[str]) -> dict[str, Any]:
    """Build the pod; all of Stitch's configuration comes from the Secrets named in `environment`."""
    login = {"imagePullSecrets": [{"name": PULL_SECRET}]} if settings.registry_login is not None else {}
    return login | {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": NAME,
                "image": settings.image,
                "env": [{"name": "PORT", "value": str(settings.port)}],
                "envFrom": [{"secretRef": {"name": name}} for name in environment],
                "ports": [{"name": "http", "containerPort": settings.port}],
                "readinessProbe": {"httpGet": {"path": settings.health_path, "port": "http"}},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }


def service(settings: Settings, *, after: Deployment) -> Service:
    return Service(
        NAME,
        metadata=metadata(settings),
        spec={"selector": SELECTOR, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def network_policy(settings: Settings, *, after: pulumi.Resource) -> NetworkPolicy:
    """Allow DNS, Postgres and the internet, no other private address: this pod is reachable from the internet."""
    postgres = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.postgres_namespace}}}
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    internet = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE}}, {"ipBlock": {"cidr": "2000::/3"}}]
    return NetworkPolicy(
        NAME,
        metadata=metadata(settings),
        spec={
            "podSelector": {"matchLabels": SELECTOR},
            "policyTypes": ["Egress"],
            "egress": [
                {"ports": dns},
                {"to": [postgres], "ports": [{"port": POD_PORT, "protocol": "TCP"}]},
                {"to": internet, "ports": [{"port": 443, "protocol": "TCP"}]},
            ],
        },
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def metadata(settings: Settings) -> dict[str, Any]:
    return {"name": NAME, "namespace": settings.namespace, "labels": labels(NAME)}
