"""`Database` objects: made in the Cluster's real server, with their extensions and schemas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from lab.operators import postgres, sql
from lab.operators.api import DATABASE, Api, Object
from lab.operators.finalizers import add_finalizer, remove_finalizer
from lab.operators.servers import MANAGER, Servers, report_applied
from lab.operators.work import told

FINALIZER = "cnpg.io/deleteDatabase"
RETRY = 2.0
"""Seconds; CNPG's own operator waits 30, nobody wants to at a rehearsal."""
UNSUPPORTED = ("fdws", "servers")


class Databases:
    """The controller of Database objects."""

    def __init__(self, api: Api, servers: Servers) -> None:
        self._api = api
        self._servers = servers

    def reconcile(self, namespace: str, name: str) -> float | None:
        database = self._api.get(DATABASE, namespace, name)
        if database is None:
            return None
        place = self._servers.place(namespace, database["spec"]["cluster"]["name"])
        if database["metadata"].get("deletionTimestamp"):
            return self._delete(database, place)
        if _is_settled(database):
            return None
        if place is None:
            return RETRY
        database = add_finalizer(self._api, database, FINALIZER, MANAGER)
        other = self._manager_of_the_same(database)
        if other:
            name = database["spec"]["name"]
            message = f'reconciliation error: database "{name}" is already managed by Database object "{other}"'
            report_applied(self._api, database, message)
            return RETRY
        return self._bring_about(database, place)

    def _bring_about(self, database: Object, place: postgres.Place) -> float | None:
        spec = database["spec"]
        try:
            with postgres.connect(place) as connection:
                if spec.get("ensure") == "absent":
                    sql.drop_database(connection, spec["name"])
                else:
                    sql.ensure_database(connection, spec)
        except psycopg.Error as problem:
            message = f'reconciliation error: while creating database "{spec["name"]}": {told(problem)}'
            report_applied(self._api, database, message)
            return RETRY
        inside = _fill(place, spec) if spec.get("ensure") != "absent" else {}
        failed = [entry for entries in inside.values() for entry in entries if not entry["applied"]]
        message = "; ".join(f"{entry['name']}: {entry['message']}" for entry in failed)
        report_applied(self._api, database, f"reconciliation error: {message}" if failed else "", **inside)
        return RETRY if failed else None

    def _manager_of_the_same(self, database: Object) -> str:
        """The other object that has this database already, or an empty string."""
        meta, spec = database["metadata"], database["spec"]
        if (database.get("status") or {}).get("observedGeneration"):
            return ""
        for other in self._api.list(DATABASE, meta["namespace"]):
            same = other["spec"]["cluster"]["name"] == spec["cluster"]["name"] and other["spec"]["name"] == spec["name"]
            settled = (other.get("status") or {}).get("observedGeneration")
            if same and settled and other["metadata"]["name"] != meta["name"]:
                return str(other["metadata"]["name"])
        return ""

    def _delete(self, database: Object, place: postgres.Place | None) -> float | None:
        if place is not None and database["spec"].get("databaseReclaimPolicy") == "delete":
            with postgres.connect(place) as connection:
                sql.drop_database(connection, database["spec"]["name"])
        remove_finalizer(self._api, database, FINALIZER, MANAGER)
        return None


def _is_settled(database: Object) -> bool:
    """CNPG applies an object once per generation."""
    status = database.get("status") or {}
    return status.get("applied") is True and status.get("observedGeneration") == database["metadata"]["generation"]


def _fill(place: postgres.Place, spec: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Schemas and extensions, each with its own answer, as in `status.schemas[]` and `status.extensions[]`."""
    found: dict[str, list[dict[str, Any]]] = {}
    if spec.get("schemas") or spec.get("extensions"):
        with postgres.connect(place, spec["name"]) as connection:
            for key, ensure in (("schemas", sql.ensure_schema), ("extensions", sql.ensure_extension)):
                if spec.get(key):
                    found[key] = _each(connection, spec[key], ensure)
    for key in UNSUPPORTED:
        if spec.get(key):
            found[key] = [
                {"name": entry["name"], "applied": False, "message": f"the lab does not know {key}"}
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
            message = told(problem)
        answers.append({"name": entry["name"], "applied": not message, **({"message": message} if message else {})})
    return answers
