"""The postgresql plugin as a process, against a real server: as recorded, and what the recording does not show."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg
import pytest
from google.protobuf import empty_pb2, message_factory
from pulumi.runtime.proto import engine_pb2_grpc, provider_pb2_grpc

from lab.operators import postgres
from lab.platform import ports
from lab.plugins.postgresql.wire import UNKNOWN, provider, read, status, write
from tests.lab.command_line import until

SERVICE = provider.DESCRIPTOR.services_by_name["ResourceProvider"]
PASSWORD = "superpw123"
APP_PASSWORD = "appPassw0rdLong"
ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "lab" / "plugins" / "bin" / "pulumi-resource-postgresql"
RECORDED = json.loads((ROOT / "tests/contract/recorded/pulumi/24-postgresql.json").read_text())["steps"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Place]:
    lab_dir = tmp_path_factory.mktemp("lab")
    lab_dir.chmod(0o700)
    place = postgres.Place(postgres.folder_of(lab_dir, "postgresql", "main"), ports.pick(()))
    postgres.create(place, {"localeCollate": "C.UTF-8", "localeCType": "C.UTF-8"}, PASSWORD)
    postgres.start(place)
    yield place
    postgres.stop_all(lab_dir)


def ask(place: postgres.Place, query: str, database: str = "postgres", **more: Any) -> Any:
    login = {"host": "127.0.0.1", "port": place.port, "user": "postgres", "password": PASSWORD, "sslmode": "disable"}
    with psycopg.connect(dbname=database, autocommit=True, **(login | more)) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else None


class Engine(engine_pb2_grpc.EngineServicer):
    """What the plugin needs of Pulumi's engine: its address, and its log."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.server = grpc.server(ThreadPoolExecutor(2))
        engine_pb2_grpc.add_EngineServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Log(self, request: Any, _: grpc.ServicerContext) -> Any:  # noqa: N802 - the name in the protocol
        self.messages.append((request.urn.rpartition("::")[2], request.message))
        return empty_pb2.Empty()


class Plugin:
    """The running plugin; `lab` is the folder with the lab's `target.json`."""

    def __init__(self, lab: Path, engine_address: str = "", **environment: str) -> None:
        backend = f"file://{lab}/backend"
        lab.mkdir(parents=True, exist_ok=True)
        (lab / "target.json").write_text(json.dumps({"file_backend": backend}))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "PULUMI_"))}
        given = {"OPS_STATE": str(lab.parent), "PULUMI_BACKEND_URL": backend}
        argv, env = [str(LAUNCHER), *filter(None, [engine_address])], inherited | given | environment
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(argv, cwd=lab, env=env, text=True, **pipes)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self._stub = provider_pb2_grpc.ResourceProviderStub(self.channel)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A request of the protocol, whose fields are the arguments."""
        (method,) = [method for method in SERVICE.methods if method.name == name]
        request = message_factory.GetMessageClass(method.input_type)
        return lambda **fields: getattr(self._stub, name)(request(**fields), timeout=30)

    def configure(self, port: int, password: str = PASSWORD) -> None:
        arguments = {"host": "localhost", "port": str(port), "username": "postgres", "password": password}
        arguments |= {"sslmode": "disable", "superuser": "true", "connectTimeout": "5"}
        checked = self.CheckConfig(urn=urn("x:Y", "pg"), news=write(arguments))
        assert not checked.failures and read(checked.inputs) == (arguments, {"password"})
        self.Configure(args=checked.inputs, acceptSecrets=True)

    def apply(self, kind: str, name: str, news: dict[str, Any], secrets: tuple[str, ...] = ()) -> Resource:
        """Check and create, as the engine does."""
        checked = self.Check(urn=urn(kind, name), news=write(news, secrets), randomSeed=b"seed")
        assert not checked.failures, checked.failures
        created = self.Create(urn=urn(kind, name), properties=checked.inputs)
        return Resource(self, urn(kind, name), created.id, checked.inputs, created.properties)

    def close(self) -> None:
        self.channel.close()
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


@dataclass
class Resource:
    """Something that was created, with the engine's record of it."""

    plugin: Plugin
    urn: str
    id: str
    inputs: Any
    outputs: Any

    def refresh(self) -> bool:
        """Whether it is still there."""
        live = self.plugin.Read(id=self.id, urn=self.urn, inputs=self.inputs, properties=self.outputs)
        self.outputs = live.properties if live.id else self.outputs
        return bool(live.id)

    def differences(self, **changes: Any) -> list[str]:
        answer = self.plugin.Diff(**self._old, news=self._news(changes))
        assert (answer.changes == provider.DiffResponse.DIFF_SOME) == bool(answer.diffs)
        return list(answer.diffs)

    def is_unchanged(self) -> bool:
        """Whether it is there as recorded, and as the program wants it."""
        return self.refresh() and self.differences() == []

    def update(self, **changes: Any) -> None:
        news = self._news(changes)
        self.outputs = self.plugin.Update(**self._old, news=news).properties
        self.inputs = news

    def delete(self) -> None:
        self.plugin.Delete(id=self.id, urn=self.urn, old_inputs=self.inputs, properties=self.outputs)

    @property
    def _old(self) -> dict[str, Any]:
        return {"id": self.id, "urn": self.urn, "old_inputs": self.inputs, "olds": self.outputs}

    def _news(self, changes: dict[str, Any]) -> Any:
        values, secrets = read(self.inputs)
        return write({key: value for key, value in (values | changes).items() if value is not None}, secrets)


