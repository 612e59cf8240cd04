"""`Grant`: privileges on a database, a schema, or tables, sequences and functions of a schema; `DefaultPrivileges`: on
objects that a role is going to create; `GrantRole`: one role as a member of another."""

from __future__ import annotations

from collections.abc import Collection

from lab.plugins.postgresql.properties import FIXED, Property, Resource, flag, set_of_texts
from lab.plugins.postgresql.server import PostgresError, Session, make_read, make_update
from lab.plugins.postgresql.wire import Values

PUBLIC = "public"
ALLOWED: dict[str, tuple[str, ...]] = {
    "database": ("CREATE", "CONNECT", "TEMPORARY"),
    "table": ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"),
    "sequence": ("USAGE", "SELECT", "UPDATE"),
    "schema": ("CREATE", "USAGE"),
    "function": ("EXECUTE",),
    "procedure": ("EXECUTE",),
    "routine": ("EXECUTE",),
    "type": ("USAGE",),
}
OF_SCHEMA = "JOIN pg_namespace n ON n.oid = {} WHERE nspname = %(schema)s"
CATALOGS = {
    "database": ("datname", "datacl", "pg_database WHERE datname = %(database)s"),
    "schema": ("nspname", "nspacl", "pg_namespace WHERE nspname = %(schema)s"),
    "table": ("relname", "relacl", f"pg_class {OF_SCHEMA.format('relnamespace')} AND relkind IN ('r', 'p')"),
    "sequence": ("relname", "relacl", f"pg_class {OF_SCHEMA.format('relnamespace')} AND relkind = 'S'"),
} | dict.fromkeys(
    ("function", "procedure", "routine"), ("proname", "proacl", f"pg_proc {OF_SCHEMA.format('pronamespace')}")
)
"""Object type → the columns of name and privileges, and the catalog's rows."""
DEFAULT_KINDS = {"table": "r", "sequence": "S", "function": "f", "routine": "f", "type": "T", "schema": "n"}


def _words(state: Values) -> str:
    """The privileges, checked against a list of allowed words, so a statement may contain them unquoted."""
    for privilege in state["privileges"]:
        if privilege not in ("ALL", *ALLOWED[state["objectType"]]):
            raise PostgresError(f"{privilege} is not an allowed privilege for object type {state['objectType']}")
    return ",".join(state["privileges"])


def _as_wanted(state: Values, granted: Collection[str]) -> list[str]:
    """The recorded privileges if they mean the same as `granted` (`ALL` is every one), else the granted ones."""
    wanted, found = state["privileges"], set(granted)
    # Before PostgreSQL 17 there is no MAINTAIN.
    every = set(ALLOWED[state["objectType"]]) - {"MAINTAIN"}
    return list(wanted) if found == set(wanted) or ("ALL" in wanted and found >= every) else sorted(found)


def _whom(state: Values, verb: str) -> str:
    role = "PUBLIC" if state["role"] == PUBLIC else "{role}"
    option = " WITH GRANT OPTION" if state["withGrantOption"] else ""
    return f"TO {role}{option}" if verb == "GRANT" else f"FROM {role}"


def _have_roles(session: Session, *roles: str) -> bool:
    wanted = [role for role in {*roles} if role != PUBLIC]
    found = session.rows("SELECT true FROM pg_roles WHERE rolname = ANY(%(names)s)", {"names": wanted})
    return len(found) == len(wanted)


def _update_grant(session: Session, old: Values, new: Values) -> None:
    """Revoke and grant in one transaction: privileges that stay are never missing."""
    if not new["schema"] and new["objectType"] != "database":
        raise PostgresError("parameter 'schema' is mandatory for postgresql_grant resource")
    if new["objects"] and new["objectType"] in ("database", "schema"):
        raise PostgresError("cannot specify `objects` when `object_type` is `database` or `schema`")
    words = _words(new)
    _delete_grant(session, old)
    if words:
        _change_grant(session, "GRANT", words, new)


def _delete_grant(session: Session, known: Values) -> None:
    """Revoke. On single objects only recorded privileges: "all" of a table would include those on its columns."""
    _change_grant(session, "REVOKE", (known["objects"] and _words(known)) or "ALL PRIVILEGES", known)


def _change_grant(session: Session, verb: str, words: str, state: Values) -> None:
    kind, names = state["objectType"], {}
    target = f"{kind} {{{kind}}}" if kind in ("database", "schema") else f"ALL {kind}S IN SCHEMA {{schema}}"
    if state["objects"]:
        places = []
        for index, item in enumerate(state["objects"]):
            # A function may be given with the types of its arguments.
            names[f"object{index}"], parenthesis, arguments = item.partition("(")
            places.append(f"{{schema}}.{{object{index}}}{parenthesis}{arguments}")
        target = f"{kind} {', '.join(places)}"
    failing = f"could not execute {verb.lower()} query"
    session.run(f"{verb} {words} ON {target} {_whom(state, verb)}", state | names, failing=failing)


