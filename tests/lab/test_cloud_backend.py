"""ESC environments of the cloud as a stack sees them: its settings, its variables, its neighbours' outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.cloud import server
from lab.cloud.server import Cloud
from tests.contract.cloud_stage import CloudStage, write_project
from tests.unit.cloud.conftest import Caller
from tests.unit.engine.cloud_lab import UP, CloudLab, open_lab

PASSWORD = 'pässword-with "quotes" and\nlines'
NAME = "organization/app/prod"
E = "/api/esc/environments/organization"

PRODUCER = """
import pulumi
config = pulumi.Config()
pulumi.export("host", config.get("host") or "db.svc")
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
    empty: null
    json: {"fn::toJSON": ["${stacks.postgresql.host}", "${mine}"]}
  environmentVariables:
    PLAIN_ONE: plain-text
    SECRET_ONE: ${mine}
    NUMBER: 5432
    FLAG: true
    LIST: [1]
  files:
    A_FILE: "content of ${mine}"
"""

CONSUMER = """
import json, os, pulumi
config, postgresql = pulumi.Config(), pulumi.Config("postgresql")
keys = ["host", "on", "pin", "hosts", "login", "url", "ratio", "whole", "empty", "json"]
pulumi.export("values", {key: config.get(key) for key in keys})
pulumi.export("port", postgresql.get("port"))
for key in keys:
    pulumi.export(f"{key}-secret", config.get_secret(key))