def urn(kind: str, name: str) -> str:
    first = kind.partition(":")[0]
    return f"urn:pulumi:mx::sample::postgresql:index/{first}:{kind.partition(':')[2]}::{name}"


@pytest.fixture
def log() -> Iterator[Engine]:
    found = Engine()
    yield found
    found.server.stop(0).wait()


@pytest.fixture
def plugin(tmp_path: Path, place: postgres.Place, log: Engine) -> Iterator[Plugin]:
    with contextlib.closing(Plugin(tmp_path / "state" / "lab", log.address)) as found:
        found.configure(place.port)
        yield found


def recorded_creations() -> list[dict[str, Any]]:
    """Inputs, id and outputs of the resources of scenario 24, in the order of their creation."""
    events = [json.loads(line) for line in RECORDED[4]["stdout"].splitlines()]
    states = [event["resOutputsEvent"]["metadata"]["new"] for event in events if "resOutputsEvent" in event]
    return [state for state in states if state["type"].startswith("postgresql:index")]


def values_and_secrets(recorded: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """As `wire.read` gives them; the vendor's bookkeeping and the id, which the engine adds, are left out."""
    plain = {key: value for key, value in recorded.items() if key not in ("__pulumi_raw_state_delta", "id")}
    secrets = {key for key, value in plain.items() if isinstance(value, dict)}
    clear = {"password": APP_PASSWORD, "passwordWo": None}
    return plain | {key: clear[key] for key in secrets}, secrets


def recorded_failure(step: int) -> str:
    """The error of the request; the line of the log is the same text in another frame."""
    return RECORDED[step]["stdout"].split("error: 1 error occurred:\n    \t* ")[1].partition("\n")[0]


def test_creates_and_refreshes_and_deletes_as_recorded(plugin: Plugin, place: postgres.Place) -> None:
    made = []
    for state in recorded_creations():
        inputs, secrets = values_and_secrets(state["inputs"])
        kind, name = state["type"].rpartition("/")[2], state["urn"].rpartition("::")[2]
        given = {key: value for key, value in inputs.items() if key not in inputs["__defaults"] and key != "__defaults"}
        resource = plugin.apply(kind, name, given, tuple(secrets))
        made.append(resource)

        assert read(resource.inputs) == (inputs, secrets)
        assert resource.id == state["id"]
        outputs, secrets = values_and_secrets(state["outputs"])
        if "version" in outputs:
            outputs["version"] = ask(place, "select extversion from pg_extension where extname = 'vector'", "app")[0][0]
        assert read(resource.outputs) == (outputs, secrets)

    assert len(made) == 5
    for resource in made:
        before = read(resource.outputs)
        assert resource.differences() == []
        assert resource.refresh() and read(resource.outputs) == before
    assert ask(place, "select 1", "app", user="app", password=APP_PASSWORD) == [(1,)]
    assert APP_PASSWORD not in place.log.read_text() and "SCRAM-SHA-256" not in place.log.read_text()
    for resource in sorted(made, key=lambda one: ("Role" in one.urn, "Database" in one.urn)):
        resource.delete()
    for resource in made:
        resource.delete()
        assert not resource.refresh()
    assert ask(place, "select 1 from pg_roles where rolname = 'app'") == []


def fails(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(grpc.RpcError) as failure:
        call(*arguments, **named)
    assert failure.value.code() is grpc.StatusCode.UNKNOWN
    return str(failure.value.details())


def test_fails_as_recorded(plugin: Plugin, log: Engine, place: postgres.Place) -> None:
    database = plugin.apply("database:Database", "app", {"name": "app"})
    missing = {"name": "nope", "database": "app"}

    for step, name, kind, inputs in (
        (9, "vector", "extension:Extension", missing),
        (11, "again", "database:Database", {"name": "app"}),
    ):
        text = recorded_failure(step)
        assert fails(plugin.apply, kind, name, inputs) == f"1 error occurred:\n\t* {text}\n\n"
        line = f"  sdk-v2/provider2.go:571: sdk.helper_schema: {text}: provider=postgresql@3.18.2"
        assert log.messages[-1] == (name, line)

    plugin.configure(place.port, password="wrongpassword1")
    assert recorded_failure(15) in fails(plugin.apply, "extension:Extension", "vector", missing)
    refreshing = fails(database.refresh)
    assert refreshing.startswith(f"refreshing {database.urn}: 1 error occurred:\n\t* {recorded_failure(15)}")
    plugin.configure(9)
    assert recorded_failure(20) in fails(plugin.apply, "extension:Extension", "vector", missing)
    plugin.configure(place.port)
    database.delete()


def test_roles_change_in_place(plugin: Plugin, place: postgres.Place) -> None:
    group = plugin.apply("role:Role", "group", {"name": "group"})
    role = plugin.apply("role:Role", "one", {"login": True, "password": "first-password"}, ("password",))
    name = read(role.outputs)[0]["name"]
    assert name.startswith("one-") and role.id == name
    changes = {"searchPaths": ["a b", "public"], "statementTimeout": 5000, "roles": ["group"], "createDatabase": True}
    changes |= {"password": "second-password", "connectionLimit": 5, "validUntil": "2040-01-01 00:00:00+00"}

    assert set(role.differences(**changes)) == set(changes)
    role.update(**changes)
    assert role.is_unchanged()
    assert ask(place, "show search_path", user=name, password="second-password") == [('"a b", public',)]
    role.update(**dict.fromkeys(("searchPaths", "statementTimeout", "roles", "createDatabase")), name="renamed")
    assert role.is_unchanged()
    settings = "select rolconfig, rolcreatedb, rolconnlimit from pg_roles where rolname = 'renamed'"
    assert ask(place, settings) == [(None, False, 5)]

    ask(place, "alter role renamed nologin")
    assert role.refresh() and role.differences() == ["login"]
    role.delete()
    group.delete()


def test_databases_change_in_place(plugin: Plugin, place: postgres.Place) -> None:
    owner = plugin.apply("role:Role", "owner", {"name": "db-owner"})
    database = plugin.apply("database:Database", "one", {"name": "before", "encoding": "SQL_ASCII", "lcCollate": "C"})
    ask(place, "create table kept()", "before")
    changes = {"name": "after", "owner": "db-owner", "connectionLimit": 7, "isTemplate": True}

    database.update(**changes, alterObjectOwnership=False)
    assert database.is_unchanged() and read(database.outputs)[0]["encoding"] == "SQL_ASCII"
    looked_up = plugin.Read(id="after", urn=database.urn)
    assert read(looked_up.inputs)[0]["connectionLimit"] == 7
    database.delete()
    owner.delete()


def test_memberships_privileges_and_their_drift(plugin: Plugin, place: postgres.Place) -> None:
    reader = plugin.apply("role:Role", "reader", {"name": "reader"})
    owner = plugin.apply("role:Role", "owner", {"name": "owner2"})
    database = plugin.apply("database:Database", "more", {"name": "more", "owner": "owner2"})
    ask(place, "create table one(); create table two(); create function f(int) returns int return $1", "more")
    member = plugin.apply("grantRole:GrantRole", "m", {"role": "owner2", "grantRole": "reader"})
    common = {"role": "reader", "database": "more", "schema": "public"}
    tables = plugin.apply("grant:Grant", "t", common | {"objectType": "table", "privileges": ["ALL"]})
    one = {"objectType": "table", "privileges": ["SELECT", "INSERT"], "objects": ["one"], "role": "owner2"}
    single = plugin.apply("grant:Grant", "s", common | one | {"withGrantOption": True})
    function = {"objectType": "function", "privileges": ["EXECUTE"], "objects": ["f(int)"], "role": "public"}
    functions = plugin.apply("grant:Grant", "f", common | function)
    select = {"owner": "owner2", "objectType": "table", "privileges": ["SELECT"]}
    defaults = plugin.apply("defaultPrivileges:DefaultPrivileges", "d", common | select)
    assert (single.id, defaults.id) == ("owner2_more_public_table_one", "reader_more_public_owner2_table")
    made = [member, tables, single, functions, defaults]
    for resource in made:
        assert resource.is_unchanged()

    ask(place, "revoke insert on one from owner2", "more")
    assert single.refresh() and single.differences() == ["privileges"]
    single.update(privileges=["SELECT"])
    assert single.is_unchanged()
    ask(place, "alter default privileges for role owner2 in schema public revoke all on tables from reader", "more")
    assert not defaults.refresh()
    wrong = common | {"objectType": "schema", "privileges": ["SELECT"]}
    assert "SELECT is not an allowed privilege for object type schema" in fails(plugin.apply, "grant:Grant", "w", wrong)

    for resource in (*made, database, owner, reader):
        resource.delete()
    assert ask(place, "select rolname from pg_roles where rolname in ('reader', 'owner2')") == []


def test_a_database_that_cannot_be_read_afterwards_is_recorded(plugin: Plugin, place: postgres.Place) -> None:
    """A user who may create databases and not look at them."""
    ask(place, "create role maker login createdb password 'maker-password'; grant pg_signal_backend to maker")
    ask(place, "revoke select on pg_tablespace from public")
    arguments = {"host": "localhost", "port": str(place.port), "username": "maker", "password": "maker-password"}
    plugin.Configure(args=write(arguments | {"sslmode": "disable"}))
    try:
        with pytest.raises(grpc.RpcError) as failure:
            plugin.apply("database:Database", "half", {"name": "half"})
    finally:
        ask(place, "grant select on pg_tablespace to public")
    trailing = dict(failure.value.trailing_metadata())
    found = status.Status.FromString(trailing["grpc-status-details-bin"])
    partial = provider.ErrorResourceInitFailed()
    assert found.details[0].Unpack(partial) and partial.id == "half"
    assert "permission denied for table pg_tablespace" in partial.reasons[0]
    assert read(partial.properties)[0]["name"] == "half" and UNKNOWN not in read(partial.properties)[0].values()
    ask(place, "drop database half")
    ask(place, "drop role maker")


def test_a_cancellation_stops_what_runs(plugin: Plugin, place: postgres.Place) -> None:
    role = plugin.apply("role:Role", "busy", {"name": "busy"})
    with psycopg.connect(host="127.0.0.1", port=place.port, user="postgres", password=PASSWORD) as other:
        other.execute("alter role busy createdb")
        with ThreadPoolExecutor(1) as pool:
            blocked = pool.submit(fails, role.update, login=True)
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            until(lambda: ask(place, waiting) == [(1,)], "it waits", seconds=20)
            plugin.Cancel()
            assert "canceling statement due to user request (57014)" in blocked.result(timeout=10)
    assert "canceling statement due to user request (57014)" in fails(role.update, login=True)
    ask(place, "drop role busy")


def test_ends_with_a_signal(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        plugin = Plugin(tmp_path / "state" / "lab")
        plugin.process.send_signal(number)
        assert plugin.process.wait(timeout=10) == 0
        plugin.close()


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_ends_when_the_engine_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(LAUNCHER)], stdout=subprocess.PIPE, text=True) as parent:
        plugin = psutil.Process(int(parent.stdout.readline()))
        assert int(parent.stdout.readline())
        parent.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        plugin.wait(timeout=10)
    assert not plugin.is_running() or plugin.status() == psutil.STATUS_ZOMBIE


def test_another_backend_than_the_labs_is_refused(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path / "state" / "lab", PULUMI_BACKEND_URL="https://api.pulumi.com")

    (failure,) = plugin.CheckConfig(urn=urn("x:Y", "pg"), news=write({"host": "localhost"})).failures
    for text in (failure.reason, fails(plugin.Configure)):
        assert "seen: PULUMI_BACKEND_URL is https://api.pulumi.com" in text
        assert "pulumi plugin install resource postgresql" in text
    plugin.close()


def test_says_what_it_is(plugin: Plugin) -> None:
    assert plugin.GetPluginInfo().version == "3.18.2"
    assert plugin.Handshake(engine_address="127.0.0.1:1").accept_secrets
    schema = json.loads(plugin.GetSchema().schema)
    assert schema["resources"]["postgresql:index/grant:Grant"]["inputProperties"]["privileges"]["type"] == "array"
    with pytest.raises(grpc.RpcError) as failure:
        plugin.Invoke(tok="postgresql:index/getTables:getTables")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
