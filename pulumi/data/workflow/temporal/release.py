"""Temporal's chart: its four servers, the web interface, and the Jobs that create schema and namespaces."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.database import AppDatabase
from lib.k8s import add_wait_annotation
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

RELEASE = "temporal"
WEB = f"{RELEASE}-web"
WEB_PORT = 8080
FRONTEND = f"{RELEASE}-frontend"
GRPC_PORT = 7233
FRONTEND_LABELS = {
    "app.kubernetes.io/name": "temporal",
    "app.kubernetes.io/instance": RELEASE,
    "app.kubernetes.io/component": "frontend",
}
DATABASES = ("temporal", "temporal_visibility")
DATABASE_KEYS = {"password": "password"}
HISTORY_SHARDS = 512
"""Never change it: another number makes existing workflows unreachable."""
CONNECTIONS = {"default": 10, "visibility": 4}
"""The maximum of each of the four servers. Postgres allows 100 connections by default."""


def temporal_chart(settings: Settings, database: AppDatabase) -> Chart:
    """Install Temporal and wait for all of it. The servers restart until the Job has created the schema.

    Services have the same timeout, because pulumi waits for an endpoint of each, by default for ten minutes.
    """
    patient = [add_wait_annotation(kind, timeout=900) for kind in ("Deployment", "Service", "Job")]
    return chart(
        "temporal",
        release=RELEASE,
        namespace=settings.namespace,
        values=chart_values(settings, database),
        opts=pulumi.ResourceOptions(depends_on=[*database.ready], transforms=patient),
    )


def chart_values(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    return {
        # Pulumi leaves out Helm hooks, so the Jobs must not be hooks.
        "schema": {
            "useHelmHooks": False,
            # By default the Job is deleted a day after its end, which drift would report. A string, because helm
            # renders large numbers in a notation that Kubernetes does not accept.
            "ttlSecondsAfterFinished": "2147483647",
        },
        "server": {
            "metrics": {"serviceMonitor": {"enabled": settings.monitoring}},
            "config": {
                "logLevel": "info",
                "persistence": persistence(database),
                "namespaces": temporal_namespaces(settings),
            },
        },
        "web": {"ingress": {"enabled": False}},
    }


def persistence(database: AppDatabase) -> dict[str, Any]:
    stores = zip(("default", "visibility"), database.databases, strict=True)
    return {
        "defaultStore": "default",
        "visibilityStore": "visibility",
        "numHistoryShards": HISTORY_SHARDS,
        "datastores": {store: {"sql": sql_store(database, name, CONNECTIONS[store])} for store, name in stores},
    }


def sql_store(database: AppDatabase, name: str, connections: int) -> dict[str, Any]:
    """The database exists already; its owner may create the schema and its one extension, which is trusted."""
    return {
        "pluginName": "postgres12",
        "driverName": "postgres12",
        "databaseName": name,
        "connectAddr": pulumi.Output.format("{0}:{1}", database.host, database.port),
        "connectProtocol": "tcp",
        "user": database.username,
        "existingSecret": database.secret_name,
        "secretKey": "password",
        "maxConns": connections,
        "maxIdleConns": connections,
        "maxConnLifetime": "1h",
        "createDatabase": False,
        "manageSchema": True,
    }


def temporal_namespaces(settings: Settings) -> dict[str, Any]:
    return {
        "create": True,
        "useHelmHooks": False,
        "namespace": [{"name": name, "retention": settings.retention} for name in settings.namespaces],
    }