pulumi.export("password", postgresql.require_secret("password"))
pulumi.export("variables", {key: os.environ.get(key) for key in ("PLAIN_ONE", "NUMBER", "FLAG")})
pulumi.export("variable-length", len(os.environ["SECRET_ONE"]))
path = os.environ["A_FILE"]
pulumi.export("file", [oct(os.stat(path).st_mode)[-3:], len(open(path).read())])
pulumi.export("file-path", path)
pulumi.log.info("in the log: " + os.environ["SECRET_ONE"])
print("printed: " + os.environ["SECRET_ONE"])
print("of a map: " + config.require_object("login")["password"])
print("of a file: " + open(path).read())
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = server.serving(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def producer(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> CloudStage:
    """The stack ``postgresql/mx``, updated."""
    lab = open_lab(tmp_path_factory.mktemp("stage"), cloud.url, cloud.token)
    lab.stage.must("stack", "rm", "mx", "--yes")
    stage = replace(lab.stage, project="postgresql")
    write_project(stage, "postgresql", "postgresql")
    stage.write_program(PRODUCER)
    stage.must("stack", "init", "mx")
    stage.must("config", "set", "--secret", "password", "-s", "mx", stdin=PASSWORD)
    stage.must(*UP)
    return stage


@pytest.fixture
def lab(producer: CloudStage, cloud: Cloud) -> Iterator[CloudLab]:
    """A consumer's project with a stack that is bound to nothing yet, and the environment ``app/prod``."""
    stage = replace(producer, project="consumer")
    write_project(stage, "consumer", "consumer")
    stage.write_program(CONSUMER)
    stage.must("stack", "init", "mx")
    stage.must("env", "init", NAME, "--file", "-", stdin=DEFINITION)
    yield CloudLab(stage, Caller(cloud.url, cloud.token))
    stage.must("stack", "rm", "mx", "--yes", "--force")
    stage.must("env", "rm", NAME, "--yes")


@pytest.fixture
def bound(lab: CloudLab) -> CloudLab:
    lab.stage.must("config", "env", "add", "app/prod", "--yes", "-s", "mx")
    return lab


def settings_file(lab: CloudLab) -> Path:
    return lab.stage.folder / "Pulumi.mx.yaml"


def outputs(lab: CloudLab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.stage.must("stack", "output", "--json", "-s", "mx", "--show-secrets"))
    return found


def settings(lab: CloudLab, *flags: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.stage.must("config", "--json", "-s", "mx", *flags))
    return found


# -- what a program gets -------------------------------------------------------------------------------------------


def test_settings_reach_the_program_as_texts(bound: CloudLab) -> None:
    bound.stage.must(*UP)
    assert outputs(bound)["values"] == {
        "host": "db.svc",
        "on": "true",
        "pin": "123456",
        "hosts": '["a","b"]',
        "login": '{"password":"from-a-map","user":"me"}',
        "url": "postgres://mine-alone@db.svc",
        "ratio": "1.5",
        "whole": "2",
        "empty": "",
        "json": '["db.svc","mine-alone"]',
    }
    assert (outputs(bound)["port"], outputs(bound)["password"]) == ("5432", PASSWORD)


def test_texts_keep_their_secretness_and_numbers_lose_it(bound: CloudLab) -> None:
    seen = settings(bound, "--open")
    secret = {key.partition(":")[2] for key, one in seen.items() if one["secret"]}
    assert secret == {"login", "url", "json", "password"}
    assert all(("value" in one) != one["secret"] for one in seen.values())
    shown = settings(bound, "--show-secrets")
    assert shown["postgresql:password"] == {"value": PASSWORD, "secret": True}
    assert shown["consumer:login"] == {"value": '{"password":"from-a-map","user":"me"}', "secret": True}
    assert bound.stage.must("config", "get", "url", "-s", "mx") == "postgres://mine-alone@db.svc\n"


def test_without_opening_it_is_unknown_what_a_provider_gives(bound: CloudLab) -> None:
    seen = settings(bound)
    assert seen["consumer:host"] == {"value": "[unknown]", "secret": False}
    assert seen["consumer:ratio"] == {"value": "1.5", "secret": False}
    assert seen["consumer:url"] == {"secret": True}


def test_secrets_of_settings_variables_and_files_are_hidden(bound: CloudLab) -> None:
    shown = bound.stage.must(*UP)
    told = ("in the log: [secret]", "printed: [secret]", "of a map: [secret]", "of a file: [secret]")
    assert [words for words in told if words not in shown] == []
    for secret in ("mine-alone", "from-a-map", PASSWORD.partition("\n")[0]):
        assert secret not in shown
    exported = bound.stage.must("stack", "export", "-s", "mx")
    assert PASSWORD not in exported
    assert "from-a-map" not in json.dumps(json.loads(exported)["deployment"]["resources"][0]["outputs"]["login-secret"])


def test_variables_and_files_reach_the_program_and_files_are_taken_away(bound: CloudLab) -> None:
    bound.stage.must(*UP)
    found = outputs(bound)
    assert found["variables"] == {"PLAIN_ONE": "plain-text", "NUMBER": "5432", "FLAG": "true"}
    assert found["variable-length"] == len("mine-alone")
    assert found["file"] == ["600", len("content of mine-alone")]
    assert not Path(found["file-path"]).exists()


def test_the_settings_file_wins_and_maps_are_merged(bound: CloudLab) -> None:
    stage = bound.stage
    stage.must("config", "set", "host", "own.svc", "-s", "mx")
    text = settings_file(bound).read_text()
    settings_file(bound).write_text(f"{text}  consumer:login:\n    user: own\n    port: 1\n")
    shown = settings(bound, "--show-secrets")
    assert shown["consumer:host"]["value"] == "own.svc"
    assert json.loads(shown["consumer:login"]["value"]) == {"user": "own", "port": 1, "password": "from-a-map"}
    stage.must(*UP)
    assert outputs(bound)["values"]["host"] == "own.svc"
    assert json.loads(outputs(bound)["values"]["login"])["password"] == "from-a-map"


def test_a_default_of_the_project_is_below_the_environment(bound: CloudLab) -> None:
    project = bound.stage.folder / "Pulumi.yaml"
    declared = "config:\n  host: {default: by-default}\n  wanted: {type: string}\n"
    project.write_text(f"{project.read_text()}{declared}")
    missing = bound.stage.run(["preview", "-s", "mx"])
    assert missing.returncode == 1
    assert "Stack 'mx' is missing configuration value 'consumer:wanted'" in missing.stderr
    bound.stage.must("env", "set", NAME, "pulumiConfig.wanted", "here")
    bound.stage.must(*UP)
    assert outputs(bound)["values"]["host"] == "db.svc"


def test_the_history_names_the_environments_and_keeps_no_secret_in_clear(bound: CloudLab) -> None:
    bound.stage.must(*UP)
    (update,) = bound.caller.get("/api/stacks/organization/consumer/mx/updates")["updates"]
    assert update["environment"]["stack.environments"] == '[{"id":"app/prod"}]'
    assert update["config"]["consumer:host"] == {"string": "db.svc", "secret": False, "object": False}
    assert update["config"]["postgresql:password"]["secret"] is True
    assert "mine-alone" not in json.dumps(update)
    assert "from-a-map" not in json.dumps(update)


# -- binding -------------------------------------------------------------------------------------------------------


def test_binding_twice_binds_twice_and_comments_stay(lab: CloudLab) -> None:
    written = "# mine\nconfig:\n  consumer:host: own # why\n"
    settings_file(lab).write_text(written)
    for times in (1, 2):
        lab.stage.must("config", "env", "add", "app/prod", "--yes", "-s", "mx")
        assert (
            lab.stage.must("config", "env", "ls", "-s", "mx", "--json")
            == json.dumps(["app/prod"] * times, indent=2) + "\n"
        )
    assert settings_file(lab).read_text().startswith(written)
    lab.stage.must("config", "env", "rm", "app/prod", "--yes", "-s", "mx")
    assert json.loads(lab.stage.must("config", "env", "ls", "-s", "mx", "--json")) == ["app/prod"]
    lab.stage.must("config", "env", "rm", "app/prod", "--yes", "-s", "mx")
    assert settings_file(lab).read_text() == written
    assert "no environments listed" in lab.stage.must("config", "env", "ls", "-s", "mx")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("add", "app/prod"), 1, "error: non-interactive mode requires --yes flag"),
        (("rm", "app/prod"), 1, "error: non-interactive mode requires --yes flag"),
        (("add", "app/none", "--yes"), 1, 'Diags: environment "app/none" not found'),
        (("add", "app/prod", "app/none", "--yes"), 1, 'Diags: environment "app/none" not found'),
        (("add", "--yes"), 2, "'pulumi config env add' takes at least 1"),
    ],
)
def test_what_cannot_be_bound_leaves_the_file_alone(
    bound: CloudLab, words: Sequence[str], code: int, told: str
) -> None:
    before = settings_file(bound).read_bytes()
    done = bound.stage.run(["config", "env", *words, "-s", "mx"])
    assert done.returncode == code
    assert told in done.stderr
    assert settings_file(bound).read_bytes() == before


