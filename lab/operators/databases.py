"""`Database` and `DatabaseRole` objects, and `spec.managed.roles` of a Cluster: made in the Cluster's real server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from lab.operators import objects, postgres, sql
from lab.operators.api import Api
from lab.operators.objects import Kind, Object
from lab.operators.work import Controller, explain
from runbooks.core.errors import OpsError

OPERATOR = {"app.kubernetes.io/name": "cloudnative-pg"}
"""Labels of the operator's Deployment, whatever its release is called."""
FINALIZERS = {"Database": "cnpg.io/deleteDatabase", "DatabaseRole": "cnpg.io/deleteDatabaseRole"}
RESERVED = frozenset({"postgres", "streaming_replica"})
UNSUPPORTED = ("fdws", "servers")
Ensure = Callable[[sql.Connection, Mapping[str, Any]], None]
RETRY = 2.0
"""Seconds until a failure is retried; CNPG's operator waits 30, which is long for a rehearsal."""


class PasswordMissingError(OpsError):
    """A role's Secret is missing or not valid."""


def controllers(api: Api, lab_dir: Path) -> dict[str, Controller]:
    databases = Databases(api, lab_dir)
    return {
        "database": lambda namespace, name: databases.reconcile(objects.DATABASE, namespace, name),
        "role": lambda namespace, name: databases.reconcile(objects.DATABASE_ROLE, namespace, name),
    }


@dataclass(frozen=True)
class Databases:
    """The controller of Database and DatabaseRole objects."""

    api: Api
    lab_dir: Path

    def reconcile(self, kind: Kind, namespace: str, name: str) -> float | None:
        found = self.api.get(kind, namespace, name)
        if found is None:
            return None
        place = self._place(namespace, found["spec"]["cluster"]["name"])
        if objects.is_leaving(found):
            self._let_go(found, place)
            return None
        status = found.get("status") or {}
        applied = status.get("applied") is True and status.get("observedGeneration") == found["metadata"]["generation"]
        if kind is objects.DATABASE and applied:  # CNPG applies a Database once per generation
            return None
        if place is None:
            return RETRY
        found = self.api.add_finalizer(found, FINALIZERS[kind.kind])
        make = self._make_database if kind is objects.DATABASE else self._make_role
        problem, more = make(found, place)
        if not problem:
            more["observedGeneration"] = found["metadata"]["generation"]
        message = f"reconciliation error: {problem}" if problem else ""
        self.api.update_status(found, {"applied": not problem, "message": message, **more})
        return RETRY if problem else None

    def _place(self, namespace: str, cluster: str) -> postgres.Place | None:
        """The server of a Cluster, if it is bootstrapped and runs; None means to look again later."""
        found = self.api.get(objects.CLUSTER, namespace, cluster)
        folder = postgres.folder_of(self.lab_dir, namespace, cluster)
        record = postgres.read_record(folder)
        if found is None or record.get("uid") != found["metadata"]["uid"] or not record.get("bootstrapped"):
            return None
        place = postgres.Place(folder, record["port"])
        running = postgres.read_postmaster(place.data)
        return place if running and running.ready and self.api.runs(OPERATOR) else None

    def _make_database(self, database: Object, place: postgres.Place) -> tuple[str, Object]:
        """Make the database. Returns the error, empty on success, and the status of its schemas and extensions."""
        spec, name = database["spec"], database["spec"]["name"]
        other = self._manager_of_the_same(database)
        if other:
            return f'database "{name}" is already managed by Database object "{other}"', {}
        try:
            with sql.connect(place) as connection:
                if spec.get("ensure") == "absent":
                    sql.drop_database(connection, name)
                    return "", {}
                sql.ensure_database(connection, spec)
        except psycopg.Error as problem:
            return f'while creating database "{name}": {explain(problem)}', {}
        inside = _fill(place, spec)
        failed = [entry for entries in inside.values() for entry in entries if not entry["applied"]]
        return "; ".join(f"{entry['name']}: {entry['message']}" for entry in failed), inside

    def _manager_of_the_same(self, database: Object) -> str:
        """The other object that manages this database already, or an empty string."""
        meta, spec = database["metadata"], database["spec"]
        if (database.get("status") or {}).get("observedGeneration"):
            return ""
        for other in self.api.list(objects.DATABASE, meta["namespace"]):
            same = other["spec"]["cluster"]["name"] == spec["cluster"]["name"] and other["spec"]["name"] == spec["name"]
            settled = (other.get("status") or {}).get("observedGeneration")
            if same and settled and other["metadata"]["name"] != meta["name"]:
                return str(other["metadata"]["name"])
        return ""

    def _make_role(self, role: Object, place: postgres.Place) -> tuple[str, Object]:
        """Make the role. Returns the error, empty on success."""
        namespace, spec = role["metadata"]["namespace"], role["spec"]
        cluster = self.api.get(objects.CLUSTER, namespace, spec["cluster"]["name"]) or {"spec": {}}
        inline = (cluster["spec"].get("managed") or {}).get("roles") or []
        if any(entry["name"] == spec["name"] for entry in inline):
            return "database role is already managed by the CNPG cluster", {}
        try:
            with sql.connect(place) as connection:
                _ensure_role(self.api, connection, namespace, spec)
        except (psycopg.Error, PasswordMissingError) as problem:
            return explain(problem), {}
        return "", {}

    def _let_go(self, found: Object, place: postgres.Place | None) -> None:
        """Drop a deleted object's database or role if its policy says so, then remove the finalizer."""
        kind, spec = found["kind"], found["spec"]
        if place is not None and spec.get(f"{kind[0].lower()}{kind[1:]}ReclaimPolicy") == "delete":
            with sql.connect(place) as connection:
                (sql.drop_database if kind == "Database" else sql.drop_role)(connection, spec["name"])
        self.api.remove_finalizer(found, FINALIZERS[kind])


