"""The Service through which programs outside the Kubernetes cluster reach Postgres, on the tailnet."""

from __future__ import annotations

import pulumi
from cluster import CLUSTER, PORT
from lib.k8s import labels, wait_annotations
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import Service
from settings import Settings


def tailnet_service(settings: Settings, *, after: CustomResource) -> Service:
    """Expose the primary on the tailnet as `ts_hostname` and wait until its proxy exists.

    It is not one of the cluster's `managed.services`: there the operator never removes an annotation, so removing the
    exposure would have no effect, and pulumi could neither show nor await it.
    """
    return Service(
        f"{CLUSTER}-rw-ext",
        metadata={
            "name": f"{CLUSTER}-rw-ext",
            "namespace": settings.namespace,
            "labels": labels("postgresql"),
            "annotations": {
                "tailscale.com/expose": "true",
                "tailscale.com/hostname": settings.ts_hostname,
                **wait_annotations("condition=TailscaleProxyReady", timeout=300),
            },
        },
        spec={
            "type": "ClusterIP",
            "selector": {"cnpg.io/cluster": CLUSTER, "cnpg.io/instanceRole": "primary"},
            "ports": [{"name": "postgres", "port": settings.port, "targetPort": PORT}],
        },
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )
