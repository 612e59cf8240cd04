"""SQL failures: the cause named, the password never."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from runbooks.checks import sql

PASSWORD = "hunter2-hunter2"


@pytest.fixture
def impostor() -> Iterator[int]:
    """A server that takes the connection and asks for the password in plaintext, as a thief would."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(5)
                        first = connection.recv(1024)
                        if first[4:8] == b"\x04\xd2\x16\x2f":  # SSLRequest
                            connection.sendall(b"N")
                            connection.recv(1024)
                        connection.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")  # AuthenticationCleartextPassword
                        heard.append(connection.recv(1024))
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert all(PASSWORD.encode() not in text for text in heard)


def login(port: int, **changes: str) -> sql.Login:
    return sql.Login(**{"host": "127.0.0.1", "port": port, "user": "postgres", "password": PASSWORD} | changes)


def test_a_server_that_wants_the_password_in_plaintext_does_not_get_it(impostor: int) -> None:
    with pytest.raises(sql.SqlFailed) as caught:
        sql.select_version(login(impostor))
    assert "SCRAM" in caught.value.cause


@pytest.mark.parametrize(("host", "cause"), [("127.0.0.1", "nothing listens"), ("no.such.host.invalid", "ts_hostname")])
def test_nobody_at_the_address(host: str, cause: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(sql.SqlFailed) as caught:
        sql.select_version(login(port, host=host))
    assert cause in caught.value.cause
    assert PASSWORD not in caught.value.reason


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ('FATAL:  password authentication failed for user "postgres"', "not the server's"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "pg_hba"),
        ('FATAL:  role "n8n" is not permitted to log in', "may not log in"),
        ('FATAL:  permission denied for database "n8n"', "may not log in"),
        ("connection timeout expired", "ACLs"),
        ("timed out", "ACLs"),
        ('FATAL:  database "postgres" does not exist', "not the expected one"),
        ("FATAL:  the database system is starting up", "still starting"),
        ("server closed the connection unexpectedly", "not Postgres"),
        ("something new", ""),
        (f"bad password {PASSWORD}", ""),
    ],
)
def test_what_a_refusal_means(said: str, cause: str) -> None:
    import psycopg

    failure = sql._failure(psycopg.OperationalError(f"connection failed:\n{said}\n"), login(1))
    assert cause in failure.cause
    assert PASSWORD not in failure.reason
    assert PASSWORD not in repr(login(1))
