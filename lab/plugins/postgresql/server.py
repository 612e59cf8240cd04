"""The provider's configuration, statements on the server, and errors as the vendor's driver (lib/pq) words them."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.plugins.postgresql.wire import UNKNOWN, Values, terraform_name

if TYPE_CHECKING:
    from psycopg import Connection

SETTINGS: Mapping[str, tuple[str, str]] = {
    "host": ("PGHOST", ""),
    "port": ("PGPORT", "5432"),
    "username": ("PGUSER", "postgres"),
    "password": ("PGPASSWORD", ""),
    "database": ("PGDATABASE", "postgres"),
    "databaseUsername": ("", ""),
    "sslmode": ("PGSSLMODE", "require"),
    "sslrootcert": ("", ""),
    "superuser": ("PGSUPERUSER", "true"),
    "connectTimeout": ("PGCONNECT_TIMEOUT", "180"),
    "maxConnections": ("", "20"),
}
"""Arguments of the provider, with their environment variable and default."""
IGNORED = ("expectedVersion", "pluginDownloadURL", "scheme", "version")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FATAL_CODES = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "is not permitted to log in": "28000",
    "too many": "53300",
    "remaining connection slots": "53300",
    "the database system is": "57P03",
    "permission denied for database": "42501",
    "not currently accepting connections": "55000",
    "role": "28000",
    "does not exist": "3D000",
}
"""Words in libpq's texts, which have no code → SQLSTATE of the error; the first match counts."""


class PostgresError(Exception):
    """A statement or a connection failed. The text holds no password and no statement; `code` is the SQLSTATE."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


def check_settings(inputs: Values) -> list[str]:
    """The problems of the provider's arguments. Cloud logins are not supported."""
    failures = []
    for key, value in inputs.items():
        if key not in (*SETTINGS, *IGNORED):
            failures.append(
                "could not validate provider configuration: Invalid or unknown key. Check "
                f"`pulumi config get postgresql:{key}`."
            )
        elif value is UNKNOWN or value is None:
            continue
        elif SETTINGS.get(key, ("", ""))[1].isdigit() and not re.fullmatch(r"-?\d+", str(value)):
            failures.append(f"provider setting '{key}' must be a whole number, not '{value}'")
        elif key == "sslmode" and value not in SSL_MODES:
            failures.append(f'unsupported sslmode "{value}"; only {", ".join(SSL_MODES)} are supported')
    return failures


def read_settings(inputs: Values, environment: Mapping[str, str]) -> dict[str, str]:
    """`SETTINGS` from the arguments, the environment and the defaults, in this order."""
    return {
        key: environment.get(variable, default) if inputs.get(key) in (None, "") else str(inputs[key])
        for key, (variable, default) in SETTINGS.items()
    }


class Server:
    """One server as one user. A connection is open for one piece of work only: Postgres cannot drop a database that a
    connection is open to."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = settings
        self.is_cancelled = False
        # A database that changes its owner takes two.
        self._slots = threading.BoundedSemaphore(max(2, int(settings["maxConnections"]) or 1000))
        self._open: set[Connection[Values]] = set()

    @property
    def user(self) -> str:
        """The role after login, which runs the statements."""
        return self.settings["databaseUsername"] or self.settings["username"]

    def cancel(self) -> None:
        """Stop the running statements, and start no others."""
        self.is_cancelled = True
        # The engine sends this at the end of every run, mostly without a statement and so without the driver.
        running = list(self._open)
        if running:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(_stop, running))

    def refuse_when_cancelled(self) -> None:
        if self.is_cancelled:
            raise PostgresError("pq: canceling statement due to user request (57014)", "57014")

    @contextmanager
    def session(self, database: str = "", in_transaction: bool = True) -> Iterator[Session]:
        """The default of `database` is the provider's. In a transaction all statements take effect, or none."""
        import psycopg

        with self._slots:
            self.refuse_when_cancelled()
            connection = self._connect(database or self.settings["database"])
            self._open.add(connection)
            try:
                with connection.transaction() if in_transaction else nullcontext():
                    yield Session(self, connection)
            except psycopg.Error as error:
                raise PostgresError(f"could not commit transaction: pq: {error}", error.sqlstate or "") from None
            finally:
                self._open.discard(connection)
                connection.close()

    def _connect(self, database: str) -> Connection[Values]:
        import psycopg
        from psycopg.rows import dict_row

        settings = self.settings
        host, port = settings["host"] or "localhost", settings["port"]
        try:
            address = _loopback_address(host)
            return psycopg.connect(
                host=host,
                hostaddr=address,
                port=port,
                user=settings["username"],
                password=settings["password"],
                dbname=database,
                sslmode=settings["sslmode"],
                sslrootcert=settings["sslrootcert"] or None,
                gssencmode="disable",  # libpq would try it first where there is a Kerberos ticket
                connect_timeout=int(settings["connectTimeout"]) or None,
                application_name="Terraform provider",
                autocommit=True,
                row_factory=dict_row,
            )
        except psycopg.Error as error:
            reason, code = _connection_text(str(error), f"{address}:{port}")
        except OSError as error:
            reason, code = str(error), ""
        # Outside of the handlers, so that no chained exception holds the arguments of the driver.
        if settings["password"]:
            reason = reason.replace(settings["password"], "XXXX")
        raise PostgresError(f"error connecting to PostgreSQL server {host} (scheme: postgres): {reason}", code)


