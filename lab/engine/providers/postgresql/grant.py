"""``Grant``: privileges of a role on a database, a schema or the objects of a schema."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql import privileges
from lab.engine.providers.postgresql.connection import PostgresError, Server, Session

State = dict[str, Any]

_WITHOUT_SCHEMA = ("database", "foreign_data_wrapper", "foreign_server")
_RELATION_KINDS = {"table": "r", "sequence": "S"}


def create(server: Server, wanted: State) -> str:
    _apply(server, wanted, wanted)
    return identity(wanted)


def update(server: Server, old: State, new: State) -> None:
    _apply(server, old, new)


def identity(state: State) -> str:
    parts = [state["role"], state["database"]]
    if state["objectType"] not in _WITHOUT_SCHEMA:
        parts.append(state["schema"])
    return "_".join([*parts, state["objectType"], *sorted(state["objects"]), *sorted(state["columns"])])


def _apply(server: Server, old: State, new: State) -> None:
    """Revoke and grant in one transaction: privileges that stay are never away."""
    _validate(new)
    with server.transaction(new["database"]) as session:
        _lock(session, new)
        with session.as_member_of(_owners(session, new)):
            _revoke(session, old)
            if new["privileges"]:
                target, names = _target(new)
                option = " WITH GRANT OPTION" if new["withGrantOption"] else ""
                session.run(f"GRANT {_listed(new)} ON {target} TO {_grantee(new)}{option}", *names, *_role(new))


def _validate(state: State) -> None:
    kind = state["objectType"]
    objects, columns = len(state["objects"]), len(state["columns"])
    if not state["schema"] and kind not in _WITHOUT_SCHEMA:
        raise PostgresError("parameter 'schema' is mandatory for postgresql_grant resource")
    if objects and kind in ("database", "schema"):
        raise PostgresError("cannot specify `objects` when `object_type` is `database` or `schema`")
    if columns and kind != "column":
        raise PostgresError("cannot specify `columns` when `object_type` is not `column`")
    if kind == "column" and not columns:
        raise PostgresError("must specify `columns` when `object_type` is `column`")
    if kind == "column" and len(state["privileges"]) != 1:
        raise PostgresError("must specify exactly 1 `privileges` when `object_type` is `column`")
    if kind == "column" and objects != 1:
        raise PostgresError("must specify exactly 1 table in the `objects` field when `object_type` is `column`")
    if kind in ("foreign_data_wrapper", "foreign_server") and objects != 1:
        raise PostgresError(
            "one element must be specified in `objects` when `object_type` is `foreign_data_wrapper` or "
            "`foreign_server`"
        )
    privileges.validate(kind, state["privileges"])


def _lock(session: Session, state: State) -> None:
    session.lock_role(state["role"])
    if state["objectType"] == "database":
        session.lock_database(state["database"])


def _owners(session: Session, state: State) -> list[str]:
    if state["objectType"] in _WITHOUT_SCHEMA:
        return []
    return privileges.owners_of(session, state["schema"], with_tables=state["objectType"] != "schema")


def _listed(state: State) -> str:
    """Checked against a list of words: they go into the statement as they are."""
    words = ",".join(state["privileges"])
    if state["objectType"] != "column":
        return words
    return f"{words} ({','.join(['{}'] * len(state['columns']))})"


def _grantee(state: State) -> str:
    return "PUBLIC" if state["role"] == privileges.PUBLIC else "{}"


def _role(state: State) -> list[str]:
    return [] if state["role"] == privileges.PUBLIC else [state["role"]]


def _target(state: State) -> tuple[str, list[str]]:
    """What follows ``ON``, and the names for its ``{}`` (before them those of the columns)."""
    kind, objects = state["objectType"], state["objects"]
    if kind == "database":
        return "DATABASE {}", [state["database"]]
    if kind == "schema":
        return "SCHEMA {}", [state["schema"]]
    if kind in ("foreign_data_wrapper", "foreign_server"):
        return f"{kind.replace('_', ' ').upper()} {{}}", list(objects)
    if kind == "column":
        return "TABLE {}.{}", [*state["columns"], state["schema"], objects[0]]
    if not objects:
        return f"ALL {kind.upper()}S IN SCHEMA {{}}", [state["schema"]]
    places, names = [], []
    for item in objects:
        name, parenthesis, arguments = item.partition("(")
        places.append("{}.{}" + (parenthesis + arguments).replace("{", "").replace("}", ""))
        names += [state["schema"], name]
    return f"{kind.upper()} {', '.join(places)}", names


def _revoke(session: Session, state: State) -> None:
    """Of single tables only what is recorded: "all" would take column privileges along."""
    target, names = _target(state)
    is_exact = state["objects"] and state["objectType"] not in _WITHOUT_SCHEMA and state["privileges"]
    what = _listed(state) if is_exact or state["objectType"] == "column" else "ALL PRIVILEGES"
    if state["objectType"] == "column" and not state["privileges"]:
        return
    session.run(
        f"REVOKE {what} ON {target} FROM {_grantee(state)}",
        *names,
        *_role(state),
        failing="could not execute revoke query",
    )


def delete(server: Server, known: State) -> None:
    if not _is_there(server, known):
        return
    with server.transaction(known["database"]) as session:
        _lock(session, known)
        with session.as_member_of(_owners(session, known)):
            _revoke(session, known)


def _is_there(server: Server, state: State) -> bool:
    """Database, role and schema exist."""
    with server.connected() as session:
        if not session.has_database(state["database"]):
            return False
        if state["role"] != privileges.PUBLIC and not session.has_role(state["role"]):
            return False
    if state["objectType"] in _WITHOUT_SCHEMA or not state["schema"]:
        return True
    with server.connected(state["database"]) as session:
        return session.has_schema(state["schema"])


def read(server: Server, known: State) -> State | None:
    if not _is_there(server, known):
        return None
    with server.connected(known["database"]) as session:
        granted = _granted(session, known)
    for one in granted:
        kept = privileges.as_wanted(known["objectType"], known["privileges"], one)
        if kept != known["privileges"]:
            return {**known, "privileges": kept}
    return known


def _granted(session: Session, state: State) -> list[list[str]]:
    """Privileges of the role on each of the objects."""
    kind, grantee = state["objectType"], privileges.oid_of(session, state["role"])
    if kind == "database":
        return [_of(session, "SELECT datacl FROM pg_database WHERE datname = %s", state["database"], grantee)]
    if kind == "schema":
        return [_of(session, "SELECT nspacl FROM pg_namespace WHERE nspname = %s", state["schema"], grantee)]
    if kind == "foreign_data_wrapper":
        query = "SELECT fdwacl FROM pg_foreign_data_wrapper WHERE fdwname = %s"
        return [_of(session, query, state["objects"][0], grantee)]
    if kind == "foreign_server":
        return [_of(session, "SELECT srvacl FROM pg_foreign_server WHERE srvname = %s", state["objects"][0], grantee)]
    if kind == "column":
        return _of_columns(session, state, grantee)
    return _of_objects(session, state, grantee)


def _of(session: Session, query: str, name: str, grantee: int) -> list[str]:
    """``query`` gives the list of rights of the object that is called ``name``."""
    whole = f"SELECT DISTINCT privilege_type FROM aclexplode(({query})) WHERE grantee = %s::oid"  # noqa: S608 - ours
    return [row[0] for row in session.rows(whole, name, grantee)]


def _of_objects(session: Session, state: State, grantee: int) -> list[list[str]]:
    if state["objectType"] in _RELATION_KINDS:
        rows = session.rows(
            "SELECT relname, ARRAY(SELECT privilege_type FROM aclexplode(relacl) WHERE grantee = %s::oid)"
            " FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relkind = %s",
            grantee,
            state["schema"],
            _RELATION_KINDS[state["objectType"]],
        )
    else:
        rows = session.rows(
            "SELECT proname, ARRAY(SELECT privilege_type FROM aclexplode(proacl) WHERE grantee = %s::oid)"
            " FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s",
            grantee,
            state["schema"],
        )
    wanted = {item.partition("(")[0] for item in state["objects"]}
    return [granted for name, granted in rows if not wanted or name in wanted]


def _of_columns(session: Session, state: State, grantee: int) -> list[list[str]]:
    rows = session.rows(
        "SELECT attname, ARRAY(SELECT privilege_type FROM aclexplode(attacl) WHERE grantee = %s::oid)"
        " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = %s AND relname = %s AND attnum > 0",
        grantee,
        state["schema"],
        state["objects"][0],
    )
    found = dict(rows)
    return [
        [one for one in found.get(column, []) if one in state["privileges"] or "ALL" in state["privileges"]]
        for column in state["columns"]
    ]
