"""Makes logins, roles and databases in a real server. It reads them first and changes only what differs.

Passwords never travel in plaintext in a statement: the server gets the SCRAM verifier, as CNPG's operator sends it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lab.operators import postgres
from lab.platform.paths import write_private

Connection = psycopg.Connection[Any]
VERIFIER = "SCRAM-SHA-256$"
ROUNDS = 4096
"""PostgreSQL's default of `scram_iterations`."""


class LoginRefusedError(postgres.PostgresError):
    """The server refuses the password that its folder has."""


@contextlib.contextmanager
def connect(place: postgres.Place, database: str = "postgres") -> Iterator[Connection]:
    """Connect as superuser through the private socket, in autocommit mode."""
    password = place.password_file.read_text(encoding="utf-8")
    descriptor = os.open(place.socket, os.O_RDONLY | os.O_DIRECTORY)
    # A socket's address holds 107 bytes; the way through the descriptor is short however deep the folder is.
    host = f"/proc/self/fd/{descriptor}" if Path("/proc/self/fd").exists() else str(place.socket)
    try:
        with psycopg.connect(
            host=host,
            port=place.port,
            user=postgres.SUPERUSER,
            password=password,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
            application_name="lab-operators",
        ) as connection:
            yield connection
    except psycopg.OperationalError as problem:
        refused = "password authentication failed" in str(problem)
        kind = LoginRefusedError if refused else postgres.PostgresError
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise kind(f"no login through {place.socket}: {reason}") from problem
    finally:
        os.close(descriptor)


def new_verifier(password: str) -> str:
    """Make the SCRAM verifier of a password; a text that is a verifier already stays as it is.

    Only for passwords that SASLprep leaves alone, as all printable ASCII ones are; others are refused.
    """
    if password.startswith(VERIFIER):
        return password
    if not password or not (password.isascii() and password.isprintable()):
        raise postgres.PostgresError("a role's password must be printable ASCII and not empty")
    salt = secrets.token_bytes(16)
    stored, server = _keys(password, salt, ROUNDS)
    return f"{VERIFIER}{ROUNDS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _keys(password: str, salt: bytes, rounds: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey of RFC 5802."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def matches(verifier: str | None, password: str) -> bool:
    """Whether a stored verifier (RFC 5803: `SCRAM-SHA-256$rounds:salt$stored:server`) is of this password."""
    if not verifier or not verifier.startswith(VERIFIER):
        return False
    if verifier == password:
        return True
    parameters, _, keys = verifier.removeprefix(VERIFIER).partition("$")
    rounds, _, salt = parameters.partition(":")
    stored, _ = _keys(password, base64.b64decode(salt), int(rounds))
    return hmac.compare_digest(_text(stored), keys.partition(":")[0])


def run(connection: Connection, statement: str, values: Mapping[str, Any]) -> None:
    """Run a statement, in which `{key}` and `'{key}'` stand for values as in `fill`."""
    connection.execute(fill(statement, values, connection).encode())


def fill(statement: str, values: Mapping[str, Any], connection: Connection | None = None) -> str:
    """The statement with `{key}` replaced by the quoted name `values[key]`, `'{key}'` by its quoted value."""

    def quote(found: re.Match[str]) -> str:
        value = values[found["value"] or found["name"]]
        quoted = sql.Literal(value) if found["value"] else sql.Identifier(str(value))
        return quoted.as_string(connection)

    return re.sub(r"'\{(?P<value>\w+)\}'|\{(?P<name>\w+)\}", quote, statement)


def set_password(connection: Connection, role: str, password: str | None) -> bool:
    """Set a role's password if it differs; None removes it. Returns whether it was changed."""
    row = connection.execute("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s", [role]).fetchone()
    stored = row[0] if row else None
    if stored is None if password is None else matches(stored, password):
        return False
    verifier = None if password is None else new_verifier(password)
    run(connection, "ALTER ROLE {role} PASSWORD '{verifier}'", {"role": role, "verifier": verifier})
    return True


def keep_superuser_password(place: postgres.Place, wanted: str) -> bool:
    """Make `wanted` the superuser's password of a running server; return whether anything changed.

    The file holds the password that works; a crash between server and file, or an ALTER ROLE of the user's, is noticed
    at the next login and repaired, if need be through single-user mode (which interrupts the sessions).
    """
    known = place.password_file.read_text(encoding="utf-8")
    if not _works(place):
        write_private(place.password_file, wanted)
        if not _works(place):
            _force(place, wanted)
        return True
    if known == wanted:
        return False
    with connect(place) as connection:
        set_password(connection, postgres.SUPERUSER, wanted)
    write_private(place.password_file, wanted)
    return True


def _works(place: postgres.Place) -> bool:
    with contextlib.suppress(LoginRefusedError), connect(place):
        return True
    return False


def _force(place: postgres.Place, wanted: str) -> None:
    values = {"role": postgres.SUPERUSER, "verifier": new_verifier(wanted)}
    postgres.run_in_single_user_mode(place, fill("ALTER ROLE {role} LOGIN SUPERUSER PASSWORD '{verifier}'", values))
    postgres.start(place)


