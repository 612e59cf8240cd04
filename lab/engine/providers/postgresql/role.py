"""``Role``: logins and groups."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql.connection import PostgresError, Server, Session

State = dict[str, Any]

_FLAGS = (
    ("superuser", "SUPERUSER"),
    ("createDatabase", "CREATEDB"),
    ("createRole", "CREATEROLE"),
    ("inherit", "INHERIT"),
    ("login", "LOGIN"),
    ("bypassRowLevelSecurity", "BYPASSRLS"),
    ("replication", "REPLICATION"),
)
_TIMEOUTS = (
    ("statementTimeout", "statement_timeout"),
    ("idleInTransactionSessionTimeout", "idle_in_transaction_session_timeout"),
)
_QUERY = (
    "SELECT rolname, rolconnlimit, rolcreatedb, rolcreaterole, rolinherit, rolcanlogin, rolsuper,"
    " coalesce(rolvaliduntil::text, 'infinity'), rolreplication, rolbypassrls, rolconfig,"
    " ARRAY(SELECT pg_get_userbyid(roleid)::text FROM pg_auth_members WHERE member = pg_roles.oid ORDER BY 1)"
    " FROM pg_roles WHERE rolname = %s"
)


def create(server: Server, wanted: State) -> str:
    name = wanted["name"]
    with server.transaction() as session:
        options = [
            *_password_option(session, wanted, name),
            f"VALID UNTIL {session.literal(wanted['validUntil'] or 'infinity')}",
            f"CONNECTION LIMIT {int(wanted['connectionLimit'])}",
            *(word if wanted[key] else f"NO{word}" for key, word in _FLAGS),
        ]
        session.run(f"CREATE ROLE {{}} WITH {' '.join(options)}", name, failing=f"error creating role {name}")
        _grant_roles(session, name, wanted["roles"])
        _set_parameters(session, name, {}, wanted)
    return str(name)


def _password_option(session: Session, wanted: State, name: str) -> list[str]:
    password = wanted["password"] or wanted["passwordWo"]
    if not password:
        return []
    if password.upper() == "NULL":
        return ["PASSWORD NULL"]
    return [f"PASSWORD {session.literal(session.verifier(password, name))}"]


def _grant_roles(session: Session, name: str, roles: list[str]) -> None:
    for role in roles:
        session.run("GRANT {} TO {}", role, name, failing=f"could not grant role {role} to {name}")


def _set_parameters(session: Session, name: str, old: State, new: State) -> None:
    """Settings that the role's sessions start with."""
    if new["searchPaths"] != old.get("searchPaths", []):
        _set_search_path(session, name, new["searchPaths"])
    for key, parameter in _TIMEOUTS:
        if new[key] != old.get(key, 0):
            change = f"SET {parameter} TO {int(new[key])}" if new[key] else f"RESET {parameter}"
            session.run(f"ALTER ROLE {{}} {change}", name, failing=f"could not set {parameter} for {name}")
    if new["assumeRole"] != old.get("assumeRole", ""):
        if new["assumeRole"]:
            session.run(
                "ALTER ROLE {} SET ROLE TO {}",
                name,
                new["assumeRole"],
                failing=f"could not set role {new['assumeRole']} for {name}",
            )
        else:
            session.run("ALTER ROLE {} RESET ROLE", name, failing=f"could not reset role for {name}")


def _set_search_path(session: Session, name: str, paths: list[str]) -> None:
    for path in paths:
        if ", " in path:
            raise PostgresError(f"search_path cannot contain `, `: {path}")
    places = ", ".join(["{}"] * len(paths)) or "DEFAULT"
    session.run(
        f"ALTER ROLE {{}} SET search_path TO {places}", name, *paths, failing=f"could not set search_path for {name}"
    )


