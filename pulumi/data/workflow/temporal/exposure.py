"""The web interface and the gRPC frontend on the tailnet."""

from __future__ import annotations

import pulumi
from lib.ingress import tailnet_ingress
from lib.k8s import labels, wait_annotations
from pulumi_kubernetes.core.v1 import Service
from pulumi_kubernetes.networking.v1 import Ingress
from release import FRONTEND_LABELS, GRPC_PORT, WEB, WEB_PORT
from settings import Settings


def web(settings: Settings, *, after: pulumi.Resource) -> Ingress:
    return tailnet_ingress(
        WEB, namespace=settings.namespace, host=settings.host, service=WEB, port=WEB_PORT, after=[after]
    )


def grpc(settings: Settings, *, after: pulumi.Resource) -> Service:
    """Expose the frontend and wait until its proxy exists. An Ingress would not support gRPC."""
    name = "temporal-grpc"
    return Service(
        name,
        metadata={
            "name": name,
            "namespace": settings.namespace,
            "labels": labels("temporal"),
            "annotations": {
                "tailscale.com/expose": "true",
                "tailscale.com/hostname": settings.grpc_host,
                **wait_annotations("condition=TailscaleProxyReady", timeout=300),
            },
        },
        spec={
            "type": "ClusterIP",
            "selector": FRONTEND_LABELS,
            "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": GRPC_PORT}],
        },
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )
