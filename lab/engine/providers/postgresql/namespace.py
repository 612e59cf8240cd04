"""``Schema``: a namespace in a database. Its deprecated ``policies`` are not supported; ``Grant`` does that."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql.connection import PostgresError, Server, Session

State = dict[str, Any]


def create(server: Server, wanted: State) -> str:
    name = wanted["name"]
    database = wanted["database"] or server.settings.database
    with server.transaction(database) as session:
        owners = [session.owner_of_database(database), wanted["owner"]]
        with session.as_member_of([owner for owner in owners if owner]):
            if session.has_schema(name):
                _set_owner(session, name, wanted["owner"])
            else:
                _create(session, wanted)
    return f"{database}.{name}"


def _create(session: Session, wanted: State) -> None:
    name = wanted["name"]
    condition = "IF NOT EXISTS " if wanted["ifNotExists"] else ""
    owner = [wanted["owner"]] if wanted["owner"] else []
    authorization = " AUTHORIZATION {}" if owner else ""
    session.run(f"CREATE SCHEMA {condition}{{}}{authorization}", name, *owner, failing=f"error creating schema {name}")


def _set_owner(session: Session, name: str, owner: str) -> None:
    if owner:
        session.run("ALTER SCHEMA {} OWNER TO {}", name, owner, failing="error updating schema OWNER")


def read(server: Server, known: State) -> State | None:
    database = known["database"] or server.settings.database
    with server.connected() as session:
        if not session.has_database(database):
            return None
    with server.connected(database) as session:
        found = session.row(
            "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = %s",
            known["name"],
            failing="error reading schema",
        )
    return None if found is None else {**known, "database": database, "owner": found[0], "policies": []}


def update(server: Server, old: State, new: State) -> None:
    with server.transaction(new["database"]) as session:
        if new["name"] != old["name"]:
            session.run("ALTER SCHEMA {} RENAME TO {}", old["name"], new["name"], failing="error updating schema NAME")
        if new["owner"] != old["owner"]:
            if not new["owner"]:
                raise PostgresError("error setting schema owner to an empty string")
            _set_owner(session, new["name"], new["owner"])


def delete(server: Server, known: State) -> None:
    database = known["database"] or server.settings.database
    mode = "CASCADE" if known["dropCascade"] else "RESTRICT"
    with server.connected() as session:
        if not session.has_database(database):
            return
    with server.transaction(database) as session:
        if not session.has_schema(known["name"]):
            return
        with session.as_member_of([known["owner"]] if known["owner"] else []):
            session.run(f"DROP SCHEMA {{}} {mode}", known["name"], failing="error deleting schema")