@dataclass(frozen=True)
class Session:
    """Statements on one connection; they raise `PostgresError`, with the text `failing` before the server's."""

    server: Server
    connection: Connection[Values]

    def run(self, statement: str, state: Values, *, failing: str = "") -> None:
        """Run a statement. `{key}` becomes the quoted name or names `state[key]`; `'{key}'` its quoted value."""
        from psycopg import sql

        def quoted(found: re.Match[str]) -> str:
            value = state[found["value"] or found["name"]]
            if found["value"]:
                return sql.Literal(value).as_string(self.connection)
            names = value if isinstance(value, list) else [value]
            return ", ".join(sql.Identifier(str(name)).as_string(self.connection) for name in names)

        self._execute(re.sub(r"'\{(?P<value>\w+)\}'|\{(?P<name>\w+)\}", quoted, statement), {}, failing)

    def rows(self, query: str, state: Values, *, failing: str = "") -> list[Values]:
        """Run a query and return its rows. `%(key)s` is the value `state[key]`."""
        return self._execute(query, state, failing)

    def _execute(self, statement: str, state: Values, failing: str) -> list[Values]:
        import psycopg

        self.server.refuse_when_cancelled()
        try:
            with self.connection.cursor() as cursor:
                # Without parameters psycopg leaves "%" alone.
                cursor.execute(statement.encode(), state or None)
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            code = error.sqlstate or ""
            text = f"pq: {error.diag.message_primary or str(error).strip()}" + (f" ({code})" if code else "")
        raise PostgresError(f"{failing}: {text}" if failing else text, code)


def make_read(what: str, query: str) -> Callable[[Session, Values], Values | None]:
    """Make the function that reads a resource: the columns of the one row of `query` are its properties."""

    def read(session: Session, known: Values) -> Values | None:
        found = session.rows(query, known, failing=f"error reading {what}")
        return known | found[0] if found else None

    return read


def make_update(what: str, statements: Mapping[str, str]) -> Callable[[Session, Values, Values], None]:
    """Make the function that updates a resource, with a statement for each property that has another value.

    Statements name the resource by `{oldName}` and the new name comes last, because outside of a transaction the next
    run looks for the old one. An emptied text is left as it is.
    """

    def update(session: Session, old: Values, new: Values) -> None:
        for key, statement in statements.items():
            if new[key] != old[key] and new[key] != "":
                failing = f"error updating {what} {terraform_name(key)}"
                session.run(statement, new | {"oldName": old["name"]}, failing=failing)

    return update


def _stop(connection: Connection[Values]) -> None:
    import psycopg

    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=2)


def _loopback_address(host: str) -> str:
    """The address of `host`, which must be on this machine, as the lab's servers are."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise OSError(f"dial tcp: lookup {host}: no such host") from None
    addresses = [str(entry[4][0]) for entry in found]
    outside = [address for address in addresses if not ipaddress.ip_address(address.split("%")[0]).is_loopback]
    if outside:
        raise OSError(
            "this postgresql plugin is the lab's stand-in and connects only to Postgres servers of this machine; "
            f"{host} is {outside[0]}"
        )
    # The lab's servers listen on IPv4.
    return next((address for address in addresses if "." in address), addresses[0])


def _connection_text(text: str, address: str) -> tuple[str, str]:
    """Turn libpq's many lines into lib/pq's one line; also return the SQLSTATE."""
    fatal = re.search(r"FATAL:\s+(.+)", text)
    if fatal:
        message = fatal[1].strip()
        code = next((code for words, code in FATAL_CODES.items() if words in message), "")
        return f"pq: {message} ({code})" if code else f"pq: {message}", code
    if "Connection refused" in text:
        return f"dial tcp {address}: connect: connection refused", ""
    if "timeout" in text.lower() or "timed out" in text.lower():
        return f"dial tcp {address}: i/o timeout", ""
    if "does not support SSL" in text:
        return "pq: SSL is not enabled on the server", ""
    return f"pq: {' '.join(text.split())}", ""
