"""`Database`, and what lies in one: `Extension` and `Schema`."""

from __future__ import annotations

from collections.abc import Callable

from lab.plugins.postgresql.properties import Property, Resource, flag, number, set_of_texts
from lab.plugins.postgresql.server import Session, make_read, make_update
from lab.plugins.postgresql.wire import Values

OPTIONS = {
    "owner": "OWNER {owner}",
    "template": "TEMPLATE {template}",
    "encoding": "ENCODING '{encoding}'",
    "lcCollate": "LC_COLLATE '{lcCollate}'",
    "lcCtype": "LC_CTYPE '{lcCtype}'",
    "tablespaceName": "TABLESPACE {tablespaceName}",
    "allowConnections": "ALLOW_CONNECTIONS '{allowConnections}'",
    "connectionLimit": "CONNECTION LIMIT '{connectionLimit}'",
    "isTemplate": "IS_TEMPLATE '{isTemplate}'",
}


def _create_database(session: Session, new: Values) -> None:
    defaults = {"owner": session.server.user, "template": "template0", "encoding": "UTF8"}
    state = new | {key: new[key] or value for key, value in defaults.items()}
    options = [
        f"{text.split(' ')[0]} DEFAULT" if str(state[key]).upper() == "DEFAULT" else text
        for key, text in OPTIONS.items()
        if state[key] != ""
    ]
    failing = f'error creating database "{new["name"]}"'
    session.run(f"CREATE DATABASE {{name}} {' '.join(options)}", state, failing=failing)


def _update_database(session: Session, old: Values, new: Values) -> None:
    if new["alterObjectOwnership"] and new["owner"] not in ("", old["owner"]):
        with session.server.session(old["name"]) as inside:
            failing = f"error reassigning objects owned by '{old['owner']}'"
            inside.run("REASSIGN OWNED BY {from} TO {owner}", new | {"from": old["owner"]}, failing=failing)
    changes = ["owner", "allowConnections", "connectionLimit", "isTemplate"]
    statements = {key: f"ALTER DATABASE {{oldName}} {OPTIONS[key].replace('OWNER', 'OWNER TO')}" for key in changes}
    statements["tablespaceName"] = "ALTER DATABASE {oldName} SET TABLESPACE {tablespaceName}"
    statements["name"] = "ALTER DATABASE {oldName} RENAME TO {name}"
    make_update("database", statements)(session, old, new)


def _delete_database(session: Session, known: Values) -> None:
    """Delete the database, after ending the open connections to it."""
    if known["isTemplate"]:
        failing = "error updating database IS_TEMPLATE during DROP DATABASE"
        session.run("ALTER DATABASE {name} IS_TEMPLATE false", known, failing=failing)
    session.run("DROP DATABASE {name} WITH ( FORCE )", known, failing="error dropping database")


DATABASE = Resource(
    "database:Database",
    {
        "name": Property(is_required=True),
        "owner": Property(is_computed=True),
        "template": Property(is_computed=True, replaces=True),
        "encoding": Property(is_computed=True, replaces=True),
        "lcCollate": Property(is_computed=True, replaces=True),
        "lcCtype": Property(is_computed=True, replaces=True),
        "tablespaceName": Property(is_computed=True),
        "connectionLimit": number(default=-1, minimum=-1),
        "allowConnections": flag(default=True),
        "isTemplate": flag(is_computed=True),
        "alterObjectOwnership": flag(),
    },
    create=_create_database,
    read=make_read(
        "database",
        "SELECT pg_get_userbyid(datdba)::text AS owner, pg_encoding_to_char(encoding) AS encoding,"
        ' datcollate AS "lcCollate", datctype AS "lcCtype", spcname AS "tablespaceName", datistemplate AS "isTemplate",'
        ' datconnlimit AS "connectionLimit", datallowconn AS "allowConnections",'
        " coalesce(nullif(%(template)s, ''), 'template0') AS template"
        " FROM pg_database JOIN pg_tablespace ON dattablespace = pg_tablespace.oid WHERE datname = %(name)s",
    ),
    update=_update_database,
    delete=_delete_database,
    identity=("name",),
    is_named=True,
    is_transactional=False,
)


def _make_delete(kind: str) -> Callable[[Session, Values], None]:
    def delete(session: Session, known: Values) -> None:
        mode = "CASCADE" if known["dropCascade"] else "RESTRICT"
        session.run(f"DROP {kind} IF EXISTS {{name}} {mode}", known, failing=f"error deleting {kind.lower()}")

    return delete


def _create_extension(session: Session, new: Values) -> None:
    options = [f"{key} {{{key}}}" for key in ("schema", "version") if new[key]]
    options += ["CASCADE"] if new["createCascade"] else []
    session.run(f"CREATE EXTENSION IF NOT EXISTS {{name}} {' '.join(options)}", new)


EXTENSION = Resource(
    "extension:Extension",
    {
        "name": Property(is_required=True, replaces=True),
        "schema": Property(is_computed=True),
        "version": Property(is_computed=True),
        "database": Property(is_computed=True, replaces=True),
        "dropCascade": flag(),
        "createCascade": flag(),
    },
    create=_create_extension,
    read=make_read(
        "extension",
        "SELECT nspname AS schema, extversion AS version FROM pg_extension"
        " JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = %(name)s",
    ),
    update=make_update(
        "extension",
        {
            "schema": "ALTER EXTENSION {name} SET SCHEMA {schema}",
            "version": "ALTER EXTENSION {name} UPDATE TO {version}",
        },
    ),
    delete=_make_delete("EXTENSION"),
    identity=("database", "name"),
    is_named=True,
)


def _create_schema(session: Session, new: Values) -> None:
    """Create the schema. If it exists already, only set its owner."""
    if SCHEMA.read(session, new):
        SCHEMA.update(session, new | {"owner": ""}, new)
    else:
        owner = "AUTHORIZATION {owner}" if new["owner"] else ""
        session.run(f"CREATE SCHEMA {{name}} {owner}", new, failing=f"error creating schema {new['name']}")


SCHEMA = Resource(
    "schema:Schema",
    {
        "name": Property(is_required=True),
        "database": Property(is_computed=True, replaces=True),
        "owner": Property(is_computed=True),
        "ifNotExists": flag(default=True),
        "dropCascade": flag(),
        # Deprecated: `Grant` does that.
        "policies": set_of_texts(is_computed=True, is_supported=False, empty=[]),
    },
    create=_create_schema,
    read=make_read(
        "schema", "SELECT pg_get_userbyid(nspowner)::text AS owner FROM pg_namespace WHERE nspname = %(name)s"
    ),
    update=make_update(
        "schema",
        {"owner": "ALTER SCHEMA {oldName} OWNER TO {owner}", "name": "ALTER SCHEMA {oldName} RENAME TO {name}"},
    ),
    delete=_make_delete("SCHEMA"),
    identity=("database", "name"),
    is_named=True,
)
