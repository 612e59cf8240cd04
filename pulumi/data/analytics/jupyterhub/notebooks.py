"""Resources, environment and network policy of the notebooks."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.database import PostgresServer
from settings import Settings

CLICKHOUSE_PORTS = (8123, 9000)


def notebook_values(settings: Settings, server: PostgresServer) -> dict[str, Any]:
    name, _, tag = settings.notebook_image.rpartition(":")
    image = {"image": {"name": name, "tag": tag}} if settings.notebook_image else {}
    return image | {
        "memory": {"guarantee": settings.memory_guarantee, "limit": settings.memory_limit},
        "storage": storage(settings),
        "extraEnv": {"PGHOST": server.pod_host, "CLICKHOUSE_HOST": clickhouse_host(settings)},
        "networkPolicy": {"enabled": True, "egress": egress(settings, server)},
        # The network policy blocks the metadata address; this option would need a privileged container in each pod.
        "cloudMetadata": {"blockWithIptables": False},
    }


def egress(settings: Settings, server: PostgresServer) -> list[dict[str, Any]]:
    """Allow two databases, besides internet and DNS. The chart's own switch would allow every private address."""
    postgres = {
        **_namespace(server.namespace),
        "podSelector": {"matchLabels": {"cnpg.io/cluster": "postgresql-cluster"}},
    }
    clickhouse = _namespace(settings.clickhouse_namespace)
    return [
        {"to": [postgres], "ports": [{"protocol": "TCP", "port": 5432}]},
        {"to": [clickhouse], "ports": [{"protocol": "TCP", "port": port} for port in CLICKHOUSE_PORTS]},
    ]


def storage(settings: Settings) -> dict[str, Any]:
    chosen_class = {"dynamic": {"storageClass": settings.storage_class}} if settings.storage_class else {}
    return {"type": "dynamic", "capacity": settings.storage_size} | chosen_class


def clickhouse_host(settings: Settings) -> str:
    return f"clickhouse-clickhouse.{settings.clickhouse_namespace}.svc.cluster.local"


def _namespace(name: pulumi.Input[str]) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