def test_a_definition_of_its_own_in_the_settings_is_bound_to(lab: CloudLab) -> None:
    """``environment:`` may be a whole definition, whose imports are added to."""
    own = "environment:\n  values:\n    pulumiConfig:\n      host: inline\n      ratio: 2.5\n"
    settings_file(lab).write_text(own)
    lab.stage.must("config", "env", "add", "app/prod", "--yes", "-s", "mx")
    assert json.loads(lab.stage.must("config", "env", "ls", "-s", "mx", "--json")) == ["app/prod"]
    lab.stage.must(*UP)
    values = outputs(lab)["values"]
    assert (values["host"], values["ratio"], values["on"]) == ("inline", "2.5", "true")


@pytest.mark.parametrize("given", ["5432", "true", "007", '"quoted"'])
def test_a_secret_is_a_text_whatever_it_looks_like(lab: CloudLab, given: str) -> None:
    """The real CLI keeps what was typed."""
    done = lab.stage.run(["env", "set", NAME, "given", given, "--secret"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(lab.stage.must("env", "open", NAME, "given")) == given.strip('"')


def test_revisions_have_names(lab: CloudLab) -> None:
    """A value may well be called ``tag`` and be ``rm``."""
    env = lab.stage.must
    env("env", "set", NAME, "tag", "rm")
    env("env", "set", NAME, "tag", "list")
    assert env("env", "get", NAME, "tag", "--value", "string") == "list\n"
    for version in ("@3", "3"):
        env("env", "version", "tag", f"{NAME}@stable", version)
    env("env", "version", "tag", f"{NAME}@same", "@stable")
    env("env", "version", "tag", f"{NAME}@newest")
    listed = ["latest (revision 4)", "newest (revision 4)", "same (revision 3)", "stable (revision 3)"]
    assert env("env", "version", "tag", "ls", NAME).splitlines() == listed
    assert env("env", "open", f"{NAME}@stable", "tag", "--format", "string") == "rm\n"
    env("env", "version", "rollback", f"{NAME}@same")
    assert env("env", "open", NAME, "tag", "--format", "string") == "rm\n"
    env("env", "version", "tag", "rm", f"{NAME}@same")
    assert "revision 3 (tag: stable)" in env("env", "version", "history", NAME)
    refused = lab.stage.run(["env", "version", "tag", f"{NAME}@stable", "@none"])
    assert (refused.returncode, "[404]" in refused.stderr) == (1, True)


@pytest.mark.parametrize(("wanted", "made"), [("app/made", "app/made"), ("made", "consumer/made")])
def test_settings_become_an_environment(lab: CloudLab, wanted: str, made: str) -> None:
    stage = lab.stage
    stage.must("config", "set", "colour", "blue", "-s", "mx")
    stage.must("config", "set", "--secret", "word", "-s", "mx", stdin="hidden-word")
    said = stage.must("config", "env", "init", "--env", wanted, "--yes", "-s", "mx")
    try:
        assert f"Creating environment {made} for stack mx..." in said
        assert "hidden-word" not in stage.must("env", "get", f"organization/{made}", "--definition")
        assert settings(lab, "--show-secrets") == {
            "consumer:colour": {"value": "blue", "secret": False},
            "consumer:word": {"value": "hidden-word", "secret": True},
        }
        assert "config:" not in settings_file(lab).read_text()
    finally:
        stage.must("env", "rm", f"organization/{made}", "--yes")


# -- other stacks' outputs -----------------------------------------------------------------------------------------


def test_the_next_run_sees_what_the_producer_says_now(bound: CloudLab, producer: CloudStage) -> None:
    bound.stage.must(*UP)
    try:
        producer.must("config", "set", "host", "moved.svc", "-s", "mx")
        producer.must(*UP)
        changed = bound.stage.must("preview", "-s", "mx", "--diff")
        assert '"db.svc" => "moved.svc"' in changed
        bound.stage.must(*UP)
        assert outputs(bound)["values"]["url"] == "postgres://mine-alone@moved.svc"
    finally:
        producer.must("config", "rm", "host", "-s", "mx")
        producer.must(*UP)


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        (DEFINITION.replace("postgresql/mx", "postgresql/none"), 'stack "postgresql/none" not found'),
        (DEFINITION.replace("postgresql.host", "postgresql.gone"), 'unknown property "gone"'),
    ],
)
def test_a_missing_stack_or_output_stops_a_run_before_it_begins(bound: CloudLab, definition: str, told: str) -> None:
    """The environment can be stored; opening it tells what is wrong and ends with 0, as recorded."""
    assert "Environment updated." in bound.stage.must("env", "edit", NAME, "--file", "-", stdin=definition)

    opened = bound.stage.run(["env", "open", NAME])
    preview = bound.stage.run(["preview", "-s", "mx"])
    json_preview = bound.stage.run(["preview", "-s", "mx", "--json"])
    update = bound.stage.run(UP)

    assert (opened.returncode, opened.stdout) == (0, "")
    assert told in opened.stderr
    for done in (preview, json_preview, update):
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr
        assert done.stderr.endswith("error: getting stack configuration: opening environment: too many errors\n")
    assert bound.caller.get("/api/stacks/organization/consumer/mx/updates")["updates"] == []


