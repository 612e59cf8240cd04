"""``Database``."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.postgresql.connection import Server, Session

State = dict[str, Any]

_QUERY = (
    "SELECT d.datname, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,"
    " ts.spcname, d.datconnlimit, d.datallowconn, d.datistemplate"
    " FROM pg_database d JOIN pg_tablespace ts ON d.dattablespace = ts.oid WHERE d.datname = %s"
)


def create(server: Server, wanted: State) -> str:
    name = wanted["name"]
    owner = wanted["owner"] or server.settings.user
    with server.connected() as session:
        names = [name, owner]
        options = ["OWNER {}"]
        for key, word, default in (
            ("template", "TEMPLATE", "template0"),
            ("tablespaceName", "TABLESPACE", ""),
        ):
            value = wanted[key] or default
            if value.upper() == "DEFAULT":
                options.append(f"{word} DEFAULT")
            elif value:
                options.append(f"{word} {{}}")
                names.append(value)
        options += _literal_options(session, wanted)
        options.append(f"ALLOW_CONNECTIONS {_boolean(wanted['allowConnections'])}")
        options.append(f"CONNECTION LIMIT {int(wanted['connectionLimit'])}")
        options.append(f"IS_TEMPLATE {_boolean(wanted['isTemplate'])}")
        with session.as_member_of([owner]):
            session.run(
                f"CREATE DATABASE {{}} {' '.join(options)}", *names, failing=f'error creating database "{name}"'
            )
    return str(name)


def _literal_options(session: Session, wanted: State) -> list[str]:
    options = []
    for key, word, default in (
        ("encoding", "ENCODING", "UTF8"),
        ("lcCollate", "LC_COLLATE", ""),
        ("lcCtype", "LC_CTYPE", ""),
    ):
        value = wanted[key] or default
        if value.upper() == "DEFAULT":
            options.append(f"{word} DEFAULT")
        elif value:
            options.append(f"{word} {session.literal(value)}")
    return options


def _boolean(value: object) -> str:
    return "true" if value else "false"


def read(server: Server, known: State) -> State | None:
    with server.connected() as session:
        found = session.row(
            _QUERY,
            known["name"],
            failing="error reading database",
        )
    if found is None:
        return None
    return {
        **known,
        "name": found[0],
        "owner": found[1],
        "encoding": found[2],
        "lcCollate": found[3],
        "lcCtype": found[4],
        "tablespaceName": found[5],
        "connectionLimit": found[6],
        "allowConnections": found[7],
        "isTemplate": found[8],
        "template": known["template"] or "template0",
    }


def update(server: Server, old: State, new: State) -> None:
    name = new["name"]
    with server.connected() as session:
        if name != old["name"]:
            session.run("ALTER DATABASE {} RENAME TO {}", old["name"], name, failing="error updating database name")
        if new["owner"] and new["owner"] != old["owner"]:
            if new["alterObjectOwnership"]:
                _reassign(server, name, session.owner_of_database(name), new["owner"])
            with session.as_member_of([new["owner"]]):
                session.run(
                    "ALTER DATABASE {} OWNER TO {}", name, new["owner"], failing="error updating database OWNER"
                )
        if new["tablespaceName"] and new["tablespaceName"] != old["tablespaceName"]:
            session.run(
                "ALTER DATABASE {} SET TABLESPACE {}",
                name,
                new["tablespaceName"],
                failing="error updating database TABLESPACE",
            )
        for key, option in _alterations(old, new):
            session.run(f"ALTER DATABASE {{}} {option}", name, failing=f"error updating database {key}")


def _reassign(server: Server, database: str, old_owner: str, new_owner: str) -> None:
    if old_owner == new_owner:
        return
    with server.transaction(database) as session, session.as_member_of([old_owner]):
        session.run(
            "REASSIGN OWNED BY {} TO {}",
            old_owner,
            new_owner,
            failing=f"error reassigning objects owned by '{old_owner}'",
        )


def _alterations(old: State, new: State) -> list[tuple[str, str]]:
    found = []
    if new["connectionLimit"] != old["connectionLimit"]:
        found.append(("CONNECTION LIMIT", f"CONNECTION LIMIT = {int(new['connectionLimit'])}"))
    if new["allowConnections"] != old["allowConnections"]:
        found.append(("ALLOW_CONNECTIONS", f"ALLOW_CONNECTIONS {_boolean(new['allowConnections'])}"))
    if new["isTemplate"] != old["isTemplate"]:
        found.append(("IS_TEMPLATE", f"IS_TEMPLATE {_boolean(new['isTemplate'])}"))
    return found


def delete(server: Server, known: State) -> None:
    """Ends the connections that are open to it."""
    name = known["name"]
    with server.connected() as session:
        if not session.has_database(name):
            return
        with session.as_member_of([known["owner"]] if known["owner"] else []):
            if known["isTemplate"]:
                session.run(
                    "ALTER DATABASE {} IS_TEMPLATE false",
                    name,
                    failing="error updating database IS_TEMPLATE during DROP DATABASE",
                )
            session.run(
                "ALTER DATABASE {} ALLOW_CONNECTIONS false", name, failing="error blocking connections to database"
            )
            session.run("DROP DATABASE {} WITH ( FORCE )", name, failing="error dropping database")
