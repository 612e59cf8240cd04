"""The chart of n8n and the Secret with its encryption key."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.database import AppDatabase
from lib.k8s import add_wait_annotation, opaque_secret
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim, Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

RELEASE = "n8n"
SERVICE = f"{RELEASE}-main"
PORT = 5678
FILES = "n8n-files"
CORE_SECRET = "n8n-core"  # noqa: S105 - a name
DATABASE_KEYS = {"DB_POSTGRESDB_PASSWORD": "password"}


def core_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the Secret that the chart reads; it requires all four keys. TLS terminates at the proxies before n8n."""
    data = {
        "N8N_ENCRYPTION_KEY": settings.encryption_key,
        "N8N_HOST": settings.host,
        "N8N_PORT": str(PORT),
        "N8N_PROTOCOL": "http",
    }
    return opaque_secret(CORE_SECRET, namespace=settings.namespace, component="n8n", data=data, after=after)


def n8n_chart(settings: Settings, database: AppDatabase, core: Secret, files: PersistentVolumeClaim) -> Chart:
    """Install n8n as one pod, without queue and Redis. The first start migrates the database."""
    return chart(
        "n8n",
        release=RELEASE,
        namespace=settings.namespace,
        values=chart_values(settings, database),
        opts=pulumi.ResourceOptions(
            depends_on=[*database.ready, core, files], transforms=[add_wait_annotation("Deployment", timeout=600)]
        ),
    )


def chart_values(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    return {
        "image": {"tag": settings.image_tag},
        "queueMode": {"enabled": False},
        "redis": {"enabled": False},
        "database": database_values(database),
        "secretRefs": {"existingSecret": CORE_SECRET},
        # Not used, but without a name the chart writes a Secret with a new random token at every preview.
        "taskRunners": {"enabled": False, "authToken": {"existingSecret": CORE_SECRET}},
        "persistence": {"enabled": True, "existingClaim": FILES},
        "strategy": {"type": "Recreate"},
        # With a single pod the disruption budget would only block drains.
        "pdb": {"enabled": False},
        # n8n does not use the Kubernetes API; the chart would allow it to read every Secret of the namespace.
        "rbac": {"create": False},
        "serviceAccount": {"automountServiceAccountToken": False},
        "ingress": {"enabled": False},
        "config": {"timezone": settings.timezone, "extraEnv": environment(settings)},
    }


def database_values(database: AppDatabase) -> dict[str, Any]:
    return {
        "useExternal": True,
        "host": database.host,
        "port": database.port,
        "database": database.name,
        "user": database.username,
        "passwordSecret": {"name": database.secret_name, "key": "DB_POSTGRESDB_PASSWORD"},
    }


def environment(settings: Settings) -> list[dict[str, str]]:
    """Set both URLs here: the chart's `webhook.url` would use the public address for the editor as well."""
    return [
        {"name": "WEBHOOK_URL", "value": f"https://{settings.webhook_host}/"},
        {"name": "N8N_EDITOR_BASE_URL", "value": settings.chosen_editor_url},
        # Each Ingress has one proxy in front of n8n; without this n8n sees the proxy as the caller.
        {"name": "N8N_PROXY_HOPS", "value": "1"},
        {"name": "GENERIC_TIMEZONE", "value": settings.timezone},
    ]
