"""The lab's cloud as the backend of the real CLIs: environments bound to stacks, and every command of the handbook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract import scratch
from tests.contract.scratch import Scratch

PASSWORD = 'pässword-with "quotes" and\nlines'
NAME = "organization/app/prod"
UP = ("up", "-s", "mx", "--yes", "--skip-preview")

PRODUCER = """
import pulumi
config = pulumi.Config()
pulumi.export("host", "db.svc")
pulumi.export("port", 5432)
pulumi.export("on", True)
pulumi.export("nothing", None)
pulumi.export("hosts", ["a", "b"])
pulumi.export("password", config.require_secret("password"))
pulumi.export("pin", pulumi.Output.secret(123456))
pulumi.export("login", pulumi.Output.secret({"user": "me", "password": "from-a-map"}))
"""
DEFINITION = """\
values:
  stacks:
    fn::open::pulumi-stacks:
      stacks:
        postgresql:
          stack: postgresql/mx
  mine: {fn::secret: mine-alone}
  pulumiConfig:
    host: ${stacks.postgresql.host}
    postgresql:port: ${stacks.postgresql.port}
    postgresql:password: ${stacks.postgresql.password}
    on: ${stacks.postgresql.on}
    pin: ${stacks.postgresql.pin}
    hosts: ${stacks.postgresql.hosts}
    login: ${stacks.postgresql.login}
    url: postgres://${mine}@${stacks.postgresql.host}
    ratio: 1.5
    whole: 2.0
    json: {"fn::toJSON": ["${stacks.postgresql.host}", "${mine}"]}
  environmentVariables:
    PLAIN_ONE: plain-text
    SECRET_ONE: ${mine}
    NUMBER: 5432
    FLAG: true
  files:
    A_FILE: "content of ${mine}"
"""
KEYS = ("host", "on", "pin", "hosts", "login", "url", "ratio", "whole", "json")
CONSUMER = f"""
import os, pulumi
config, postgresql = pulumi.Config(), pulumi.Config("postgresql")
pulumi.export("values", {{key: config.get(key) for key in {KEYS!r}}})
pulumi.export("port", postgresql.get("port"))
pulumi.export("password", postgresql.require_secret("password"))
pulumi.export("variables", {{key: os.environ.get(key) for key in ("PLAIN_ONE", "NUMBER", "FLAG")}})
pulumi.export("secret-variable", len(os.environ["SECRET_ONE"]))
path = os.environ["A_FILE"]
pulumi.export("file", [oct(os.stat(path).st_mode)[-3:], len(open(path).read())])
print("a variable: " + os.environ["SECRET_ONE"])
print("of a map: " + config.require_object("login")["password"])
print("a file: " + open(path).read())
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    """With the stack `postgresql/mx`, updated, and the environment `app/prod` that reads it."""
    with scratch.open_scratch(tmp_path_factory.mktemp("cloud")) as opened:
        producer = opened.in_project("postgresql", PRODUCER)
        producer.must("stack", "init", "mx")
        producer.must("config", "set", "--secret", "password", "-s", "mx", stdin=PASSWORD)
        producer.must(*UP)
        producer.must("env", "init", NAME, "--file", "-", stdin=DEFINITION)
        yield opened


@pytest.fixture(autouse=True)
def every_route_is_there(cloud: Scratch) -> Iterator[None]:
    yield
    assert cloud.refused == []


@pytest.fixture(scope="module")
def consumer(cloud: Scratch) -> Scratch:
    """The stack `consumer/mx`, bound to `app/prod`."""
    consumer = cloud.in_project("consumer", CONSUMER)
    consumer.must("stack", "init", "mx")
    (consumer.folder / "Pulumi.mx.yaml").write_text("# mine\nconfig:\n  consumer:own: value # why\n")
    consumer.must("config", "env", "add", "app/prod", "--yes", "-s", "mx")
    return consumer


@dataclass(frozen=True)
class Applied:
    printed: str
    outputs: dict[str, Any]


@pytest.fixture(scope="module")
def applied(consumer: Scratch) -> Applied:
    """One update of the consumer."""
    printed = consumer.must(*UP)
    return Applied(printed, json.loads(consumer.must("stack", "output", "--json", "-s", "mx", "--show-secrets")))


def test_binding_keeps_the_rest_of_the_file(consumer: Scratch) -> None:
    text = (consumer.folder / "Pulumi.mx.yaml").read_text()
    assert text == "# mine\nconfig:\n  consumer:own: value # why\nenvironment:\n  - app/prod\n"


