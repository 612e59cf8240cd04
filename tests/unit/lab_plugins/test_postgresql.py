"""The postgresql provider's rules, and which backend it serves, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.plugins.postgresql import properties as P  # noqa: N812 - short for many calls
from lab.plugins.postgresql.objects import DATABASE, EXTENSION
from lab.plugins.postgresql.privileges import DEFAULT_PRIVILEGES, GRANT
from lab.plugins.postgresql.role import ROLE
from lab.plugins.postgresql.server import PostgresError, Server, _connection_text, check_settings, read_settings
from lab.plugins.postgresql.service import RESOURCES, Provider, RequestFailed, refusal
from lab.plugins.postgresql.wire import SECRET_SIGNATURE, SIGNATURE, UNKNOWN, UNKNOWN_TEXT, provider, read, write

URN = "urn:pulumi:mx::sample::postgresql:index/role:Role::app"
Kind = provider.PropertyDiff


def kinds(diff: Any) -> dict[str, int]:
    return {path: one.kind for path, one in diff.detailedDiff.items()}


# -- checks ----------------------------------------------------------------------------------------------------------


def test_a_name_is_made_up_once_and_kept() -> None:
    first, failures = P.check(ROLE, "app", {}, {}, b"seed")
    again, _ = P.check(ROLE, "app", first, {}, b"other")
    assert failures == []
    assert first["name"].startswith("app-") and len(first["name"]) == len("app-") + 7
    assert again["name"] == first["name"]
    assert first["__defaults"] == ["connectionLimit", "encryptedPassword", "inherit", "name", "validUntil"]


@pytest.mark.parametrize(
    ("resource", "inputs", "reason"),
    [
        (GRANT, {"role": "a", "objectType": "table", "privileges": []}, 'The argument "database" is required'),
        (ROLE, {"name": "a", "connectionLimit": -2}, "expected connection_limit to be at least (-1), got -2"),
        (ROLE, {"name": "a", "colour": "red"}, "Invalid or unknown key. Examine values at 'app.colour'."),
        (ROLE, {"name": 5}, "expected a string, got a int"),
        (ROLE, {"name": "a", "connectionLimit": True}, "expected a integer, got a bool"),
        (ROLE, {"name": "a", "encrypted": "yes"}, "'encrypted' is not supported by the lab's stand-in"),
        (GRANT, {"role": "a", "database": "d", "objectType": "x", "privileges": []}, "expected object_type to be one"),
    ],
)
def test_wrong_inputs_are_refused(resource: P.Resource, inputs: dict[str, object], reason: str) -> None:
    _, (failure,) = P.check(resource, "app", {}, inputs, b"")
    assert reason in failure


def test_an_unknown_input_passes() -> None:
    assert P.check(DATABASE, "app", {}, {"name": "a", "owner": UNKNOWN}, b"")[1] == []


# -- differences -----------------------------------------------------------------------------------------------------


def test_a_renamed_database_stays_and_a_renamed_extension_is_replaced_first_deleted() -> None:
    renamed = P.diff(DATABASE, {"name": "a"}, {"name": "b", "allowConnections": False}, ())
    replaced = P.diff(EXTENSION, {"name": "a"}, {"name": "b", "__defaults": []}, ())
    assert (list(renamed.replaces), list(renamed.diffs)) == ([], ["name"])
    assert (list(replaced.replaces), replaced.deleteBeforeReplace) == (["name"], True)
    assert kinds(replaced) == {"name": Kind.UPDATE_REPLACE}


def test_an_unknown_value_counts_as_another_one() -> None:
    old = {"database": "a", "privileges": ["CONNECT"]}
    diff = P.diff(GRANT, old, {"database": UNKNOWN, "privileges": ["CONNECT"]}, ())
    assert list(diff.replaces) == ["database"] and diff.deleteBeforeReplace


def test_privileges_are_a_set() -> None:
    old = {"privileges": ["A", "B"]}
    assert kinds(P.diff(DEFAULT_PRIVILEGES, old, {"privileges": ["B", "A"]}, ())) == {}
    assert set(kinds(P.diff(DEFAULT_PRIVILEGES, old, {"privileges": ["A", "C"]}, ()))) == {"privileges[1]"}
    assert kinds(P.diff(DEFAULT_PRIVILEGES, old, {"privileges": ["A"]}, ())) == {"privileges[1]": Kind.DELETE}


def test_ignored_and_write_only_properties_are_no_difference() -> None:
    old = {"login": True, "passwordWo": None}
    assert kinds(P.diff(ROLE, old, {"login": False, "passwordWo": "x"}, ())) == {"login": Kind.UPDATE}
    assert kinds(P.diff(ROLE, old, {"login": False, "passwordWo": "x"}, ["login"])) == {}


def test_inputs_follow_the_outputs() -> None:
    assert P.follow(
        ROLE, {"name": "a", "login": True}, {"name": "a", "login": True}, {"name": "a", "login": False}
    ) == {
        "name": "a",
        "login": False,
    }
    assert P.follow(ROLE, {}, {}, {"name": "a", "roles": None, "login": True}) == {"name": "a", "login": True}


# -- configuration and errors ----------------------------------------------------------------------------------------


def test_settings_come_from_arguments_then_from_the_environment() -> None:
    environment = {"PGUSER": "me", "PGPORT": "1", "PGSSLMODE": "disable"}
    settings = read_settings({"host": "localhost", "port": "6000", "superuser": True}, environment)
    assert settings["host"] == "localhost" and settings["port"] == "6000"
    assert settings["username"] == "me" and settings["sslmode"] == "disable" and settings["connectTimeout"] == "180"


def test_settings_of_others_are_refused() -> None:
    (failure,) = check_settings({"ts_hostname": "x"})
    assert "Check `pulumi config get postgresql:ts_hostname`" in failure
    assert check_settings({"host": "x", "port": "5432", "version": "3.18.2", "sslmode": "disable"}) == []
    assert check_settings({"host": UNKNOWN, "port": UNKNOWN}) == []
    assert len(check_settings({"awsRdsIamAuth": "true", "port": "high", "sslmode": "maybe"})) == 3


def test_only_servers_of_this_machine_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.0.0.1", 0))])
    server = Server(read_settings({"host": "db.example", "password": "pw-not-shown"}, {}))
    with pytest.raises(PostgresError, match=r"only to Postgres servers of this machine; db\.example is 10\.0\.0\.1"):
        server._connect("postgres")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connection to server at x failed: Connection refused", "dial tcp 127.0.0.1:9: connect: connection refused"),
        (
            'x FATAL:  password authentication failed for user "a"',
            'pq: password authentication failed for user "a" (28P01)',
        ),
        ("server does not support SSL, but SSL was required", "pq: SSL is not enabled on the server"),
        ("connection timeout expired", "dial tcp 127.0.0.1:9: i/o timeout"),
        ('x FATAL:  database "d" does not exist', 'pq: database "d" does not exist (3D000)'),
        ('x FATAL:  role "a" does not exist', 'pq: role "a" does not exist (28000)'),
        ("x FATAL:  the database system is starting up", "pq: the database system is starting up (57P03)"),
        ("x FATAL:  the database system is in recovery mode", "pq: the database system is in recovery mode (57P03)"),
        ('x FATAL:  permission denied for database "d"', 'pq: permission denied for database "d" (42501)'),
        (
            'x FATAL:  database "d" is not currently accepting connections',
            'pq: database "d" is not currently accepting connections (55000)',
        ),
    ],
)
def test_connection_errors_read_like_the_real_ones(text: str, expected: str) -> None:
    assert _connection_text(text, "127.0.0.1:9")[0] == expected


# -- messages --------------------------------------------------------------------------------------------------------


def test_values_survive_the_wire() -> None:
    values = {"text": "a", "number": -1, "flag": True, "none": None, "list": ["a", UNKNOWN], "unknown": UNKNOWN}
    assert read(write(values, {"text", "none"})) == (values, {"text", "none"})


def test_a_secret_inside_makes_the_property_secret() -> None:
    message = write({"roles": ["a"]})
    message.update({"roles": ["a", {SIGNATURE: SECRET_SIGNATURE, "value": "b"}]})
    message.update({"owner": {SIGNATURE: "d0e6a833031e9bbcd3f4e8bde6ca49a4", "secret": True}})
    assert read(message) == ({"roles": ["a", "b"], "owner": UNKNOWN}, {"roles", "owner"})
    assert write({"owner": UNKNOWN})["owner"] == UNKNOWN_TEXT


def test_a_preview_of_a_create_knows_what_is_given_and_needs_no_server() -> None:
    inputs, _ = P.check(ROLE, "app", {}, {"name": "app", "password": "pw", "passwordWo": "x"}, b"")
    request = provider.CreateRequest(urn=URN, properties=write(inputs, {"password"}), preview=True)
    outputs, secrets = read(Provider({}).Create(request).properties)
    assert (outputs["name"], outputs["password"], outputs["passwordWo"]) == ("app", "pw", None)
    assert secrets == {"password", "passwordWo"}


def test_a_type_that_the_vendor_has_and_the_lab_has_not_is_named() -> None:
    request = provider.CheckRequest(urn=URN.replace("role:Role", "publication:Publication"))
    with pytest.raises(RequestFailed, match="'postgresql:index/publication:Publication' is not supported"):
        Provider({}).Check(request)


CLOUD = "http://127.0.0.1:8400"


def test_every_resource_type_has_an_id() -> None:
    state = {"role": "r", "grantRole": "g", "database": "d", "owner": "o", "name": "n", "objectType": "schema"}
    lists = {"objects": [], "columns": []}
    found = {P.identity(one, state | lists | {"schema": "s", "withAdminOption": True}) for one in RESOURCES.values()}
    assert found == {"n", "d.n", "r_d_s_schema", "r_g_true", "r_d_s_o_schema"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a shell after `lab.env`."""
    lab = tmp_path / "state" / "lab"
    lab.mkdir(parents=True)
    (lab / "target.json").write_text(json.dumps({"backend": CLOUD, "file_backend": f"file://{lab}/backend"}))
    return {"OPS_STATE": str(tmp_path / "state"), "PULUMI_BACKEND_URL": CLOUD}


def test_the_backends_of_the_lab_are_served(environment: dict[str, str]) -> None:
    files = f"file://{environment['OPS_STATE']}/lab/backend"
    assert refusal(environment) == ""
    assert refusal(environment | {"PULUMI_BACKEND_URL": files}) == ""


@pytest.mark.parametrize("other", ["", "file:///srv/stacks", "https://api.pulumi.com", "http://127.0.0.1:84000"])
def test_another_backend_is_refused(environment: dict[str, str], other: str) -> None:
    text = refusal(environment | {"PULUMI_BACKEND_URL": other})
    assert f"seen: PULUMI_BACKEND_URL is {other or 'not set'}" in text
    assert f"OPS_STATE={environment['OPS_STATE']}" in text
    assert "pulumi plugin install resource postgresql" in text


@pytest.mark.parametrize("state", ["", "/nowhere"])
def test_without_a_lab_nothing_is_served(environment: dict[str, str], state: str) -> None:
    assert refusal(environment | {"OPS_STATE": state})


def test_a_damaged_target_is_a_refusal(environment: dict[str, str]) -> None:
    (Path(environment["OPS_STATE"]) / "lab" / "target.json").write_text("[")
    assert refusal(environment)
