"""The operator's chart and the installation it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, protect_objects
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings
from users import ADMIN_SECRET, OPERATOR_SECRET, USER_SECRET

RELEASE = "clickhouse"
SERVICE = f"clickhouse-{RELEASE}"
"""The operator calls it `clickhouse-<installation>`."""
HTTP_PORT = 8123
NATIVE_PORT = 9000


def operator_chart(settings: Settings, *, after: Sequence[pulumi.Resource]) -> Chart:
    """The operator and its CRDs, awaited. Its name is that of its Secret."""
    established = add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60)
    patient = add_wait_annotation("Deployment", timeout=300)
    return chart(
        "altinity-clickhouse-operator",
        release=OPERATOR_SECRET,
        namespace=settings.namespace,
        values={
            # A hook, which would not run here; the CRDs come with the chart anyhow.
            "crdHook": {"enabled": False},
            "secret": {"create": False},
            "serviceMonitor": {"enabled": settings.monitoring},
        },
        opts=pulumi.ResourceOptions(depends_on=list(after), transforms=[established, patient]),
    )


def installation_chart(settings: Settings, *, after: Sequence[pulumi.Resource]) -> Chart:
    """One server, awaited until the operator says that it is completed. It must go before the operator does."""
    completed = add_wait_annotation(
        "ClickHouseInstallation", wait_for="jsonpath={.status.status}=Completed", timeout=900
    )
    kept = [protect_objects("ClickHouseInstallation")] if settings.protect else []
    return chart(
        "clickhouse",
        release=RELEASE,
        namespace=settings.namespace,
        values={"operator": {"enabled": False}, "keeper": {"enabled": False}, "clickhouse": server_values(settings)},
        opts=pulumi.ResourceOptions(depends_on=list(after), transforms=[completed, *kept]),
    )


def server_values(settings: Settings) -> dict[str, Any]:
    """Nobody may log in from elsewhere unless told; only the apps' user is, from the networks given."""
    image = {"image": {"tag": settings.image_tag}} if settings.image_tag else {}
    return image | {
        "replicasCount": 1,
        "shardsCount": 1,
        "defaultUser": {"password_secret_name": ADMIN_SECRET, "hostIP": "127.0.0.1/32", "allowExternalAccess": False},
        "users": [
            {
                "name": settings.user,
                "hostIP": list(settings.networks),
                "accessManagement": 0,
                "password_secret_name": USER_SECRET,
            }
        ],
        "persistence": persistence(settings),
        "service": {"type": "ClusterIP"},
    }


def persistence(settings: Settings) -> dict[str, Any]:
    chosen_class = {"storageClass": settings.storage_class} if settings.storage_class else {}
    return {"enabled": True, "size": settings.storage_size} | chosen_class


def host(settings: Settings) -> str:
    """Name of the server for pods of every namespace."""
    return f"{SERVICE}.{settings.namespace}.svc.cluster.local"
