"""SQL checks: one query on a live PostgreSQL, without starting a process."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    import psycopg

CONNECT_TIMEOUT = 5
"""Seconds; libpq takes at least 2."""
STATEMENT_TIMEOUT = 5000
"""Milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """Where to connect and as whom."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str = "postgres"


class SqlFailed(Exception):
    """The query failed. `reason` is the first line of the server's or libpq's message, without the password."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause


_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"password authentication failed",
        "Postgres auth error: the exported password is not the server's; was the Secret changed outside its stack?",
    ),
    (
        r"not permitted to log in|permission denied for database",
        "Postgres auth error: the role may not log in, or not to this database; was it changed outside its stack?",
    ),
    (r"no pg_hba.conf entry", "Postgres auth error: pg_hba does not let this user in from this address"),
    (
        r"requested authentication|require_auth|authentication method requirement",
        "the server asks for the password by another method than SCRAM: it is not the expected server",
    ),
    (
        r"could not translate|resolve host|Name or service not known|nodename nor servname",
        "the name does not resolve: verify ts_hostname and that the tailnet has MagicDNS",
    ),
    (r"Connection refused", "nothing listens there: verify ts_hostname, port and the Service's endpoints"),
    (r"time(d )?out", "no answer: verify the tailnet's ACLs, the proxy Pod and the Service's endpoints"),
    (r"database .* does not exist", "the server is there, but it is not the expected one"),
    (r"the database system is starting up|not yet accepting", "Postgres is still starting"),
    (r"server closed the connection", "what listens there is not Postgres, or it restarts"),
)


def select_version(login: Login) -> str:
    """`select version()`. Raises `SqlFailed`."""
    return str(select_row(login, "select version()")[0])


def may_create_tables(login: Login) -> bool:
    """Whether the login may create tables in `public`, the schema that every app uses. Raises `SqlFailed`."""
    return bool(select_row(login, "select has_schema_privilege('public', 'CREATE')")[0])


def select_row(login: Login, statement: LiteralString) -> tuple[object, ...]:
    """The first row. Raises `SqlFailed`.

    The password is sent as a SCRAM proof only: a server that asks for it in plaintext or as MD5 does not get it.
    """
    import psycopg

    try:
        with connect(login) as connection:
            row = connection.execute(statement).fetchone()
    except psycopg.Error as error:
        raise _failure(error, login) from None
    if row is None:
        raise SqlFailed("the query returned no row", "what listens there is not Postgres")
    return row


def connect(login: Login) -> psycopg.Connection[tuple[object, ...]]:
    """A connection with short time-outs. Raises `psycopg.Error`."""
    import psycopg

    return psycopg.connect(
        host=login.host,
        port=login.port,
        user=login.user,
        password=login.password,
        dbname=login.database,
        connect_timeout=CONNECT_TIMEOUT,
        require_auth="scram-sha-256",
        application_name="homelab-ops verify",
        options=f"-c statement_timeout={STATEMENT_TIMEOUT}",
    )


def _failure(error: psycopg.Error, login: Login) -> SqlFailed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[-1] if lines else type(error).__name__).replace(login.password or "\0", "[secret]")
    whole = " ".join(lines)
    cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, whole, re.IGNORECASE)), "")
    return SqlFailed(reason, cause)
