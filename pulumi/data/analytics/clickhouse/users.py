"""Users of the server, each with its login in its own Secret."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.k8s import opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from settings import Settings

OPERATOR_SECRET = "altinity-clickhouse-operator"  # noqa: S105 - the name the operator's chart expects
ADMIN_SECRET = "clickhouse-default"  # noqa: S105 - a name
USER_SECRET = "clickhouse-user"  # noqa: S105 - a name
ADMIN_RIGHTS = (
    "access_management",
    "named_collection_control",
    "show_named_collections",
    "show_named_collections_secrets",
)


def users(settings: Settings) -> dict[str, Any]:
    """ClickHouse's users besides the operator's. From outside the pod only the apps' user may log in."""
    return {
        "default/networks/ip": "127.0.0.1/32",
        **{f"default/{right}": 1 for right in ADMIN_RIGHTS},
        "default/password": _password_in(ADMIN_SECRET),
        f"{settings.user}/networks/ip": list(settings.networks),
        f"{settings.user}/access_management": 0,
        f"{settings.user}/password": _password_in(USER_SECRET),
    }


def operator_login(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the login of the operator's user in every server. The chart's default password is public."""
    return _login(OPERATOR_SECRET, "clickhouse_operator", settings.operator_password, settings, after)


def admin_login(settings: Settings, *, after: pulumi.Resource) -> Secret:
    return _login(ADMIN_SECRET, "default", settings.admin_password, settings, after)


def user_login(settings: Settings, *, after: pulumi.Resource) -> Secret:
    return _login(USER_SECRET, settings.user, settings.user_password, settings, after)


def _password_in(secret: str) -> dict[str, Any]:
    return {"valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}}


def _login(name: str, username: str, password: pulumi.Input[str], settings: Settings, after: pulumi.Resource) -> Secret:
    data = {"username": username, "password": password}
    return opaque_secret(name, namespace=settings.namespace, component="clickhouse", data=data, after=after)
