"""The CloudNativePG cluster, its superuser and its metrics."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.k8s import labels, wait_annotations
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import Secret
from settings import Settings

CLUSTER = "postgresql-cluster"
SUPERUSER = "postgres"
SUPERUSER_SECRET = f"{CLUSTER}-superuser"
PORT = 5432
"""The port of the instances and of the operator's own Services."""


def superuser_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the superuser's login as the operator reads it. The label makes it apply a new password at once."""
    return Secret(
        SUPERUSER_SECRET,
        metadata={
            "name": SUPERUSER_SECRET,
            "namespace": settings.namespace,
            "labels": labels("postgresql") | {"cnpg.io/reload": "true"},
        },
        type="kubernetes.io/basic-auth",
        string_data={"username": SUPERUSER, "password": settings.superuser_password},
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def postgres_cluster(settings: Settings, *, after: Secret) -> CustomResource:
    """Create the cluster and wait until it is Ready; a first start takes minutes if the image is pulled.

    The Secret is passed by name, not as an output: pulumi replaces a Secret to change a password, and must not replace
    the cluster with it.
    """
    return CustomResource(
        CLUSTER,
        api_version="postgresql.cnpg.io/v1",
        kind="Cluster",
        metadata={
            "name": CLUSTER,
            "namespace": settings.namespace,
            "labels": labels("postgresql"),
            "annotations": wait_annotations("condition=Ready", timeout=900),
        },
        spec=cluster_spec(settings),
        opts=pulumi.ResourceOptions(depends_on=[after], protect=settings.protect),
    )


def cluster_spec(settings: Settings) -> dict[str, Any]:
    """Set only what differs from the operator's defaults."""
    image = {"imageName": settings.image} if settings.image else {}
    return image | {
        "instances": settings.instances,
        # With a single instance the disruption budget would only block drains.
        "enablePDB": settings.instances > 1,
        "enableSuperuserAccess": True,
        "superuserSecret": {"name": SUPERUSER_SECRET},
        "storage": storage(settings),
        "postgresql": server_configuration(settings),
        # So that clients on the tailnet can verify the name they connect to.
        "certificates": {"serverAltDNSNames": [settings.ts_hostname]},
    }


def storage(settings: Settings) -> dict[str, str]:
    chosen_class = {"storageClass": settings.storage_class} if settings.storage_class else {}
    return {"size": settings.storage_size} | chosen_class


def server_configuration(settings: Settings) -> dict[str, Any]:
    configuration: dict[str, Any] = {"parameters": settings.parameters}
    if settings.all_preload_libraries:
        configuration["shared_preload_libraries"] = list(settings.all_preload_libraries)
    return configuration


def host(settings: Settings) -> str:
    """Return the primary's name for pods of every namespace."""
    return f"{CLUSTER}-rw.{settings.namespace}.svc.cluster.local"


def pod_monitor(settings: Settings, *, after: CustomResource) -> CustomResource:
    """Scrape every instance. The cluster's own `enablePodMonitor` is deprecated."""
    return CustomResource(
        f"{CLUSTER}-metrics",
        api_version="monitoring.coreos.com/v1",
        kind="PodMonitor",
        metadata={"name": CLUSTER, "namespace": settings.namespace, "labels": labels("postgresql")},
        spec={
            "selector": {"matchLabels": {"cnpg.io/cluster": CLUSTER}},
            "podMetricsEndpoints": [{"port": "metrics"}],
        },
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )
