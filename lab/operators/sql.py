"""Makes logins, roles and databases in a real server. It reads them first and changes only what differs.

Passwords never travel in plaintext in a statement: the server gets the SCRAM verifier, as CNPG's operator sends it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
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


def set_password(connection: Connection, role: str, password: str | None) -> bool:
    """Set a role's password if it differs; None removes it. Returns whether it was changed."""
    row = connection.execute("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s", [role]).fetchone()
    stored = row[0] if row else None
    if stored is None if password is None else matches(stored, password):
        return False
    value = sql.NULL if password is None else sql.Literal(new_verifier(password))
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), value))
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
    role, verifier = sql.Identifier(postgres.SUPERUSER), sql.Literal(new_verifier(wanted))
    alter = sql.SQL("ALTER ROLE {} LOGIN SUPERUSER PASSWORD {}").format(role, verifier)
    postgres.run_in_single_user_mode(place, alter.as_string(None))
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
    name = sql.Identifier(spec["name"])
    found = connection.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", [spec["name"]]).fetchone()
    words = [word if spec.get(key, default) else f"NO{word}" for key, (word, default) in ATTRIBUTES.items()]
    verb = sql.SQL("ALTER ROLE {} WITH " if found else "CREATE ROLE {} WITH ").format(name)
    limit = sql.SQL(" CONNECTION LIMIT {}").format(sql.Literal(int(spec.get("connectionLimit", -1))))
    until = sql.SQL(" VALID UNTIL {}").format(sql.Literal(str(spec.get("validUntil") or "infinity")))
    connection.execute(verb + sql.SQL(" ").join(map(_keyword, words)) + limit + until)
    comment = sql.Literal(spec["comment"]) if spec.get("comment") else sql.NULL
    connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(name, comment))
    rows = connection.execute(
        "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s",
        [spec["name"]],
    ).fetchall()
    there, wanted = {row[0] for row in rows}, set(spec.get("inRoles") or ())
    for group in sorted(wanted - there):
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), name))
    for group in sorted(there - wanted):
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), name))


def _keyword(word: str) -> sql.SQL:
    return sql.SQL(word)  # from the tables here, never from an object


def drop_role(connection: Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


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


def ensure_database(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Create the database of a `Database.spec`, or set its owner, limit and flags."""
    name = sql.Identifier(spec["name"])
    known = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s"
    if connection.execute(known, [spec["name"]]).fetchone() is None:
        parts = [sql.SQL("CREATE DATABASE {}").format(name)]
        if spec.get("owner"):
            parts.append(sql.SQL("OWNER {}").format(sql.Identifier(spec["owner"])))
        for key, word in CREATION.items():
            if spec.get(key):
                parts.append(sql.SQL("{} {}").format(_keyword(word), sql.Identifier(str(spec[key]))))
        connection.execute(sql.SQL(" ").join([*parts, *_options(spec)]))
        return
    for option in _options(spec):
        connection.execute(sql.SQL("ALTER DATABASE {} WITH {}").format(name, option))
    if spec.get("owner"):
        owner = sql.Identifier(spec["owner"])
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner))


def _options(spec: Mapping[str, Any]) -> list[sql.Composed]:
    words = {
        "allowConnections": "ALLOW_CONNECTIONS",
        "connectionLimit": "CONNECTION LIMIT",
        "isTemplate": "IS_TEMPLATE",
    }
    given = {key: word for key, word in words.items() if spec.get(key) is not None}
    return [sql.SQL("{} {}").format(_keyword(word), sql.Literal(spec[key])) for key, word in given.items()]


def drop_database(connection: Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def ensure_extension(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Apply `{name, ensure, version, schema}` in the database of the connection."""
    name = sql.Identifier(spec["name"])
    if spec.get("ensure") == "absent":
        connection.execute(sql.SQL("DROP EXTENSION IF EXISTS {}").format(name))
        return
    found = connection.execute(
        "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = %s",
        [spec["name"]],
    ).fetchone()
    version, schema = spec.get("version"), spec.get("schema")
    if found is None:
        parts = [sql.SQL("CREATE EXTENSION {}").format(name)]
        parts += [sql.SQL("VERSION {}").format(sql.Identifier(version))] if version else []
        parts += [sql.SQL("SCHEMA {}").format(sql.Identifier(schema))] if schema else []
        connection.execute(sql.SQL(" ").join(parts))
        return
    if schema and schema != found[1]:
        connection.execute(sql.SQL("ALTER EXTENSION {} SET SCHEMA {}").format(name, sql.Identifier(schema)))
    if version and version != found[0]:
        connection.execute(sql.SQL("ALTER EXTENSION {} UPDATE TO {}").format(name, sql.Identifier(version)))


def ensure_schema(connection: Connection, spec: Mapping[str, Any]) -> None:
    """Apply `{name, ensure, owner}` in the database of the connection."""
    name = sql.Identifier(spec["name"])
    if spec.get("ensure") == "absent":
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(name))
        return
    owner = spec.get("owner")
    found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [spec["name"]]).fetchone()
    if found is None:
        authorization = sql.SQL(" AUTHORIZATION {}").format(sql.Identifier(owner)) if owner else sql.SQL("")
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name) + authorization)
    elif owner:
        connection.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(name, sql.Identifier(owner)))
