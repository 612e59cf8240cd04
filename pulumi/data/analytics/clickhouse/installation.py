"""The server, as an installation that the operator runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from lib.k8s import labels, wait_annotations
from pulumi_kubernetes.apiextensions import CustomResource
from settings import Settings
from users import users

NAME = "clickhouse"
"""Of the installation and of its one cluster; StatefulSet, pod and volume claim are called after both."""
DATA = f"{NAME}-data"
"""First part of the claim's name: with another one the server would start on an empty volume."""
IMAGE = "altinity/clickhouse-server"
PORTS = {"http": 8123, "tcp": 9000}


def installation(settings: Settings, *, after: Sequence[pulumi.Resource]) -> CustomResource:
    """One server, awaited until the operator says that it is completed. It must go before the operator does.

    Not from Altinity's chart: before 4.32 pulumi's provider cannot preview a custom resource that comes out of a chart
    while its CRD is missing. The alias keeps the server of a stack that still has it from there.
    """
    chart = f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::kubernetes:helm.sh/v4:Chart::{NAME}"
    in_chart = pulumi.Alias(name=f"{NAME}:{settings.namespace}/{NAME}", parent=chart)
    return CustomResource(
        NAME,
        api_version="clickhouse.altinity.com/v1",
        kind="ClickHouseInstallation",
        metadata={
            "name": NAME,
            "namespace": settings.namespace,
            "labels": labels("clickhouse"),
            "annotations": wait_annotations("jsonpath={.status.status}=Completed", timeout=900),
        },
        spec=installation_spec(settings),
        opts=pulumi.ResourceOptions(depends_on=list(after), protect=settings.protect, aliases=[in_chart]),
    )


def installation_spec(settings: Settings) -> dict[str, Any]:
    """A template of each kind: of the pod, of its volume, and of the Service, which would be headless without one."""
    ports = [{"name": name, "port": port, "targetPort": port} for name, port in PORTS.items()]
    container = {"name": "clickhouse", "image": f"{IMAGE}:{settings.image_tag}"}
    pod = {"name": f"{NAME}-pod", "metadata": {"labels": labels(NAME)}, "spec": {"containers": [container]}}
    service = {"name": f"{NAME}-service", "spec": {"type": "ClusterIP", "ports": ports}}
    volume = {"name": DATA, "reclaimPolicy": "Retain", "spec": claim(settings)}
    chosen = {"podTemplate": pod, "serviceTemplate": service, "dataVolumeClaimTemplate": volume}
    return {
        "defaults": {"templates": {kind: template["name"] for kind, template in chosen.items()}},
        "templates": {"podTemplates": [pod], "serviceTemplates": [service], "volumeClaimTemplates": [volume]},
        "configuration": {
            "users": users(settings),
            "clusters": [{"name": NAME, "layout": {"shardsCount": 1, "replicasCount": 1}}],
        },
    }


def claim(settings: Settings) -> dict[str, Any]:
    chosen_class = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": settings.storage_size}},
    } | chosen_class


def host(settings: Settings) -> str:
    """Name of the server for pods of every namespace. The operator calls its Service `clickhouse-<installation>`."""
    return f"clickhouse-{NAME}.{settings.namespace}.svc.cluster.local"
