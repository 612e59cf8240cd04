"""`Role`: logins and groups."""

from __future__ import annotations

import re

from lab.plugins.postgresql.properties import Property, Resource, flag, number, set_of_texts
from lab.plugins.postgresql.server import PostgresError, Session, make_read, make_update
from lab.plugins.postgresql.wire import Values

FLAGS = {
    "superuser": "SUPERUSER",
    "createDatabase": "CREATEDB",
    "createRole": "CREATEROLE",
    "inherit": "INHERIT",
    "login": "LOGIN",
    "bypassRowLevelSecurity": "BYPASSRLS",
    "replication": "REPLICATION",
}
PARAMETERS = {
    "searchPaths": "search_path TO {searchPaths}",
    "statementTimeout": "statement_timeout TO '{statementTimeout}'",
    "idleInTransactionSessionTimeout": "idle_in_transaction_session_timeout TO '{idleInTransactionSessionTimeout}'",
    "assumeRole": "role TO {assumeRole}",
}
"""Property → setting with which the role's sessions start."""
QUERY = """
SELECT rolconnlimit AS "connectionLimit", rolcreatedb AS "createDatabase", rolcreaterole AS "createRole",
  rolinherit AS inherit, rolcanlogin AS login, rolsuper AS superuser, rolreplication AS replication,
  rolbypassrls AS "bypassRowLevelSecurity", coalesce(rolvaliduntil::text, 'infinity') AS "validUntil",
  ARRAY(SELECT pg_get_userbyid(roleid)::text FROM pg_auth_members WHERE member = pg_roles.oid ORDER BY 1) AS roles,
  coalesce(rolconfig, '{}') AS parameters
FROM pg_roles WHERE rolname = %(name)s
"""


def _create(session: Session, new: Values) -> None:
    failing = f"error creating role {new['name']}"
    session.run(f"CREATE ROLE {{name}} {_options(new)}", new | _verifier(session, new), failing=failing)
    _grant(session, new)
    _set_parameters(session, {}, new)


def _options(new: Values) -> str:
    words = " ".join(word if new[key] else f"NO{word}" for key, word in FLAGS.items())
    password = "PASSWORD '{verifier}'" if new["password"] or new["passwordWo"] else ""
    return f"WITH {words} CONNECTION LIMIT '{{connectionLimit}}' VALID UNTIL '{{validUntil}}' {password}"


def _verifier(session: Session, new: Values) -> Values:
    """The verifier that the server stores, computed here so that the server's log never contains the password."""
    password = new["passwordWo"] or new["password"]
    if password.upper() == "NULL":
        return {"verifier": None}
    if password and not re.match(r"md5[0-9a-f]{32}$|SCRAM-SHA-256\$", password):
        encrypt = session.connection.pgconn.encrypt_password
        password = encrypt(password.encode(), new["name"].encode(), b"scram-sha-256").decode()
    return {"verifier": password}


def _grant(session: Session, new: Values) -> None:
    for role in new["roles"]:
        failing = f"could not grant role {role} to {new['name']}"
        session.run("GRANT {role} TO {name}", new | {"role": role}, failing=failing)


def _set_parameters(session: Session, old: Values, new: Values) -> None:
    for path in new["searchPaths"]:
        if ", " in path:
            raise PostgresError(f"search_path cannot contain `, `: {path}")
    for key, setting in PARAMETERS.items():
        if (old.get(key) or None) != (new[key] or None):
            parameter = setting.split()[0]
            change = f"SET {setting}" if new[key] else f"RESET {parameter}"
            session.run(f"ALTER ROLE {{name}} {change}", new, failing=f"could not set {parameter} for {new['name']}")


def _read(session: Session, known: Values) -> Values | None:
    live = make_read("ROLE", QUERY)(session, known)
    if live is None:
        return None
    settings = dict(entry.split("=", 1) for entry in live.pop("parameters"))
    parameters = {key: settings.get(setting.split()[0], "") for key, setting in PARAMETERS.items()}
    for key in ("statementTimeout", "idleInTransactionSessionTimeout"):
        parameters[key] = int(parameters[key].removesuffix("ms") or 0)
    paths = [path.strip('"') for path in parameters["searchPaths"].split(", ") if path]
    live |= parameters | {"searchPaths": paths, "encryptedPassword": True, "passwordWo": ""}
    # Whether there is a password only: the server's verifier cannot be compared with it.
    if known["password"] and live["login"] and session.server.settings["superuser"].lower() == "true":
        query = "SELECT true FROM pg_shadow WHERE usename = %(name)s AND passwd IS NOT NULL"
        live["password"] = known["password"] if session.rows(query, known) else ""
    return live


def _update(session: Session, old: Values, new: Values) -> None:
    watched = {*FLAGS, "connectionLimit", "validUntil", "passwordWoVersion" if new["passwordWo"] else "password"}
    if any(new[key] != old[key] for key in watched):
        state = new | _verifier(session, new) | {"oldName": old["name"]}
        session.run(f"ALTER ROLE {{oldName}} {_options(new)}", state, failing="error updating role")
    make_update("role", {"name": "ALTER ROLE {oldName} RENAME TO {name}"})(session, old, new)
    if set(new["roles"]) != set(old["roles"]):
        for role in old["roles"]:
            failing = f"could not revoke role {role} from {new['name']}"
            session.run("REVOKE {role} FROM {name}", new | {"role": role}, failing=failing)
        _grant(session, new)
    _set_parameters(session, old, new)


def _delete(session: Session, known: Values) -> None:
    name, user = known["name"], session.server.user
    if not known["skipReassignOwned"]:
        failing = f"could not reassign owned by role {name} to {user}"
        session.run("REASSIGN OWNED BY {name} TO {user}", known | {"user": user}, failing=failing)
        session.run("DROP OWNED BY {name}", known, failing=f"could not drop owned by role {name}")
    if not known["skipDropRole"]:
        session.run("DROP ROLE {name}", known, failing=f"could not delete role {name}")


ROLE = Resource(
    "role:Role",
    {
        "name": Property(is_required=True),
        "password": Property(is_secret=True),
        "passwordWo": Property(is_secret=True, is_write_only=True),
        "passwordWoVersion": Property(),
        "encrypted": Property(is_supported=False),
        "encryptedPassword": flag(default=True),
        "roles": set_of_texts(),
        "validUntil": Property(default="infinity"),
        "connectionLimit": number(default=-1, minimum=-1),
        **{key: flag(default=True) if key == "inherit" else flag() for key in FLAGS},
        "skipDropRole": flag(),
        "skipReassignOwned": flag(),
        "searchPaths": Property("array"),
        "statementTimeout": number(minimum=0),
        "idleInTransactionSessionTimeout": number(minimum=0),
        "assumeRole": Property(empty=""),
    },
    create=_create,
    read=_read,
    update=_update,
    delete=_delete,
    identity=("name",),
    is_named=True,
)
