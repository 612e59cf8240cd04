"""Glance in the cluster: ConfigMap, pod, Service and Ingress."""

from __future__ import annotations

import hashlib
from typing import Any

import pulumi
from lib.ingress import tailnet_ingress
from lib.k8s import labels, wait_annotations
from page import FILE, PORT, configuration
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import ConfigMap, Service
from pulumi_kubernetes.networking.v1 import Ingress
from settings import Settings

NAME = "glance"
SELECTOR = {"app.kubernetes.io/name": NAME}
CONFIG_FOLDER = "/app/config"


def config_map(settings: Settings, *, after: pulumi.Resource) -> ConfigMap:
    """Create the ConfigMap; it contains no login and no token."""
    return ConfigMap(
        NAME,
        metadata=metadata(settings),
        data={FILE: configuration(settings)},
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def deployment(settings: Settings, *, after: ConfigMap) -> Deployment:
    """Roll the pod when the configuration changes: Glance itself notices that late and not always."""
    checksum = hashlib.sha256(configuration(settings).encode()).hexdigest()
    return Deployment(
        NAME,
        metadata=metadata(settings) | {"annotations": wait_annotations(timeout=180)},
        spec={
            "replicas": 1,
            "selector": {"matchLabels": SELECTOR},
            "template": {
                "metadata": {"labels": labels(NAME), "annotations": {"checksum/config": checksum}},
                "spec": pod(settings),
            },
        },
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def pod(settings: Settings) -> dict[str, Any]:
    """Mount the configuration as a folder: with a `subPath` the pod would never see a change."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": NAME,
                "image": settings.image,
                "ports": [{"name": "http", "containerPort": PORT}],
                "readinessProbe": {"httpGet": {"path": "/api/healthz", "port": "http"}},
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
    }


def service(settings: Settings, *, after: Deployment) -> Service:
    return Service(
        NAME,
        metadata=metadata(settings),
        spec={"selector": SELECTOR, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def ingress(settings: Settings, *, after: Service) -> Ingress:
    return tailnet_ingress(
        NAME, namespace=settings.namespace, host=settings.hostname, service=NAME, port=80, after=[after]
    )


def metadata(settings: Settings) -> dict[str, Any]:
    return {"name": NAME, "namespace": settings.namespace, "labels": labels(NAME)}
