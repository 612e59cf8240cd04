"""Roles in a Cluster's server: `spec.managed.roles` of the Cluster, and `DatabaseRole` objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from lab.operators import postgres, sql
from lab.operators.api import CLUSTER, DATABASE_ROLE, SECRET, Api, Object, decode
from lab.operators.finalizers import add_finalizer, remove_finalizer
from lab.operators.servers import MANAGER, Servers, report_applied
from lab.operators.work import told
from runbooks.core.errors import OpsError

FINALIZER = "cnpg.io/deleteDatabaseRole"
RESERVED = frozenset({"postgres", "streaming_replica"})
RETRY = 2.0


class PasswordMissingError(OpsError):
    """A role's Secret is not there or does not fit."""


def reconcile_managed(api: Api, cluster: Object, place: postgres.Place) -> dict[str, Any]:
    """Bring `managed.roles` about; the answer is `status.managedRolesStatus`, empty when there are none."""
    wanted = (cluster["spec"].get("managed") or {}).get("roles") or []
    by_status: dict[str, list[str]] = {}
    cannot: dict[str, list[str]] = {}
    if not wanted:
        return {}
    with postgres.connect(place) as connection:
        for spec in wanted:
            try:
                _bring_about(api, connection, cluster["metadata"]["namespace"], spec)
                by_status.setdefault("reconciled", []).append(spec["name"])
            except (psycopg.Error, PasswordMissingError) as problem:
                by_status.setdefault("pending-reconciliation", []).append(spec["name"])
                cannot[spec["name"]] = [told(problem)]
    return {"byStatus": by_status, "cannotReconcile": cannot}


def _bring_about(api: Api, connection: sql.Connection, namespace: str, spec: Mapping[str, Any]) -> None:
    if spec["name"] in RESERVED:
        raise PasswordMissingError(f"role {spec['name']} is reserved for the operator")
    if spec.get("ensure") == "absent":
        sql.drop_role(connection, spec["name"])
        return
    secret = (spec.get("passwordSecret") or {}).get("name")
    password = _password(api, namespace, secret, spec["name"]) if secret else None
    sql.ensure_role(connection, sql.Role.read(spec))
    if password is not None or spec.get("disablePassword"):
        sql.set_password(connection, spec["name"], password)


def _password(api: Api, namespace: str, secret: str, role: str) -> str:
    values = decode(api.get(SECRET, namespace, secret))
    if not values.get("password"):
        raise PasswordMissingError(f"Secret {secret} in namespace {namespace} is missing or has no password")
    if values.get("username") != role:
        raise PasswordMissingError(f"Secret {secret}: its username is not the role {role}")
    return values["password"]


class DatabaseRoles:
    """The controller of DatabaseRole objects."""

    def __init__(self, api: Api, servers: Servers) -> None:
        self._api = api
        self._servers = servers

    def reconcile(self, namespace: str, name: str) -> float | None:
        role = self._api.get(DATABASE_ROLE, namespace, name)
        if role is None:
            return None
        spec = role["spec"]
        place = self._servers.place(namespace, spec["cluster"]["name"])
        if role["metadata"].get("deletionTimestamp"):
            return self._delete(role, place)
        if place is None:
            return RETRY
        role = add_finalizer(self._api, role, FINALIZER, MANAGER)
        problem = self._try(role, place)
        report_applied(self._api, role, f"reconciliation error: {problem}" if problem else "")
        return RETRY if problem else None

    def _try(self, role: Object, place: postgres.Place) -> str:
        """Bring the role about; what went wrong, or nothing."""
        namespace, spec = role["metadata"]["namespace"], role["spec"]
        if self._managed_inline(namespace, spec):
            return "database role is already managed by the CNPG cluster"
        try:
            with postgres.connect(place) as connection:
                _bring_about(self._api, connection, namespace, spec)
        except (psycopg.Error, PasswordMissingError) as problem:
            return told(problem)
        return ""

    def _managed_inline(self, namespace: str, spec: Mapping[str, Any]) -> bool:
        cluster = self._api.get(CLUSTER, namespace, spec["cluster"]["name"]) or {"spec": {}}
        roles = (cluster["spec"].get("managed") or {}).get("roles") or []
        return any(entry["name"] == spec["name"] for entry in roles)

    def _delete(self, role: Object, place: postgres.Place | None) -> float | None:
        if place is not None and role["spec"].get("databaseRoleReclaimPolicy") == "delete":
            with postgres.connect(place) as connection:
                sql.drop_role(connection, role["spec"]["name"])
        remove_finalizer(self._api, role, FINALIZER, MANAGER)
        return None
