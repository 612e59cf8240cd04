"""Immich's chart."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.database import AppDatabase
from lib.k8s import add_wait_annotation
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

RELEASE = "immich"
SERVICE = f"{RELEASE}-server"
PORT = 2283
LIBRARY = "immich-library"
DATABASE_KEYS = {"DB_PASSWORD": "password"}


def immich_chart(settings: Settings, database: AppDatabase, library: PersistentVolumeClaim) -> Chart:
    """Install server, machine learning and Valkey and wait: images are large, a first start migrates the database.

    Services have the same timeout as the pods, because pulumi waits for an endpoint of each.
    """
    patient = [add_wait_annotation(kind, timeout=900) for kind in ("Deployment", "Service")]
    return chart(
        "immich",
        release=RELEASE,
        namespace=settings.namespace,
        values=chart_values(settings, database),
        opts=pulumi.ResourceOptions(depends_on=[*database.ready, library], transforms=patient),
    )


def chart_values(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    return {
        "defaultPodOptions": {"automountServiceAccountToken": False},
        "controllers": {"main": {"containers": {"main": {"image": {"tag": settings.image_tag}}}}},
        "immich": {
            "persistence": {"library": {"existingClaim": LIBRARY}},
            "metrics": {"enabled": settings.metrics},
        },
        "valkey": {"enabled": True},
        "server": server_values(settings, database),
        "machine-learning": {"enabled": settings.machine_learning},
    }


def server_values(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    """Only the server gets the database. Recreate: two servers would share one volume and one migration."""
    container = {"env": environment(settings, database)}
    return {
        "enabled": True,
        "controllers": {"main": {"strategy": "Recreate", "containers": {"main": container}}},
        "ingress": {"main": {"enabled": False}},
    }


def environment(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    """Return the database's variables, with its in-cluster name: pods do not resolve the tailnet name."""
    return {
        "DB_HOSTNAME": database.host,
        "DB_PORT": str(database.port),
        "DB_USERNAME": database.username,
        "DB_DATABASE_NAME": database.name,
        "DB_PASSWORD": {"valueFrom": {"secretKeyRef": {"name": database.secret_name, "key": "DB_PASSWORD"}}},
        "DB_VECTOR_EXTENSION": settings.vector_extension,
    }
