"""``Extension``."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql.connection import Server

State = dict[str, Any]


def create(server: Server, wanted: State) -> str:
    name = wanted["name"]
    database = wanted["database"] or server.settings.database
    options, names = "", [name]
    for key, word in (("schema", "SCHEMA"), ("version", "VERSION")):
        if wanted[key]:
            options += f" {word} {{}}"
            names.append(wanted[key])
    if wanted["createCascade"]:
        options += " CASCADE"
    with server.transaction(database) as session:
        session.run(f"CREATE EXTENSION IF NOT EXISTS {{}}{options}", *names)
    return f"{database}.{name}"


def read(server: Server, known: State) -> State | None:
    database = known["database"] or server.settings.database
    with server.connected() as session:
        if not session.has_database(database):
            return None
    with server.connected(database) as session:
        found = session.row(
            "SELECT n.nspname, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE e.extname = %s",
            known["name"],
            failing="error reading extension",
        )
    if found is None:
        return None
    return {**known, "database": database, "schema": found[0], "version": found[1]}


def update(server: Server, old: State, new: State) -> None:
    name = new["name"]
    with server.transaction(new["database"]) as session:
        if new["schema"] and new["schema"] != old["schema"]:
            session.run(
                "ALTER EXTENSION {} SET SCHEMA {}", name, new["schema"], failing="error updating extension SCHEMA"
            )
        if new["version"] and new["version"] != old["version"]:
            session.run(
                "ALTER EXTENSION {} UPDATE TO {}", name, new["version"], failing="error updating extension version"
            )


def delete(server: Server, known: State) -> None:
    database = known["database"] or server.settings.database
    mode = "CASCADE" if known["dropCascade"] else "RESTRICT"
    with server.connected() as session:
        if not session.has_database(database):
            return
    with server.transaction(database) as session:
        session.run(f"DROP EXTENSION IF EXISTS {{}} {mode}", known["name"])
