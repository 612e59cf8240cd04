"""``GrantRole``: one role as a member of another."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql.connection import Server

State = dict[str, Any]


def create(server: Server, wanted: State) -> str:
    role, group = wanted["role"], wanted["grantRole"]
    option = " WITH ADMIN OPTION" if wanted["withAdminOption"] else ""
    with server.transaction() as session:
        session.run("REVOKE {} FROM {}", group, role, failing="could not execute revoke query")
        session.run(f"GRANT {{}} TO {{}}{option}", group, role, failing="could not execute grant query")
    return f"{role}_{group}_{str(bool(wanted['withAdminOption'])).lower()}"


def read(server: Server, known: State) -> State | None:
    with server.connected() as session:
        found = session.row(
            "SELECT bool_or(admin_option) FROM pg_auth_members WHERE pg_get_userbyid(member) = %s"
            " AND pg_get_userbyid(roleid) = %s HAVING count(*) > 0",
            known["role"],
            known["grantRole"],
            failing="error reading grant role",
        )
    return None if found is None else {**known, "withAdminOption": bool(found[0])}


def update(server: Server, old: State, new: State) -> None:
    """Every property replaces; there is nothing to change in place."""
    del server, old, new


def delete(server: Server, known: State) -> None:
    with server.transaction() as session:
        if session.has_role(known["role"]) and session.has_role(known["grantRole"]):
            session.run(
                "REVOKE {} FROM {}", known["grantRole"], known["role"], failing="could not execute revoke query"
            )