def test_values_variables_and_files_reach_the_program(applied: Applied) -> None:
    outputs = applied.outputs
    assert outputs["values"] == {
        "host": "db.svc", "on": "true", "pin": "123456", "hosts": '["a","b"]',
        "login": '{"password":"from-a-map","user":"me"}', "url": "postgres://mine-alone@db.svc",
        "ratio": "1.5", "whole": "2", "json": '["db.svc","mine-alone"]',
    }  # fmt: skip
    assert (outputs["port"], outputs["password"]) == ("5432", PASSWORD)
    assert outputs["variables"] == {"PLAIN_ONE": "plain-text", "NUMBER": "5432", "FLAG": "true"}
    assert outputs["secret-variable"] == len("mine-alone")
    assert outputs["file"] == ["600", len("content of mine-alone")]


def test_secrets_are_masked_in_the_output_and_sealed_in_the_store(applied: Applied, cloud: Scratch) -> None:
    assert all(f"{what}: [secret]" in applied.printed for what in ("a variable", "of a map", "a file"))
    secrets = [secret.encode() for secret in ("mine-alone", "from-a-map", json.dumps(PASSWORD)[1:-1])]
    kept = [path for path in (cloud.root / "cloud").rglob("*") if path.is_file()]
    # The program exported texts that are not secret to the engine any more.
    stored = [path for path in kept if "consumer" not in path.parts]
    assert len(stored) > 8
    assert [path for path in stored if any(secret in path.read_bytes() for secret in secrets)] == []


def test_the_history_names_the_environment_and_holds_no_secret(applied: Applied, cloud: Scratch) -> None:
    (update,) = cloud.caller.get("/api/stacks/organization/consumer/mx/updates")["updates"]
    assert update["environment"]["stack.environments"] == '[{"id":"app/prod"}]'
    assert update["config"]["consumer:host"] == {"string": "db.svc", "secret": False, "object": False}
    assert update["config"]["postgresql:password"]["secret"] is True
    assert not any(secret in json.dumps(update) for secret in ("mine-alone", "from-a-map"))


def test_text_keeps_its_secrecy_and_the_stack_overrides(consumer: Scratch) -> None:
    seen = json.loads(consumer.must("config", "--json", "-s", "mx", "--open"))
    assert {key.partition(":")[2] for key, one in seen.items() if one["secret"]} == {"login", "url", "json", "password"}
    consumer.must("config", "set", "host", "own.svc", "-s", "mx")
    shown = json.loads(consumer.must("config", "--json", "-s", "mx", "--show-secrets"))
    consumer.must("config", "rm", "host", "-s", "mx")
    assert shown["consumer:host"] == {"value": "own.svc", "secret": False}
    assert shown["postgresql:password"] == {"value": PASSWORD, "secret": True}


def test_a_definition_in_the_stack_file_imports_the_environment(cloud: Scratch) -> None:
    inline = cloud.in_project("inline", "")
    inline.must("stack", "init", "mx")
    own = "environment:\n  imports: [app/prod]\n  values: {pulumiConfig: {host: inline}}\n"
    (inline.folder / "Pulumi.mx.yaml").write_text(own)
    seen = json.loads(inline.must("config", "--json", "-s", "mx", "--open"))
    assert (seen["inline:host"]["value"], seen["inline:on"]["value"]) == ("inline", "true")


def test_config_becomes_an_environment(cloud: Scratch) -> None:
    moved = cloud.in_project("moved", "")
    moved.must("stack", "init", "mx")
    moved.must("config", "set", "--secret", "word", "-s", "mx", stdin="hidden-word")
    moved.must("config", "env", "init", "--yes", "-s", "mx")
    assert "hidden-word" not in moved.must("env", "get", "organization/moved/mx", "--definition")
    shown = json.loads(moved.must("config", "--json", "-s", "mx", "--show-secrets"))
    assert shown == {"moved:word": {"value": "hidden-word", "secret": True}}
    assert "config:" not in (moved.folder / "Pulumi.mx.yaml").read_text()


@pytest.fixture
def env(cloud: Scratch) -> Iterator[str]:
    """An environment for one test, in its second revision."""
    cloud.must("env", "init", "organization/app/one", "--file", "-", stdin="values: {a: 1, s: {fn::secret: hidden}}")
    yield "organization/app/one"
    cloud.must("env", "rm", "organization/app/one", "--yes")


def test_revisions_have_names_and_differences(cloud: Scratch, env: str) -> None:
    cloud.must("env", "set", env, "a", "2")
    cloud.must("env", "version", "tag", f"{env}@stable", "@2")
    listed = cloud.must("env", "version", "tag", "ls", env)
    assert all(name in listed for name in ("latest", "stable"))
    assert cloud.must("env", "open", f"{env}@stable", "a", "--format", "string") == "1\n"
    changed = cloud.must("env", "diff", f"{env}@stable")
    assert f"--- {env}@stable" in changed
    cloud.must("env", "version", "rollback", f"{env}@stable")
    assert cloud.must("env", "open", env, "a", "--format", "string") == "1\n"
    cloud.must("env", "version", "tag", "rm", f"{env}@stable")
    assert "revision 4 (tag: latest)" in cloud.must("env", "version", "history", env)
    refused = cloud.run("pulumi", "env", "version", "tag", f"{env}@stable", "@none")
    assert (refused.returncode, "[404]" in refused.stderr) == (1, True)


