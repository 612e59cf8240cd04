"""The server, a ClickHouseInstallation that the operator runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from lib.k8s import labels, wait_annotations
from pulumi_kubernetes.apiextensions import CustomResource
from settings import Settings
from users import users

NAME = "clickhouse"
"""The name of the installation and of its one cluster, and part of the names of StatefulSet, pod and claim."""
DATA = f"{NAME}-data"
"""First part of the claim's name: with another name the server would start on an empty volume."""
IMAGE = "altinity/clickhouse-server"
PORTS = {"http": 8123, "tcp": 9000}


def installation(settings: Settings, *, after: Sequence[pulumi.Resource]) -> CustomResource:
    """Create one server and wait until its status is Completed. It must be deleted before the operator.

    It is not part of Altinity's chart: before 4.32 pulumi's provider cannot preview a chart's custom resource while its
    CRD is missing. The alias keeps the server of an older stack, where it was.
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
    """Build templates of pod, volume and Service; without its template the Service would be headless."""
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
    """Return the server's name for pods of every namespace. Its Service is `clickhouse-<installation>`."""
    return f"clickhouse-{NAME}.{settings.namespace}.svc.cluster.local"