def read(server: Server, known: State) -> State | None:
    name = known["name"]
    with server.connected() as session:
        found = session.row(_QUERY, name, failing="error reading ROLE")
        if found is None:
            return None
        parameters = dict(entry.split("=", 1) for entry in found[10] or ())
        search = parameters.get("search_path")
        return {
            **known,
            "name": found[0],
            "connectionLimit": found[1],
            "createDatabase": found[2],
            "createRole": found[3],
            "inherit": found[4],
            "login": found[5],
            "superuser": found[6],
            "validUntil": found[7],
            "replication": found[8],
            "bypassRowLevelSecurity": found[9],
            "roles": found[11],
            "searchPaths": [part.strip('"') for part in search.split(", ")] if search else [],
            "assumeRole": parameters.get("role", ""),
            "encryptedPassword": True,
            "passwordWo": None,
            "password": _password(session, known, found[5]),
            **{key: int(parameters.get(parameter, "0").removesuffix("ms")) for key, parameter in _TIMEOUTS},
        }


def _password(session: Session, known: State, may_login: bool) -> str:
    """The recorded one; "" when the server has none. A SCRAM verifier cannot be compared, as in the real provider."""
    recorded = str(known["password"] or "")
    if not recorded or not may_login or not session.settings.superuser:
        return recorded
    user = session.settings.user
    if not session.is_superuser(user):
        raise PostgresError(
            f"could not read role password from Postgres as connected user {user} is not a SUPERUSER. You can set "
            "`superuser = false` in the provider configuration so it will not try to read the password from Postgres"
        )
    found = session.row("SELECT coalesce(passwd, '') FROM pg_shadow WHERE usename = %s", known["name"])
    return recorded if found and found[0] else ""


def update(server: Server, old: State, new: State) -> None:
    name = new["name"]
    with server.transaction() as session:
        session.lock_role(old["name"])
        if name != old["name"]:
            session.run("ALTER ROLE {} RENAME TO {}", old["name"], name, failing="error updating role NAME")
        _change_password(session, old, new)
        for key, word in _FLAGS:
            if new[key] != old[key]:
                choice = word if new[key] else f"NO{word}"
                session.run(f"ALTER ROLE {{}} WITH {choice}", name, failing=f"error updating role {word}")
        if new["connectionLimit"] != old["connectionLimit"]:
            limit = int(new["connectionLimit"])
            session.run(
                f"ALTER ROLE {{}} CONNECTION LIMIT {limit}", name, failing="error updating role CONNECTION LIMIT"
            )
        if new["validUntil"] != old["validUntil"] and new["validUntil"]:
            until = session.literal(new["validUntil"])
            session.run(f"ALTER ROLE {{}} VALID UNTIL {until}", name, failing="error updating role VALID UNTIL")
        if sorted(new["roles"]) != sorted(old["roles"]):
            _revoke_roles(session, name)
            _grant_roles(session, name, new["roles"])
        _set_parameters(session, name, old, new)


def _change_password(session: Session, old: State, new: State) -> None:
    """Also after a renaming, which takes an MD5 password away."""
    name = new["name"]
    if new["passwordWo"]:
        is_changed = new["passwordWoVersion"] != old["passwordWoVersion"]
    else:
        is_changed = bool(new["password"]) and (new["password"] != old["password"] or name != old["name"])
    if is_changed:
        (option,) = _password_option(session, new, name)
        session.run(f"ALTER ROLE {{}} {option}", name, failing="error updating role password")


def _revoke_roles(session: Session, name: str) -> None:
    rows = session.rows(
        "SELECT pg_get_userbyid(roleid)::text FROM pg_auth_members JOIN pg_roles ON member = pg_roles.oid"
        " WHERE rolname = %s",
        name,
    )
    for (role,) in rows:
        session.run("REVOKE {} FROM {}", role, name, failing=f"could not revoke role {role} from {name}")


def delete(server: Server, known: State) -> None:
    name, user = known["name"], server.settings.user
    with server.transaction() as session:
        if not session.has_role(name):
            return
        session.lock_role(name)
        if not known["skipReassignOwned"]:
            with session.as_member_of([name]):
                session.run(
                    "REASSIGN OWNED BY {} TO {}",
                    name,
                    user,
                    failing=f"could not reassign owned by role {name} to {user}",
                )
                session.run("DROP OWNED BY {}", name, failing=f"could not drop owned by role {name}")
        if not known["skipDropRole"]:
            session.run("DROP ROLE {}", name, failing=f"could not delete role {name}")
