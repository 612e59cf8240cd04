"""JupyterHub's chart."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.database import AppDatabase, PostgresServer
from lib.k8s import add_wait_annotation
from notebooks import notebook_values
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings
from tokens import ELSEWHERE, proxy_token_in_chart

SERVICE = "proxy-public"
PORT = 80
DATABASE_KEYS = {"hub.db.password": "password"}
LOGIN = """
from z2jh import get_secret_value

c.SharedPasswordAuthenticator.admin_password = get_secret_value("admin_password")
"""


def jupyterhub_chart(settings: Settings, server: PostgresServer, database: AppDatabase) -> Chart:
    """Install hub and proxy and wait for them. The chart's objects have no prefix: one hub per namespace."""
    patient = add_wait_annotation("Deployment", timeout=600)
    return chart(
        "jupyterhub",
        release="jupyterhub",
        namespace=settings.namespace,
        values=chart_values(settings, server, database),
        opts=pulumi.ResourceOptions(depends_on=[*database.ready], transforms=[patient, proxy_token_in_chart(settings)]),
    )


def chart_values(settings: Settings, server: PostgresServer, database: AppDatabase) -> dict[str, Any]:
    return {
        "hub": hub_values(settings, database),
        # The chart's default is a load balancer.
        "proxy": {"secretToken": ELSEWHERE, "service": {"type": "ClusterIP"}},
        "singleuser": notebook_values(settings, server),
        # For a few users on a few nodes: no extra scheduler, no placeholder pods, no pulled images.
        "scheduling": {"userScheduler": {"enabled": False}, "userPlaceholder": {"enabled": False}},
        "prePuller": {"hook": {"enabled": False}, "continuous": {"enabled": False}},
        "cull": {"enabled": True, "timeout": 3600},
        "ingress": {"enabled": False},
    }


def hub_values(settings: Settings, database: AppDatabase) -> dict[str, Any]:
    """Allow only admins to log in, with one password; the chart's default login admits everyone.

    They are listed twice, because JupyterHub 5 admits only users in `allowed_users`, admins included.
    """
    admins = list(settings.admin_users)
    url = pulumi.Output.format(
        "postgresql+psycopg2://{0}@{1}:{2}/{3}", database.username, database.host, database.port, database.name
    )
    return {
        "existingSecret": database.secret_name,
        "cookieSecret": ELSEWHERE,
        "config": {
            "JupyterHub": {"authenticator_class": "shared-password", "admin_access": True},
            "Authenticator": {"admin_users": admins, "allowed_users": admins},
            "CryptKeeper": {"keys": [ELSEWHERE]},
        },
        "extraConfig": {"login": LOGIN.strip()},
        "db": {"type": "postgres", "url": url, "upgrade": True},
    }
