"""``DefaultPrivileges``: what a role may do with objects that another role is going to make."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql import privileges
from lab.engine.providers.postgresql.connection import PostgresError, Server, Session

State = dict[str, Any]

_KINDS = {"table": "r", "sequence": "S", "function": "f", "routine": "f", "type": "T", "schema": "n"}


def create(server: Server, wanted: State) -> str:
    _apply(server, wanted)
    return identity(wanted)


def update(server: Server, old: State, new: State) -> None:
    del old  # everything of the role is revoked first
    _apply(server, new)


def identity(state: State) -> str:
    return "_".join(
        [state["role"], state["database"], state["schema"] or "noschema", state["owner"], state["objectType"]]
    )


def _apply(server: Server, state: State) -> None:
    if state["schema"] and state["objectType"] == "schema":
        raise PostgresError("cannot specify `schema` when `object_type` is `schema`")
    if state["withGrantOption"] and state["role"].lower() == privileges.PUBLIC:
        raise PostgresError("with_grant_option cannot be true for role 'public'")
    privileges.validate(state["objectType"], state["privileges"])
    with server.transaction(state["database"]) as session:
        session.lock_role(state["owner"])
        with session.as_member_of([state["owner"]]):
            _revoke(session, state)
            if state["privileges"]:
                what = f"GRANT {','.join(state['privileges'])} ON {state['objectType'].upper()}S TO"
                option = " WITH GRANT OPTION" if state["withGrantOption"] else ""
                _alter(session, state, what, option, "could not alter default privileges")


def _alter(session: Session, state: State, what: str, option: str, failing: str) -> None:
    names = [state["owner"]]
    place = ""
    if state["schema"]:
        place = " IN SCHEMA {}"
        names.append(state["schema"])
    grantee = "PUBLIC"
    if state["role"] != privileges.PUBLIC:
        grantee = "{}"
        names.append(state["role"])
    session.run(f"ALTER DEFAULT PRIVILEGES FOR ROLE {{}}{place} {what} {grantee}{option}", *names, failing=failing)


def _revoke(session: Session, state: State) -> None:
    what = f"REVOKE ALL ON {state['objectType'].upper()}S FROM"
    _alter(session, state, what, "", "could not revoke default privileges")


def read(server: Server, known: State) -> State | None:
    with server.connected() as session:
        roles = [known["owner"], *([] if known["role"] == privileges.PUBLIC else [known["role"]])]
        if not session.has_database(known["database"]) or not all(session.has_role(role) for role in roles):
            return None
    with server.connected(known["database"]) as session:
        if known["schema"] and not session.has_schema(known["schema"]):
            return None
        rows = session.rows(
            "SELECT DISTINCT acl.privilege_type FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(defaclacl) acl"
            " LEFT JOIN pg_namespace n ON n.oid = defaclnamespace"
            " WHERE defaclobjtype = %s AND acl.grantee = %s::oid AND pg_get_userbyid(acl.grantor) = %s"
            " AND coalesce(n.nspname, '') = %s",
            _KINDS[known["objectType"]],
            privileges.oid_of(session, known["role"]),
            known["owner"],
            known["schema"] or "",
            failing="could not read default privileges",
        )
    granted = [row[0] for row in rows]
    if not granted and known["privileges"]:
        return None
    return {**known, "privileges": privileges.as_wanted(known["objectType"], known["privileges"], granted)}


def delete(server: Server, known: State) -> None:
    with server.connected() as session:
        roles = [known["owner"], *([] if known["role"] == privileges.PUBLIC else [known["role"]])]
        if not session.has_database(known["database"]) or not all(session.has_role(role) for role in roles):
            return
    with server.transaction(known["database"]) as session:
        session.lock_role(known["owner"])
        with session.as_member_of([known["owner"]]):
            _revoke(session, known)