ATTRIBUTES: Mapping[str, tuple[str, bool]] = {
    "superuser": ("SUPERUSER", False),
    "createdb": ("CREATEDB", False),
    "createrole": ("CREATEROLE", False),
    "inherit": ("INHERIT", True),
    "login": ("LOGIN", False),
    "replication": ("REPLICATION", False),
    "bypassrls": ("BYPASSRLS", False),
}
"""Key of a role's spec → word of ALTER ROLE, CNPG's default."""


def ensure_role(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Create the role of `managed.roles[]` or `DatabaseRole.spec`, or set all of its attributes."""
    found = connection.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", [spec["name"]]).fetchone()
    words = [word if spec.get(key, default) else f"NO{word}" for key, (word, default) in ATTRIBUTES.items()]
    values = {
        "name": spec["name"],
        "limit": int(spec.get("connectionLimit", -1)),
        "until": str(spec.get("validUntil") or "infinity"),
        "comment": spec.get("comment") or None,
    }
    options = f"WITH {' '.join(words)} CONNECTION LIMIT '{{limit}}' VALID UNTIL '{{until}}'"
    run(connection, f"{'ALTER' if found else 'CREATE'} ROLE {{name}} {options}", values)
    run(connection, "COMMENT ON ROLE {name} IS '{comment}'", values)
    rows = connection.execute(
        "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s",
        [spec["name"]],
    ).fetchall()
    there, wanted = {row[0] for row in rows}, set(spec.get("inRoles") or ())
    for group in sorted(wanted - there):
        run(connection, "GRANT {group} TO {name}", values | {"group": group})
    for group in sorted(there - wanted):
        run(connection, "REVOKE {group} FROM {name}", values | {"group": group})


def drop_role(connection: Connection, name: str) -> None:
    run(connection, "DROP ROLE IF EXISTS {name}", {"name": name})


CREATION: Mapping[str, str] = {
    "template": "TEMPLATE",
    "tablespace": "TABLESPACE",
    "encoding": "ENCODING",
    "locale": "LOCALE",
    "localeProvider": "LOCALE_PROVIDER",
    "localeCollate": "LC_COLLATE",
    "localeCType": "LC_CTYPE",
    "icuLocale": "ICU_LOCALE",
    "icuRules": "ICU_RULES",
    "builtinLocale": "BUILTIN_LOCALE",
    "collationVersion": "COLLATION_VERSION",
}
"""Key of `Database.spec` → word of CREATE DATABASE, for settings that can only be chosen at creation."""


OPTIONS: Mapping[str, str] = {
    "allowConnections": "ALLOW_CONNECTIONS '{allowConnections}'",
    "connectionLimit": "CONNECTION LIMIT '{connectionLimit}'",
    "isTemplate": "IS_TEMPLATE '{isTemplate}'",
}


def ensure_database(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Create the database of a `Database.spec`, or set its owner, limit and flags."""
    known = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s"
    options = [option for key, option in OPTIONS.items() if spec.get(key) is not None]
    if connection.execute(known, [spec["name"]]).fetchone() is None:
        owner = ["OWNER {owner}"] if spec.get("owner") else []
        chosen = [f"{word} {{{key}}}" for key, word in CREATION.items() if spec.get(key)]
        run(connection, " ".join(["CREATE DATABASE {name}", *owner, *chosen, *options]), spec)
        return
    for option in options:
        run(connection, f"ALTER DATABASE {{name}} WITH {option}", spec)
    if spec.get("owner"):
        run(connection, "ALTER DATABASE {name} OWNER TO {owner}", spec)


def drop_database(connection: Connection, name: str) -> None:
    run(connection, "DROP DATABASE IF EXISTS {name}", {"name": name})


def ensure_extension(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Apply `{name, ensure, version, schema}` in the database of the connection."""
    if spec.get("ensure") == "absent":
        run(connection, "DROP EXTENSION IF EXISTS {name}", spec)
        return
    found = connection.execute(
        "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = %s",
        [spec["name"]],
    ).fetchone()
    version, schema = spec.get("version"), spec.get("schema")
    if found is None:
        chosen = [f"{key} {{{key}}}" for key in ("version", "schema") if spec.get(key)]
        run(connection, " ".join(["CREATE EXTENSION {name}", *chosen]), spec)
        return
    if schema and schema != found[1]:
        run(connection, "ALTER EXTENSION {name} SET SCHEMA {schema}", spec)
    if version and version != found[0]:
        run(connection, "ALTER EXTENSION {name} UPDATE TO {version}", spec)


def ensure_schema(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Apply `{name, ensure, owner}` in the database of the connection."""
    found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [spec["name"]]).fetchone()
    if spec.get("ensure") == "absent":
        run(connection, "DROP SCHEMA IF EXISTS {name}", spec)
    elif found is None:
        run(connection, "CREATE SCHEMA {name}" + (" AUTHORIZATION {owner}" if spec.get("owner") else ""), spec)
    elif spec.get("owner"):
        run(connection, "ALTER SCHEMA {name} OWNER TO {owner}", spec)
