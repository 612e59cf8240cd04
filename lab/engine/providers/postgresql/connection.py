"""Connections to the server, and its errors in the words of the real provider's driver (lib/pq)."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab.engine.providers.postgresql.settings import Settings

if TYPE_CHECKING:
    import psycopg

_FATAL_CODES = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("is not permitted to log in", "28000"),
    ("too many", "53300"),
    ("remaining connection slots", "53300"),
    ("starting up", "57P03"),
    ("shutting down", "57P03"),
    ("not currently accepting connections", "55000"),
    ("database", "3D000"),
    ("role", "28000"),
)


class PostgresError(Exception):
    """The server, or the way to it, said no. The text holds no password and no statement."""


class Server:
    """One server as one user. Connections are opened for one piece of work and closed after it: a database that a
    connection is open to cannot be dropped."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._slots = threading.BoundedSemaphore(settings.max_connections or 1000)

    @contextmanager
    def connected(self, database: str = "") -> Iterator[Session]:
        """Statements take effect one by one. ``database``: default is the provider's."""
        with self._slots:
            connection = self._connect(database or self.settings.database)
            try:
                yield Session(connection, self.settings)
            finally:
                connection.close()

    @contextmanager
    def transaction(self, database: str = "") -> Iterator[Session]:
        """All statements take effect, or none."""
        import psycopg

        with self.connected(database) as session:
            try:
                with session.connection.transaction():
                    yield session
            except psycopg.Error as error:
                raise PostgresError(f"could not commit transaction: {_text(error)}") from None

    def _connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        settings = self.settings
        try:
            address = self._address()
            return psycopg.connect(
                host=settings.host,
                hostaddr=address,
                port=settings.port,
                user=settings.username,
                password=settings.password,
                dbname=database,
                sslmode=settings.sslmode,
                sslrootcert=settings.sslrootcert or None,
                gssencmode="disable",
                connect_timeout=settings.connect_timeout or None,
                application_name="Terraform provider",
                autocommit=True,
            )
        except psycopg.Error as error:
            reason = _connection_text(str(error), f"{address}:{settings.port}")
        except OSError as error:
            reason = str(error)
        # Outside of the handlers: no chained exception may carry what the driver was given.
        if settings.password:
            reason = reason.replace(settings.password, "XXXX")
        raise PostgresError(f"error connecting to PostgreSQL server {settings.host} (scheme: postgres): {reason}")

    def _address(self) -> str:
        """The address to connect to; another machine's is refused: this provider is the lab's."""
        host = self.settings.host or "localhost"
        try:
            found = socket.getaddrinfo(host, self.settings.port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            raise OSError(f"dial tcp: lookup {host}: no such host") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        outside = [address for address in addresses if not ipaddress.ip_address(address.split("%")[0]).is_loopback]
        if outside:
            raise OSError(
                f"this pulumi is the lab's stand-in and reaches only Postgres servers of this machine; {host} is "
                f"{outside[0]}. Put the real pulumi first on PATH for anything else"
            )
        # The lab's servers listen on IPv4.
        return next((address for address in addresses if "." in address), addresses[0])


class Session:
    """Statements on one connection. ``sql`` takes the names and values apart from the text; errors are
    ``PostgresError`` as lib/pq words them."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], settings: Settings) -> None:
        self.connection = connection
        self.settings = settings

    def run(self, statement: str, *names: str, failing: str = "") -> None:
        """``{}`` in ``statement`` are replaced by quoted names. ``failing`` goes before the server's words."""
        self._execute(self._composed(statement, names), (), failing)

    def rows(self, query: str, *values: Any, failing: str = "") -> list[tuple[Any, ...]]:
        return self._execute(query, values, failing)

    def row(self, query: str, *values: Any, failing: str = "") -> tuple[Any, ...] | None:
        found = self.rows(query, *values, failing=failing)
        return found[0] if found else None

    def literal(self, value: str) -> str:
        """``value`` quoted for a statement that takes no parameters."""
        from psycopg import sql

        return sql.Literal(value).as_string(self.connection)

    def verifier(self, password: str, role: str) -> str:
        """What the server keeps of a password, made here so that the server's log never sees the password."""
        if re.match(r"md5[0-9a-f]{32}$|SCRAM-SHA-256\$", password):
            return password
        hashed = self.connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        return hashed.decode()

    def _composed(self, statement: str, names: Sequence[str]) -> str:
        from psycopg import sql

        parts = [sql.Identifier(name).as_string(self.connection) for name in names]
        pieces = statement.split("{}")
        return "".join(piece + part for piece, part in zip(pieces, [*parts, ""], strict=True))

    def _execute(self, statement: str, values: Sequence[Any], failing: str) -> list[tuple[Any, ...]]:
        import psycopg

        try:
            with self.connection.cursor() as cursor:
                # Without parameters psycopg leaves "%" alone.
                cursor.execute(statement.encode(), values or None)
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            text = _text(error)
        raise PostgresError(f"{failing}: {text}" if failing else text)

    # -- often needed ------------------------------------------------------------------------------------------------

    def lock_role(self, role: str) -> None:
        """Until the transaction's end, so that two runs' changes of one role do not meet."""
        self.run("SET LOCAL statement_timeout = 0")
        self.rows("SELECT pg_advisory_xact_lock(oid::bigint) FROM pg_roles WHERE rolname = %s", role)
        self.rows(
            "SELECT pg_advisory_xact_lock(member::bigint) FROM pg_auth_members JOIN pg_roles ON roleid = pg_roles.oid"
            " WHERE rolname = %s",
            role,
        )

    def lock_database(self, database: str) -> None:
        self.rows("SELECT pg_advisory_xact_lock(oid::bigint) FROM pg_database WHERE datname = %s", database)

    def has_database(self, name: str) -> bool:
        return self.row("SELECT 1 FROM pg_database WHERE datname = %s", name) is not None

    def has_role(self, name: str) -> bool:
        return self.row("SELECT 1 FROM pg_roles WHERE rolname = %s", name) is not None

    def has_schema(self, name: str) -> bool:
        return self.row("SELECT 1 FROM pg_namespace WHERE nspname = %s", name) is not None

    def is_superuser(self, role: str) -> bool:
        found = self.row("SELECT rolsuper FROM pg_roles WHERE rolname = %s", role)
        return bool(found and found[0])

    def owner_of_database(self, database: str) -> str:
        """Of the current one when ``database`` is ""."""
        found = self.row(
            "SELECT rolname FROM pg_database JOIN pg_roles ON datdba = pg_roles.oid"
            " WHERE datname = coalesce(nullif(%s, ''), current_database())",
            database,
        )
        if found is None:
            raise PostgresError(f"could not find database '{database}' while looking for owner")
        return str(found[0])

    @contextmanager
    def as_member_of(self, roles: Sequence[str]) -> Iterator[None]:
        """While inside, the user is a member of ``roles``; a superuser needs no membership."""
        user = str((self.row("SELECT current_user") or ("",))[0])
        if self.is_superuser(user):
            yield
            return
        granted = [role for role in dict.fromkeys(roles) if self._joins(role, user)]
        yield
        for role in granted:
            if self.has_role(role):
                self.run("REVOKE {} FROM {}", role, user, failing=f"error revoking role {role} from {user}")

    def _joins(self, role: str, user: str) -> bool:
        if role == user or self.is_superuser(role):
            return False
        member = "SELECT 1 FROM pg_auth_members WHERE roleid = %s::regrole AND member = %s::regrole AND set_option"
        if self.row(member, f'"{role}"', f'"{user}"') is not None:
            return False
        self.run("GRANT {} TO {}", role, user, failing=f"error granting role {role} to {user}")
        return True


def _text(error: psycopg.Error) -> str:
    diagnosis = error.diag
    if diagnosis.message_primary:
        return f"pq: {diagnosis.message_primary} ({diagnosis.sqlstate})"
    return f"pq: {str(error).strip() or type(error).__name__}"


def _connection_text(text: str, address: str) -> str:
    """libpq's many lines as lib/pq's one."""
    fatal = re.search(r"FATAL:\s+(.+)", text)
    if fatal:
        message = fatal.group(1).strip()
        code = next((code for part, code in _FATAL_CODES if part in message), "")
        return f"pq: {message} ({code})" if code else f"pq: {message}"
    if "Connection refused" in text:
        return f"dial tcp {address}: connect: connection refused"
    if "timeout" in text.lower() or "timed out" in text.lower():
        return f"dial tcp {address}: i/o timeout"
    if "does not support SSL" in text:
        return "pq: SSL is not enabled on the server"
    return f"pq: {' '.join(text.split())}"