def _read_grant(session: Session, known: Values) -> Values | None:
    """Read the privileges on the first object that differs from the record."""
    schemas = session.rows("SELECT true FROM pg_namespace WHERE nspname = %(schema)s", known)
    if not _have_roles(session, known["role"]) or (known["schema"] and not schemas):
        return None
    name, privileges, catalog = CATALOGS[known["objectType"]]
    rows = session.rows(
        f"SELECT {name} AS name, ARRAY(SELECT DISTINCT privilege_type FROM aclexplode({privileges})"  # noqa: S608 - ours
        " WHERE CASE grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(grantee) END = %(role)s) AS privileges"
        f" FROM {catalog}",
        known,
    )
    wanted = {item.partition("(")[0] for item in known["objects"]}
    found = [_as_wanted(known, row["privileges"]) for row in rows if not wanted or row["name"] in wanted]
    return known | {"privileges": next((one for one in found if one != known["privileges"]), known["privileges"])}


def _id_of_grant(state: Values) -> str:
    schema = [] if state["objectType"] == "database" else [state["schema"]]
    return "_".join([state["role"], state["database"], *schema, state["objectType"], *sorted(state["objects"])])


GRANT = Resource(
    "grant:Grant",
    {
        "role": FIXED,
        "database": FIXED,
        "schema": Property(replaces=True),
        "objectType": Property(is_required=True, replaces=True, choices=tuple(CATALOGS)),
        "objects": set_of_texts(replaces=True),
        "columns": set_of_texts(replaces=True, is_supported=False),
        "privileges": set_of_texts(is_required=True),
        "withGrantOption": flag(replaces=True),
    },
    create=lambda session, new: _update_grant(session, new, new),
    read=_read_grant,
    update=_update_grant,
    delete=_delete_grant,
    identity=_id_of_grant,
    deletes_before_replace=True,
)


def _create_default(session: Session, new: Values) -> None:
    """Revoke all of the role's default privileges, then grant the wanted ones; the record does not matter."""
    if new["schema"] and new["objectType"] == "schema":
        raise PostgresError("cannot specify `schema` when `object_type` is `schema`")
    if new["withGrantOption"] and new["role"] == PUBLIC:
        raise PostgresError("with_grant_option cannot be true for role 'public'")
    words = _words(new)
    _change_default(session, "REVOKE", "ALL", new)
    if words:
        _change_default(session, "GRANT", words, new)


def _change_default(session: Session, verb: str, words: str, state: Values) -> None:
    place = "IN SCHEMA {schema}" if state["schema"] else ""
    what = f"{verb} {words} ON {state['objectType']}S {_whom(state, verb)}"
    failing = f"could not {verb.lower().replace('grant', 'alter')} default privileges"
    session.run(f"ALTER DEFAULT PRIVILEGES FOR ROLE {{owner}} {place} {what}", state, failing=failing)


def _read_default(session: Session, known: Values) -> Values | None:
    if not _have_roles(session, known["owner"], known["role"]):
        return None
    rows = session.rows(
        "SELECT DISTINCT privilege_type AS privilege,"
        " CASE grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(grantee) END AS grantee"
        " FROM pg_default_acl, aclexplode(defaclacl)"
        " WHERE defaclobjtype = %(kind)s AND pg_get_userbyid(grantor) = %(owner)s"
        " AND coalesce((SELECT nspname FROM pg_namespace n WHERE n.oid = defaclnamespace), '') = %(schema)s",
        known | {"kind": DEFAULT_KINDS[known["objectType"]]},
    )
    granted = [row["privilege"] for row in rows if row["grantee"] == known["role"]]
    return known | {"privileges": _as_wanted(known, granted)} if granted or not known["privileges"] else None


DEFAULT_PRIVILEGES = Resource(
    "defaultPrivileges:DefaultPrivileges",
    {
        "role": FIXED,
        "database": FIXED,
        "owner": FIXED,
        "schema": Property(replaces=True),
        "objectType": Property(is_required=True, replaces=True, choices=tuple(DEFAULT_KINDS)),
        "privileges": set_of_texts(is_required=True),
        "withGrantOption": flag(replaces=True),
    },
    create=_create_default,
    read=_read_default,
    update=lambda session, _, new: _create_default(session, new),
    delete=lambda session, known: _change_default(session, "REVOKE", "ALL", known),
    identity=lambda state: "_".join(
        (state["role"], state["database"], state["schema"] or "noschema", state["owner"], state["objectType"])
    ),
)


def _create_membership(session: Session, new: Values) -> None:
    option = "WITH ADMIN OPTION" if new["withAdminOption"] else ""
    # A membership that is there already keeps its options otherwise.
    GRANT_ROLE.delete(session, new)
    session.run(f"GRANT {{grantRole}} TO {{role}} {option}", new, failing="could not execute grant query")


GRANT_ROLE = Resource(
    "grantRole:GrantRole",
    {"role": FIXED, "grantRole": FIXED, "withAdminOption": flag(replaces=True)},
    create=_create_membership,
    read=make_read(
        "grant role",
        'SELECT bool_or(admin_option) AS "withAdminOption" FROM pg_auth_members'
        " WHERE pg_get_userbyid(member) = %(role)s AND pg_get_userbyid(roleid) = %(grantRole)s HAVING count(*) > 0",
    ),
    # Every property replaces.
    update=make_update("grant role", {}),
    delete=lambda session, known: session.run(
        "REVOKE {grantRole} FROM {role}", known, failing="could not execute revoke query"
    ),
    identity=lambda state: f"{state['role']}_{state['grantRole']}_{str(state['withAdminOption']).lower()}",
)