def test_a_clone_is_an_environment_of_its_own(cloud: Scratch, env: str) -> None:
    cloud.must("env", "tag", env, "team", "me")
    cloud.must("env", "clone", env, "copy/bare")
    cloud.must("env", "clone", env, "copy/whole", "--preserve-history", "--preserve-env-tags")
    cloud.must("env", "set", env, "a", "2")
    opened = {name: json.loads(cloud.must("env", "open", f"organization/copy/{name}")) for name in ("bare", "whole")}
    assert opened["bare"] == opened["whole"] == {"a": 1, "s": "hidden"}
    assert "revision 2 (tag: latest)" in cloud.must("env", "version", "history", "organization/copy/whole")
    assert "me" in cloud.must("env", "tag", "ls", "organization/copy/whole")
    assert "revision 1 (tag: latest)" in cloud.must("env", "version", "history", "organization/copy/bare")
    taken = cloud.run("pulumi", "env", "clone", env, "copy/bare")
    assert (taken.returncode, "[409] Conflict" in taken.stderr) == (1, True)


def test_an_edit_from_elsewhere_in_between_is_not_lost(cloud: Scratch, env: str) -> None:
    """The editor here lets another writer in first."""
    editor = cloud.root / "editor"
    pulumi = cloud.argv("pulumi")[0]
    editor.write_text(f"#!/bin/sh\n'{pulumi}' env set {env} a 3 && echo '# mine' >> \"$1\"\n")
    editor.chmod(0o755)
    late = cloud.run("pulumi", "env", "edit", env, env={"EDITOR": str(editor)})
    assert "Environment updated" not in late.stdout
    assert "changed after it was read" in late.stderr or "[409] Conflict" in late.stderr
    assert cloud.must("env", "open", env, "a", "--format", "string") == "3\n"


@pytest.fixture(scope="module")
def stack(cloud: Scratch) -> Scratch:
    """The stack `tried/mx` with resources, one the parent of another, and a secret output."""
    program = """
import pulumi
class Part(pulumi.ComponentResource):
    pass
first = Part("sample:index:Part", "first")
second = Part("sample:index:Part", "second", opts=pulumi.ResourceOptions(parent=first))
Part("sample:index:Part", "third", opts=pulumi.ResourceOptions(depends_on=[second]))
pulumi.export("word", pulumi.Config().require_secret("word"))
"""
    tried = cloud.in_project("tried", program)
    tried.must("stack", "init", "mx")
    tried.must("config", "set", "--secret", "word", "-s", "mx", stdin="hidden-word")
    tried.must(*UP)
    return tried


COMMANDS = """
whoami --json
about --json
stack
stack select mx
stack ls --all --json
stack tag set a b
stack tag ls --json
stack history --json --show-secrets
stack output --json --show-secrets
stack graph graph.dot
config refresh --force
preview --diff --expect-no-changes
refresh --yes --skip-preview --json
stack change-secrets-provider default
state unprotect --all --yes
login
logout
env ls --output json
"""


@pytest.mark.parametrize("command", COMMANDS.strip().splitlines())
def test_a_command_of_the_handbook_has_its_routes(stack: Scratch, command: str) -> None:
    stack.must(*command.split())


def test_an_exported_state_is_imported(stack: Scratch, tmp_path: Path) -> None:
    stack.must("stack", "export", "--file", str(tmp_path / "state"), "-s", "mx")
    stack.must("stack", "import", "--file", str(tmp_path / "state"), "-s", "mx")
    assert stack.stack("tried", "mx")["activeUpdate"] == ""
    stack.must("stack", "export", "--version", "1", "-s", "mx")


def test_a_renamed_stack_keeps_its_resources_and_secrets(stack: Scratch) -> None:
    stack.must("stack", "rename", "my", "-s", "mx")
    assert stack.must("stack", "output", "word", "--show-secrets", "-s", "my") == "hidden-word\n"
    assert stack.must("config", "get", "word", "-s", "my") == "hidden-word\n"
    assert "4 unchanged" in stack.must("preview", "--expect-no-changes", "-s", "my")
    taken = stack.run("pulumi", "stack", "rename", "organization/postgresql/mx", "-s", "my")
    assert (taken.returncode, "[409] Conflict" in taken.stderr) == (1, True)
    stack.must("stack", "rename", "mx", "-s", "my")


def test_a_destroyed_stack_is_removed(stack: Scratch) -> None:
    kept = stack.run("pulumi", "stack", "rm", "mx", "--yes")
    assert "still has resources" in kept.stderr
    stack.must("destroy", "--yes", "--skip-preview", "-s", "mx")
    stack.must("stack", "rm", "mx", "--yes")
    idle = stack.run("pulumi", "cancel", "mx", "--yes")
    assert (idle.returncode, "no stack named" in idle.stderr) == (6, True)
