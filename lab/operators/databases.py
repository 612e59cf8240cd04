"""`Database` and `DatabaseRole` objects, and `spec.managed.roles` of a Cluster: made in the Cluster's real server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from lab.operators import objects, postgres, sql
from lab.operators.api import Api
from lab.operators.objects import Object
from lab.operators.work import Controller, explain
from runbooks.core.errors import OpsError

OPERATOR = {"app.kubernetes.io/name": "cloudnative-pg"}
"""Labels of the operator's Deployment, whatever its release is called."""
FINALIZERS = {"Database": "cnpg.io/deleteDatabase", "DatabaseRole": "cnpg.io/deleteDatabaseRole"}
RESERVED = frozenset({"postgres", "streaming_replica"})
UNSUPPORTED = ("fdws", "servers")
RETRY = 2.0
"""Seconds; CNPG's own operator waits 30, which is long for a rehearsal."""


class PasswordMissingError(OpsError):
    """A role's Secret is not there or does not fit."""


def controllers(api: Api, lab_dir: Path) -> dict[str, Controller]:
    databases = Databases(api, lab_dir)
    return {"database": databases.reconcile_database, "role": databases.reconcile_role}


@dataclass(frozen=True)
class Databases:
    """The controller of Database and DatabaseRole objects."""

    api: Api
    lab_dir: Path

    def _place(self, namespace: str, cluster: str) -> postgres.Place | None:
        """The server of a Cluster that is bootstrapped and runs, or None: look again later."""
        found = self.api.get(objects.CLUSTER, namespace, cluster)
        folder = postgres.folder_of(self.lab_dir, namespace, cluster)
        record = postgres.read_record(folder)
        if found is None or record.get("uid") != found["metadata"]["uid"] or not record.get("bootstrapped"):
            return None
        place = postgres.Place(folder, record["port"])
        running = postgres.read_postmaster(place.data)
        return place if running and running.ready and self.api.runs(OPERATOR) else None

    def _report(self, thing: Object, message: str, **more: object) -> None:
        """Status of a Database or DatabaseRole: applied when there is no message."""
        seen = {} if message else {"observedGeneration": thing["metadata"]["generation"]}
        self.api.update_status(thing, {"applied": not message, "message": message, **more, **seen})

    def reconcile_database(self, namespace: str, name: str) -> float | None:
        database = self.api.get(objects.DATABASE, namespace, name)
        if database is None:
            return None
        place = self._place(namespace, database["spec"]["cluster"]["name"])
        if objects.is_leaving(database):
            self._let_go(database, place, sql.drop_database)
            return None
        if _is_settled(database):
            return None
        if place is None:
            return RETRY
        database = self.api.add_finalizer(database, FINALIZERS["Database"])
        other = self._manager_of_the_same(database)
        if other:
            name = database["spec"]["name"]
            message = f'reconciliation error: database "{name}" is already managed by Database object "{other}"'
            self._report(database, message)
            return RETRY
        return self._ensure_database(database, place)

    def _ensure_database(self, database: Object, place: postgres.Place) -> float | None:
        spec = database["spec"]
        try:
            with sql.connect(place) as connection:
                if spec.get("ensure") == "absent":
                    sql.drop_database(connection, spec["name"])
                else:
                    sql.ensure_database(connection, spec)
        except psycopg.Error as problem:
            message = f'reconciliation error: while creating database "{spec["name"]}": {explain(problem)}'
            self._report(database, message)
            return RETRY
        inside = _fill(place, spec) if spec.get("ensure") != "absent" else {}
        failed = [entry for entries in inside.values() for entry in entries if not entry["applied"]]
        message = "; ".join(f"{entry['name']}: {entry['message']}" for entry in failed)
        self._report(database, f"reconciliation error: {message}" if failed else "", **inside)
        return RETRY if failed else None

    def _manager_of_the_same(self, database: Object) -> str:
        """The other object that has this database already, or an empty string."""
        meta, spec = database["metadata"], database["spec"]
        if (database.get("status") or {}).get("observedGeneration"):
            return ""
        for other in self.api.list(objects.DATABASE, meta["namespace"]):
            same = other["spec"]["cluster"]["name"] == spec["cluster"]["name"] and other["spec"]["name"] == spec["name"]
            settled = (other.get("status") or {}).get("observedGeneration")
            if same and settled and other["metadata"]["name"] != meta["name"]:
                return str(other["metadata"]["name"])
        return ""

    def reconcile_role(self, namespace: str, name: str) -> float | None:
        role = self.api.get(objects.DATABASE_ROLE, namespace, name)
        if role is None:
            return None
        spec = role["spec"]
        place = self._place(namespace, spec["cluster"]["name"])
        if objects.is_leaving(role):
            self._let_go(role, place, sql.drop_role)
            return None
        if place is None:
            return RETRY
        role = self.api.add_finalizer(role, FINALIZERS["DatabaseRole"])
        problem = self._try_role(role, place)
        self._report(role, f"reconciliation error: {problem}" if problem else "")
        return RETRY if problem else None

    def _try_role(self, role: Object, place: postgres.Place) -> str:
        """Make the role; why that failed, or an empty string."""
        namespace, spec = role["metadata"]["namespace"], role["spec"]
        cluster = self.api.get(objects.CLUSTER, namespace, spec["cluster"]["name"]) or {"spec": {}}
        inline = (cluster["spec"].get("managed") or {}).get("roles") or []
        if any(entry["name"] == spec["name"] for entry in inline):
            return "database role is already managed by the CNPG cluster"
        try:
            with sql.connect(place) as connection:
                _ensure_role(self.api, connection, namespace, spec)
        except (psycopg.Error, PasswordMissingError) as problem:
            return explain(problem)
        return ""

    def _let_go(self, thing: Object, place: postgres.Place | None, drop: Callable[[sql.Connection, str], None]) -> None:
        """Drop what a deleted object stood for, where its policy says so, then let the object be deleted."""
        kind = thing["kind"]
        if place is not None and thing["spec"].get(f"{kind[0].lower()}{kind[1:]}ReclaimPolicy") == "delete":
            with sql.connect(place) as connection:
                drop(connection, thing["spec"]["name"])
        self.api.remove_finalizer(thing, FINALIZERS[kind])


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


def _is_settled(database: Object) -> bool:
    """CNPG applies an object once per generation."""
    status = database.get("status") or {}
    return status.get("applied") is True and status.get("observedGeneration") == database["metadata"]["generation"]


def _fill(place: postgres.Place, spec: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Schemas and extensions, each with its own answer, as in `status.schemas[]` and `status.extensions[]`."""
    found: dict[str, list[dict[str, Any]]] = {}
    if spec.get("schemas") or spec.get("extensions"):
        with sql.connect(place, spec["name"]) as connection:
            for key, ensure in (("schemas", sql.ensure_schema), ("extensions", sql.ensure_extension)):
                if spec.get(key):
                    found[key] = _each(connection, spec[key], ensure)
    for key in UNSUPPORTED:
        if spec.get(key):
            found[key] = [
                {"name": entry["name"], "applied": False, "message": f"the lab does not support {key}"}
                for entry in spec[key]
            ]
    return found


def _each(
    connection: sql.Connection,
    entries: Sequence[Mapping[str, Any]],
    ensure: Callable[[sql.Connection, Mapping[str, Any]], None],
) -> list[dict[str, Any]]:
    answers = []
    for entry in entries:
        message = ""
        try:
            ensure(connection, entry)
        except psycopg.Error as problem:
            message = explain(problem)
        answers.append({"name": entry["name"], "applied": not message, **({"message": message} if message else {})})
    return answers
