"""Stitch's own database, in the Postgres that the environment names."""

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
"""Environment variables of the pod, each with the part of the login that it holds."""


def stitch_database(settings: Settings, *, after: pulumi.Resource) -> AppDatabase:
    """Role, database and Secret. The pods are told the server's name inside the cluster, pulumi takes the tailnet's."""
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
