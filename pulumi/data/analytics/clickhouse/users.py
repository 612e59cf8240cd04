"""Logins, each in a Secret of its own that charts are given the name of."""

from __future__ import annotations

import pulumi
from lib.k8s import opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from settings import Settings

OPERATOR_SECRET = "altinity-clickhouse-operator"  # noqa: S105 - the name the operator's chart expects
ADMIN_SECRET = "clickhouse-default"  # noqa: S105 - a name
USER_SECRET = "clickhouse-user"  # noqa: S105 - a name


def operator_login(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """The operator's own user in every server. The chart's would have a password that anybody can read in the chart."""
    return _login(OPERATOR_SECRET, "clickhouse_operator", settings.operator_password, settings, after)


def admin_login(settings: Settings, *, after: pulumi.Resource) -> Secret:
    return _login(ADMIN_SECRET, "default", settings.admin_password, settings, after)


def user_login(settings: Settings, *, after: pulumi.Resource) -> Secret:
    return _login(USER_SECRET, settings.user, settings.user_password, settings, after)


def _login(name: str, username: str, password: pulumi.Input[str], settings: Settings, after: pulumi.Resource) -> Secret:
    data = {"username": username, "password": password}
    return opaque_secret(name, namespace=settings.namespace, component="clickhouse", data=data, after=after)