def reconcile_managed(api: Api, cluster: Object, place: postgres.Place) -> dict[str, Any]:
    """Make `managed.roles`; returns `status.managedRolesStatus`, empty when there are none."""
    wanted = (cluster["spec"].get("managed") or {}).get("roles") or []
    by_status: dict[str, list[str]] = {}
    cannot: dict[str, list[str]] = {}
    if not wanted:
        return {}
    with sql.connect(place) as connection:
        for spec in wanted:
            try:
                _ensure_role(api, connection, cluster["metadata"]["namespace"], spec)
                by_status.setdefault("reconciled", []).append(spec["name"])
            except (psycopg.Error, PasswordMissingError) as problem:
                by_status.setdefault("pending-reconciliation", []).append(spec["name"])
                cannot[spec["name"]] = [explain(problem)]
    return {"byStatus": by_status, "cannotReconcile": cannot}


def _ensure_role(api: Api, connection: sql.Connection, namespace: str, spec: Mapping[str, Any]) -> None:
    if spec["name"] in RESERVED:
        raise PasswordMissingError(f"role {spec['name']} is reserved for the operator")
    if spec.get("ensure") == "absent":
        sql.drop_role(connection, spec["name"])
        return
    secret = (spec.get("passwordSecret") or {}).get("name")
    password = _password(api, namespace, secret, spec["name"]) if secret else None
    sql.ensure_role(connection, spec)
    if password is not None or spec.get("disablePassword"):
        sql.set_password(connection, spec["name"], password)


def _password(api: Api, namespace: str, secret: str, role: str) -> str:
    values = objects.decode(api.get(objects.SECRET, namespace, secret))
    if not values.get("password"):
        raise PasswordMissingError(f"Secret {secret} in namespace {namespace} is missing or has no password")
    if values.get("username") != role:
        raise PasswordMissingError(f"Secret {secret}: its username is not the role {role}")
    return values["password"]


def _fill(place: postgres.Place, spec: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Make schemas and extensions; returns a result for each, as in `status.schemas[]` and `status.extensions[]`."""
    found: dict[str, list[dict[str, Any]]] = {}
    if spec.get("schemas") or spec.get("extensions"):
        with sql.connect(place, spec["name"]) as connection:
            for key, ensure in (("schemas", sql.ensure_schema), ("extensions", sql.ensure_extension)):
                if spec.get(key):
                    found[key] = [_answer(connection, entry, ensure) for entry in spec[key]]
    for key in UNSUPPORTED:
        if spec.get(key):
            found[key] = [
                {"name": entry["name"], "applied": False, "message": f"the lab does not support {key}"}
                for entry in spec[key]
            ]
    return found


def _answer(connection: sql.Connection, entry: Mapping[str, Any], ensure: Ensure) -> dict[str, Any]:
    try:
        ensure(connection, entry)
    except psycopg.Error as problem:
        return {"name": entry["name"], "applied": False, "message": explain(problem)}
    return {"name": entry["name"], "applied": True}
