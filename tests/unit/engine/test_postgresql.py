"""The postgresql provider's rules, without a server."""

from __future__ import annotations

import pytest

from lab.engine.providers.postgresql import properties as P  # noqa: N812 - a table of shapes
from lab.engine.providers.postgresql.connection import PostgresError, Server, _connection_text
from lab.engine.providers.postgresql.settings import Settings, check_settings, read_settings
from lab.engine.values import UNKNOWN, Secret

URN = "urn:pulumi:mx::sample::postgresql:index/role:Role::app"


def test_a_name_is_made_up_once_and_kept() -> None:
    first = P.check(P.ROLE, URN, None, {}, b"seed").inputs
    again = P.check(P.ROLE, URN, first, {}, b"other").inputs

    assert first["name"].startswith("app-") and len(first["name"]) == len("app-") + 7
    assert again["name"] == first["name"]
    assert first["__defaults"] == ["connectionLimit", "encryptedPassword", "inherit", "name", "validUntil"]


@pytest.mark.parametrize(
    ("shape", "inputs", "reason"),
    [
        (P.GRANT, {"role": "a", "objectType": "table", "privileges": []}, 'The argument "database" is required'),
        (P.ROLE, {"name": "a", "connectionLimit": -2}, "expected connection_limit to be at least (-1), got -2"),
        (P.ROLE, {"name": "a", "colour": "red"}, "Invalid or unknown key. Examine values at 'app.colour'."),
        (P.ROLE, {"name": 5}, "expected a string, got a int"),
        (
            P.GRANT,
            {"role": "a", "database": "d", "objectType": "x", "privileges": []},
            "expected object_type to be one",
        ),
    ],
)
def test_wrong_inputs_are_told(shape: P.Shape, inputs: dict[str, object], reason: str) -> None:
    (failure,) = P.check(shape, URN, None, inputs, b"").failures

    assert reason in failure.reason


def test_what_the_server_decided_is_no_difference() -> None:
    old = {"name": "app", "owner": "postgres", "encoding": "UTF8", "connectionLimit": -1, "allowConnections": True}

    assert not P.diff(P.DATABASE, old, {"name": "app", "connectionLimit": -1, "allowConnections": True}, ()).changes


def test_a_renamed_database_stays_and_a_renamed_extension_is_replaced_first_deleted() -> None:
    renamed = P.diff(P.DATABASE, {"name": "a"}, {"name": "b", "allowConnections": False}, ())
    replaced = P.diff(P.EXTENSION, {"name": "a"}, {"name": "b", "__defaults": []}, ())

    assert (renamed.replaces, renamed.diffs) == ((), ("name",))
    assert (replaced.replaces, replaced.delete_before_replace) == (("name",), True)


def test_an_unknown_value_counts_as_another_one() -> None:
    diff = P.diff(
        P.GRANT, {"database": "a", "privileges": ["CONNECT"]}, {"database": UNKNOWN, "privileges": ["CONNECT"]}, ()
    )

    assert diff.replaces == ("database",) and diff.delete_before_replace


def test_privileges_are_a_set() -> None:
    old = {"privileges": ["A", "B"]}

    assert not P.diff(P.DEFAULT_PRIVILEGES, old, {"privileges": ["B", "A"]}, ()).changes
    changed = P.diff(P.DEFAULT_PRIVILEGES, old, {"privileges": ["A", "C"]}, ()).detailed_diff
    assert {path: one.kind for path, one in changed.items()} == {"privileges[1]": "delete"} or set(changed) == {
        "privileges[1]"
    }


def test_settings_come_from_arguments_then_from_the_environment() -> None:
    settings = read_settings(
        {"host": "localhost", "port": "6000"}, {"PGUSER": "me", "PGPORT": "1", "PGSSLMODE": "disable"}
    )

    assert (settings.host, settings.port, settings.username, settings.sslmode) == ("localhost", 6000, "me", "disable")
    assert read_settings({"host": UNKNOWN}, {}).host is None
    assert "secretpw" not in repr(read_settings({"password": Secret("secretpw")}, {}))


def test_settings_of_others_are_refused() -> None:
    (failure,) = check_settings({"ts_hostname": "x"})

    assert "Check `pulumi config get postgresql:ts_hostname`" in failure.reason
    assert check_settings({"host": "x", "port": "5432", "version": "3.18.2", "sslmode": "disable"}) == ()


def test_only_servers_of_this_machine_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.0.0.1", 5432))])
    server = Server(Settings(host="db.example", password="pw-not-told"))

    with pytest.raises(
        PostgresError, match=r"reaches only Postgres servers of this machine; db\.example is 10\.0\.0\.1"
    ):
        server._connect("postgres")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("connection to server at x failed: Connection refused", "dial tcp 127.0.0.1:9: connect: connection refused"),
        (
            'x FATAL:  password authentication failed for user "a"',
            'pq: password authentication failed for user "a" (28P01)',
        ),
        ("server does not support SSL, but SSL was required", "pq: SSL is not enabled on the server"),
        ("connection timeout expired", "dial tcp 127.0.0.1:9: i/o timeout"),
        ('x FATAL:  database "d" does not exist', 'pq: database "d" does not exist (3D000)'),
    ],
)
def test_connection_errors_read_like_the_real_ones(text: str, told: str) -> None:
    assert _connection_text(text, "127.0.0.1:9") == told
