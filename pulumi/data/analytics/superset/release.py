"""Superset's chart and the Secret with the keys of its pods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cache
import pulumi
from lib.charts import chart
from lib.database import AppDatabase
from lib.k8s import add_wait_annotation, opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings
from startup import CONFIGURATION, bootstrap_script, init_script

RELEASE = "superset"
SERVICE = RELEASE
PORT = 8088
KEYS_SECRET = "superset-keys"  # noqa: S105 - a name
DATABASE_KEYS = {
    "DB_HOST": "host",
    "DB_PORT": "port",
    "DB_USER": "username",
    "DB_PASS": "password",
    "DB_NAME": "database",
}
CACHE_KEYS = {
    "REDIS_HOST": cache.NAME,
    "REDIS_PORT": str(cache.PORT),
    "REDIS_PROTO": "redis",
    "REDIS_USER": "",
    "REDIS_DB": "1",
    "REDIS_CELERY_DB": "0",
}
"""Superset reads these from the same Secret as the database's login."""


def keys_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the Secret with environment variables that the chart would otherwise take from its values."""
    data = {
        "SUPERSET_SECRET_KEY": settings.secret_key,
        "ADMIN_USERNAME": settings.admin_username,
        "ADMIN_EMAIL": settings.admin_email,
        "ADMIN_PASSWORD": settings.admin_password,
    }
    return opaque_secret(KEYS_SECRET, namespace=settings.namespace, component="superset", data=data, after=after)


def superset_chart(settings: Settings, database: AppDatabase, *, after: Sequence[pulumi.Resource]) -> Chart:
    """Install web server, workers, and the Job that creates tables and first user, and wait for all of them.

    The Job's annotations would make it a Helm hook, which pulumi leaves out, so they are removed. The Service has the
    same timeout as the pods, because pulumi waits for its endpoint.
    """
    patient = [add_wait_annotation(kind, timeout=900) for kind in ("Deployment", "Service", "Job")]
    return chart(
        "superset",
        release=RELEASE,
        namespace=settings.namespace,
        values=chart_values(settings, database),
        without=["init.jobAnnotations"],
        opts=pulumi.ResourceOptions(depends_on=[*database.ready, *after], transforms=patient),
    )


def chart_values(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    image = {"image": {"tag": settings.image_tag}} if settings.image_tag else {}
    return image | {
        "secretEnv": {"create": False},
        "envFromSecret": database.secret_name,
        "envFromSecrets": [KEYS_SECRET],
        "bootstrapScript": bootstrap_script(settings.drivers),
        "configOverrides": CONFIGURATION,
        # The chart would write the password from its values into the script; ours reads the environment.
        "init": {"enabled": True, "createAdmin": False, "loadExamples": False, "initscript": init_script()},
        "supersetWorker": {"replicas": {"enabled": True, "replicaCount": settings.workers}},
        "ingress": {"enabled": False},
        "postgresql": {"enabled": False},
        "redis": {"enabled": False},
    }
