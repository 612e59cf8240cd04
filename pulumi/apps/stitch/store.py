"""Stitch's database, in the Postgres that the environment names."""

from __future__ import annotations

import pulumi
from lib.database import AppDatabase, LoginField, PostgresServer, app_database
from settings import Settings

LOGIN_KEYS: dict[str, LoginField] = {
    "POSTGRES_HOST": "host",
    "POSTGRES_PORT": "port",
    "POSTGRES_USER": "username",
    "POSTGRES_PASSWORD": "password",
    "POSTGRES_DB": "database",
}
"""Environment variables of the pod, each with its field of the login."""


def stitch_database(settings: Settings, *, after: pulumi.Resource) -> AppDatabase:
    """Create role, database and Secret. Pods get the server's in-cluster name, pulumi uses the tailnet name."""
    return app_database(
        "stitch",
        server=PostgresServer(
            admin_host=settings.admin_host,
            port=settings.admin_port,
            username=settings.admin_username,
            password=settings.admin_password,
            sslmode=settings.sslmode,
            pod_host=settings.postgres_host,
        ),
        password=settings.database_password,
        namespace=settings.namespace,
        secret_keys=LOGIN_KEYS,
        protect=settings.protect,
        after=after,
    )
