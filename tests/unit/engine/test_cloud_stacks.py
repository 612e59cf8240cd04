"""Stacks, settings, secrets and references of the pulumi stand-in on a real cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.cloud import server
from lab.cloud.server import Cloud
from tests.contract.cloud_stage import write_project
from tests.unit.engine.cloud_lab import UP, CloudLab, open_lab

SECRET = "s3cr3t-pw-long"

PRODUCER = """
import pulumi
config = pulumi.Config()
pulumi.export("host", "db.svc")
pulumi.export("password", config.require_secret("password"))
pulumi.export("login", {"user": "postgres", "password": config.require_secret("password")})
pulumi.export("pin", pulumi.Output.secret(123456))
"""

CONSUMER = """
import pulumi
producer = pulumi.StackReference(%r)
pulumi.export("url", pulumi.Output.concat("postgres://", producer.require_output("host")))
pulumi.export("password", producer.require_output("password"))
pulumi.export("pin", producer.require_output("pin"))
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = server.serving(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def lab(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> CloudLab:
    """The stack ``mx`` with outputs, three of them secret."""
    lab = open_lab(tmp_path_factory.mktemp("stage"), cloud.url, cloud.token)
    lab.stage.must("config", "set", "--secret", "password", "-s", "mx", stdin=f"{SECRET}\n")
    lab.stage.must("config", "set", "colour", "blue", "-s", "mx")
    lab.stage.write_program(PRODUCER)
    lab.stage.must(*UP)
    return lab


@pytest.fixture(scope="module")
def consumer(lab: CloudLab) -> CloudLab:
    """Another project, with a stack of the same name."""
    stage = replace(lab.stage, project="consumer")
    write_project(stage, "consumer", "consumer")
    stage.must("stack", "init", "mx")
    return replace(lab, stage=stage)


def settings(lab: CloudLab) -> str:
    return (lab.stage.folder / "Pulumi.mx.yaml").read_text()


def outputs(lab: CloudLab, *flags: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(lab.stage.must("stack", "output", "--json", "-s", "mx", *flags))
    return found


# -- secrets -------------------------------------------------------------------------------------------------------


def test_a_secret_setting_is_the_clouds_ciphertext(lab: CloudLab) -> None:
    text = settings(lab)
    assert "secure: " in text
    assert SECRET not in text
    assert "encryptionsalt" not in text
    assert lab.stage.must("config", "get", "password", "-s", "mx") == f"{SECRET}\n"
    assert SECRET not in lab.stage.must("config", "-s", "mx")
    shown = json.loads(lab.stage.must("config", "--json", "-s", "mx", "--show-secrets"))
    assert shown["sample:password"] == {"value": SECRET, "secret": True}


def test_secrets_are_ciphertext_wherever_the_cloud_keeps_them(lab: CloudLab, cloud: Cloud) -> None:
    kept = [path for path in cloud.folder.rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert [path.name for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_secret_outputs_are_hidden_unless_asked_for(lab: CloudLab) -> None:
    login = {"user": "postgres", "password": "[secret]"}
    assert outputs(lab) == {"host": "db.svc", "login": login, "password": "[secret]", "pin": "[secret]"}
    login["password"] = SECRET
    assert outputs(lab, "--show-secrets") == {"host": "db.svc", "login": login, "password": SECRET, "pin": 123456}
    assert lab.stage.must("stack", "output", "password", "-s", "mx", "--show-secrets") == f"{SECRET}\n"
    assert lab.stage.must("stack", "output", "password", "-s", "mx") == "[secret]\n"


def test_an_export_holds_ciphertext_unless_asked_for(lab: CloudLab) -> None:
    closed = lab.stage.must("stack", "export", "-s", "mx")
    assert SECRET not in closed
    assert json.loads(closed)["deployment"]["secrets_providers"] == {
        "type": "service",
        "state": {"url": lab.caller.url, "owner": "organization", "project": "sample", "stack": "mx"},
    }
    file = lab.stage.root / "export.json"
    assert lab.stage.must("stack", "export", "-s", "mx", "--show-secrets", "--file", str(file)) == ""
    assert SECRET in file.read_text()


def test_another_stacks_ciphertext_does_not_open(lab: CloudLab, consumer: CloudLab) -> None:
    foreign = settings(lab).partition("secure: ")[2].split()[0]
    (consumer.stage.folder / "Pulumi.other.yaml").write_text(f"config:\n  consumer:password:\n    secure: {foreign}\n")
    consumer.stage.must("stack", "init", "other", "--no-select")

    refused = consumer.stage.run(["config", "get", "password", "-s", "other"])

    assert refused.returncode == 1
    assert refused.stderr == (
        "error: [400] Bad Request: the ciphertext was not encrypted for organization/consumer/other\n"
    )


def test_the_history_hides_secrets_and_counts_as_the_cloud_does(lab: CloudLab) -> None:
    lab.stage.must(*UP, "--message", "once more")
    lab.stage.must("preview", "-s", "mx")
    newest, *earlier = json.loads(lab.stage.must("stack", "history", "--json", "-s", "mx"))
    assert [newest["version"], *(one["version"] for one in earlier)] == list(range(len(earlier) + 1, 0, -1))
    assert (newest["kind"], newest["result"], newest["message"]) == ("update", "succeeded", "once more")
    assert newest["resourceChanges"] == {"same": 1}
    assert newest["config"] == {
        "sample:colour": {"value": "blue", "secret": False},
        "sample:password": {"secret": True},
    }
    shown = json.loads(lab.stage.must("stack", "history", "--json", "-s", "mx", "--show-secrets"))
    assert shown[0]["config"]["sample:password"] == {"value": SECRET, "secret": True}


# -- references ----------------------------------------------------------------------------------------------------


def test_a_reference_gives_the_outputs_and_keeps_their_secretness(consumer: CloudLab) -> None:
    consumer.stage.write_program(CONSUMER % "organization/sample/mx")
    shown = consumer.stage.must(*UP)
    assert SECRET not in shown
    assert outputs(consumer) == {"url": "postgres://db.svc", "password": "[secret]", "pin": "[secret]"}
    assert outputs(consumer, "--show-secrets")["password"] == SECRET
    assert outputs(consumer, "--show-secrets")["pin"] == 123456
    assert SECRET not in consumer.stage.must("stack", "export", "-s", "mx")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("organization/sample/none", 'unknown stack "organization/sample/none"'),
        ("stranger/sample/mx", 'unknown stack "stranger/sample/mx"'),
        ("sample/mx", "a stack reference's name should be of the form '<organization>/<project>/<stack>'. See "),
        ("mx", "a stack reference's name should be of the form '<organization>/<project>/<stack>'. See "),
    ],
)
def test_a_reference_that_leads_nowhere_fails(consumer: CloudLab, name: str, text: str) -> None:
    consumer.stage.write_program(CONSUMER % name)
    done = consumer.stage.run(["preview", "-s", "mx"])
    assert done.returncode == 1
    assert f"error: Preview failed: {text}" in done.stdout


# -- stacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["organization/sample/mx", "organization/mx", "mx"])
def test_a_stack_has_three_names(lab: CloudLab, name: str) -> None:
    assert lab.stage.must("stack", "output", "host", "-s", name) == "db.svc\n"
    lab.stage.must("stack", "select", name)
    assert lab.stage.must("stack", "output", "host") == "db.svc\n"


@pytest.mark.parametrize("words", [("output",), ("export",), ("history",), ("rm", "--yes"), ("select", "none")])
def test_a_stack_that_is_not_there_is_named(lab: CloudLab, words: Sequence[str]) -> None:
    done = lab.stage.run(["stack", *words, *(() if "none" in words else ("-s", "none"))])
    assert (done.returncode, done.stderr) == (6, "error: no stack named 'none' found\n")


def test_a_stack_is_made_listed_and_removed(lab: CloudLab) -> None:
    lab.stage.must("stack", "init", "organization/sample/short", "--no-select")
    again = lab.stage.run(["stack", "init", "short"])
    assert (again.returncode, again.stderr) == (1, "error: stack 'organization/sample/short' already exists\n")
    listed = {one["name"]: one for one in json.loads(lab.stage.must("stack", "ls", "--json"))}
    assert (listed["mx"]["current"], listed["short"]["current"]) == (True, False)
    assert (listed["mx"]["resourceCount"], "resourceCount" in listed["short"]) == (1, False)

    assert lab.stage.must("stack", "rm", "short", "--yes") == "Stack 'short' has been removed!\n"

    refused = lab.stage.run(["stack", "rm", "mx", "--yes"])
    assert refused.returncode == 1
    assert "'mx' still has resources; removal rejected." in refused.stderr
    assert [one["name"] for one in json.loads(lab.stage.must("stack", "ls", "--json"))] == ["mx"]


# -- the token -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "before"),
    [
        (("preview", "-s", "mx"), ""),
        (("config", "env", "ls"), ""),
        (("env", "ls"), "could not determine current cloud: "),
    ],
)
def test_without_a_token_or_with_a_wrong_one_nothing_is_done(
    lab: CloudLab, tmp_path: Path, words: Sequence[str], before: str
) -> None:
    home = {"PULUMI_HOME": str(tmp_path / "home")}
    missing = lab.stage.run(words, env={**home, "PULUMI_ACCESS_TOKEN": None})
    assert missing.returncode == 3
    assert missing.stderr == (
        f"error: {before}PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions\n"
    )
    wrong = lab.stage.run(words, env={**home, "PULUMI_ACCESS_TOKEN": "pul-wrong"})
    assert wrong.returncode == 1
    assert wrong.stderr == (
        f"Logging in using access token from PULUMI_ACCESS_TOKEN\nerror: {before}invalid access token\n"
    )
    assert missing.stdout == wrong.stdout == ""


def test_a_stored_token_that_the_cloud_takes_no_more_is_refused(lab: CloudLab, tmp_path: Path) -> None:
    credentials = {"current": lab.caller.url, "accessTokens": {lab.caller.url: "pul-old"}}
    (tmp_path / "credentials.json").write_text(json.dumps(credentials))
    done = lab.stage.run(["stack", "ls"], env={"PULUMI_HOME": str(tmp_path), "PULUMI_ACCESS_TOKEN": None})
    assert done.returncode == 1
    assert done.stderr == "error: [401] Unauthorized: No credentials provided or are invalid.\n"