def test_a_stack_that_was_never_updated_has_no_outputs(bound: CloudLab) -> None:
    """The consumer's own stack, here: nothing is made up."""
    bound.stage.must("env", "edit", NAME, "--file", "-", stdin=DEFINITION.replace("postgresql/mx", "consumer/mx"))
    opened = bound.stage.run(["env", "open", NAME])
    assert 'app/prod:9:30: unknown property "host"' in opened.stderr
    assert bound.stage.run(["preview", "-s", "mx"]).returncode == 1


def test_an_evaluator_that_dies_is_started_again(bound: CloudLab) -> None:
    children = psutil.Process().children()  # those of earlier tests' clouds among them
    evaluators = [child for child in children if "esc-evaluator" in " ".join(child.cmdline())]
    assert evaluators
    for evaluator in evaluators:
        evaluator.kill()
        evaluator.wait(10)
    assert "db.svc" in bound.stage.must("config", "get", "host", "-s", "mx")


# -- the environment's own commands --------------------------------------------------------------------------------


def test_a_value_is_set_from_standard_input_and_stays_text(lab: CloudLab) -> None:
    lab.stage.must("env", "set", NAME, "pulumiConfig.digits", "--secret", "--string", "--file", "-", stdin="0123")
    opened = json.loads(lab.stage.must("env", "open", NAME, "pulumiConfig.digits", "--format", "detailed"))
    assert (opened["value"], opened["secret"]) == ("0123", True)
    assert "0123" not in lab.stage.must("env", "get", NAME)
    assert lab.stage.must("env", "rm", NAME, "pulumiConfig.digits") == ""
    assert lab.stage.run(["env", "open", NAME, "pulumiConfig.digits"]).returncode == 1


def test_a_write_in_between_is_refused(lab: CloudLab) -> None:
    before = lab.caller.send("GET", f"{E}/app/prod").headers["ETag"]
    lab.stage.must("env", "set", NAME, "pulumiConfig.colour", "blue")
    late = lab.caller.send("PATCH", f"{E}/app/prod", b"values: {}", ETag=before)
    assert late.status == 409
    assert lab.stage.must("env", "open", NAME, "pulumiConfig.colour", "--format", "string") == "blue\n"


def test_a_command_runs_with_the_variables_and_its_output_is_masked(lab: CloudLab) -> None:
    show = 'echo "$PLAIN_ONE $NUMBER $FLAG $SECRET_ONE"; cat "$A_FILE"; exit 3'
    done = lab.stage.run(["env", "run", NAME, "--", "sh", "-c", show])
    assert done.stdout == "plain-text 5432 true [secret]\n[secret]"
    assert (done.returncode, done.stderr) == (1, "error: exit status 3\n")
    assert lab.stage.run(["env", "run", NAME, "--", "true"]).returncode == 0
