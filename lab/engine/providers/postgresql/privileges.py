"""Which privileges there are, and the roles whose membership granting them takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab.engine.providers.postgresql.connection import PostgresError, Session

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
    "foreign_data_wrapper": ("USAGE",),
    "foreign_server": ("USAGE",),
    "column": ("SELECT", "INSERT", "UPDATE", "REFERENCES"),
}


def validate(object_type: str, privileges: Iterable[str]) -> None:
    for privilege in privileges:
        if privilege != "ALL" and privilege not in ALLOWED[object_type]:
            raise PostgresError(f"{privilege} is not an allowed privilege for object type {object_type}")


def as_wanted(object_type: str, wanted: Sequence[str], granted: Iterable[str]) -> list[str]:
    """``wanted`` itself when it says the same as ``granted`` (``ALL`` is every one of them), else what is granted."""
    found = set(granted)
    if found == set(wanted) or ("ALL" in wanted and found >= set(ALLOWED[object_type]) - {"MAINTAIN"}):
        return list(wanted)
    return sorted(found)


def oid_of(session: Session, role: str) -> int:
    """0 is everybody."""
    if role == PUBLIC:
        return 0
    found = session.row("SELECT oid FROM pg_roles WHERE rolname = %s", role)
    if found is None:
        raise PostgresError(f"could not find oid for role {role}: sql: no rows in result set")
    return int(found[0])


def owners_of(session: Session, schema: str, *, with_tables: bool) -> list[str]:
    """Owner of a schema, and owners of its tables."""
    found = session.row(
        "SELECT rolname FROM pg_namespace JOIN pg_roles ON nspowner = pg_roles.oid WHERE nspname = %s", schema
    )
    if found is None:
        raise PostgresError(f"could not find schema '{schema}' while looking for owner")
    owners = [str(found[0])]
    if with_tables:
        owners += [
            row[0] for row in session.rows("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = %s", schema)
        ]
    return [session.owner_of_database("") if owner == "pg_database_owner" else owner for owner in owners]
