"""A stack is made once; no setting leads pulumi to another cluster; every secret is masked, whoever reads the state."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbooks.core.command import Command
from runbooks.core.errors import NotFound, OpsError, Refused, Usage
from runbooks.core.runner import CommandFailed
from runbooks.run import open_session
from runbooks.services import find_service
from runbooks.stacks.preparation import (
    LISTING,
    check_opened,
    check_stack_settings,
    clear_state,
    has_stack,
    make_stack,
    plain_settings,
    prepare,
    set_up,
)
from runbooks.stacks.session import MOST_STATES, ClearState
from runbooks.stacks.target import Target
from runbooks.tools import pulumi
from runbooks.tools.esc import read_opened
from runbooks.tools.pulumi import Export
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY
from tests import fixtures
from tests.fixtures import TREE, UID, Repo, ScriptedSession, ended_process, kubeconfig, outcome
from tests.local_server import Served, answering

POSTGRES = find_service("postgres")


def in_lab(root: Path, check: Callable[[Command], Any]) -> Any:
    """A session on the lab; `check` gets each command."""
    session: Any = ScriptedSession(root, {}, ephemeral=True)
    session.runner = SimpleNamespace(check=check)
    (session.stack(TREE[2]).folder / "Pulumi.mx.yaml").write_text("config: {}\n")
    return session


def make(session: Any) -> None:
    make_stack(session, POSTGRES, replace(session.stack(TREE[2]), service="postgres", project="postgresql"))


def test_another_run_waits_while_a_stack_and_its_secrets_are_made(tmp_path: Path) -> None:
    titles: list[str] = []

    def check(command: Command) -> None:
        titles.append(command.title)
        descriptor = os.open(tmp_path / "stacks" / "db", os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    make(in_lab(tmp_path, check))
    assert len(titles) == 1 + len(POSTGRES.secrets) and "organization/postgresql/mx" in titles[0]
    assert all(secret.key in title for secret, title in zip(POSTGRES.secrets, titles[1:], strict=True))


def test_the_first_stack_of_a_cloud_is_made_once(tmp_path: Path) -> None:
    titles: list[str] = []
    session = in_lab(tmp_path, lambda command: titles.append(command.title))
    session.target.file_backend = None
    session.known.once.answers[LISTING] = {}
    make(session)
    make(session)
    assert sum("organization/postgresql/mx" in title for title in titles) == 1


@pytest.mark.parametrize(
    ("stderr", "is_made"),
    [("error: stack 'organization/postgresql/mx' already exists\n", True), ("error: no space left on device\n", False)],
    ids=["by another run", "not at all"],
)
def test_a_stack_that_cannot_be_made_is_reported_unless_another_run_made_it(
    tmp_path: Path, stderr: str, is_made: bool
) -> None:
    def check(command: Command) -> None:
        if "init" in command.argv:
            raise CommandFailed("no", outcome(command, (1, "", stderr)))

    with contextlib.nullcontext() if is_made else pytest.raises(CommandFailed):
        make(in_lab(tmp_path, check))


def test_a_config_that_lost_a_key_in_an_interrupted_edit_is_not_used(tmp_path: Path) -> None:
    session: Any = ScriptedSession(tmp_path, {})
    file = session.stack(TREE[0]).settings_file
    file.write_text("config: {}\n")
    file.with_name(f".{file.name}.{ended_process()}-0123abcd.kept").write_text("config: {}\nencryptionsalt: v1\n")
    with pytest.raises(Usage):
        set_up(session, TREE[0])


@pytest.mark.parametrize(("value", "words"), [("-1", ["--", "key", "-1"]), ("x", ["--non-interactive", "key", "x"])])
def test_a_value_with_a_dash_is_no_option(tmp_path: Path, value: str, words: list[str]) -> None:
    command = pulumi.config_set(ScriptedSession(tmp_path, {}).stack(TREE[0]), "key", value)
    assert list(command.argv[-3:]) == words


# Stack configs and environments that would send pulumi to another cluster


AGREES: list[dict[str, Any]] = [
    {}, {"namespace": "x", "upsertExistingObjects": "true"}, {"context": "home"}, {"cluster": "homelab"},
    {"clusterIdentifier": UID}, {"context": "home", "kubeconfig": "{config}"}, {"deleteUnreachable": "false"},
]  # fmt: skip
LEADS_ELSEWHERE: list[dict[str, Any]] = [
    {"context": "other"}, {"context": ""}, {"cluster": "office"}, {"clusterIdentifier": "somebody"},
    {"kubeconfig": "{config}"}, {"kubeconfig": "/etc/other", "context": "home"},
    {"kubeconfig": "apiVersion: v1\nclusters: []\n", "context": "home"}, {"kubeconfig": None},
    # It would forget every object that is out of reach.
    {"deleteUnreachable": "true"}, {"deleteUnreachable": "True"}, {"deleteUnreachable": None},
]  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> Target:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig()))
    return fixtures.target(kubeconfig=path, cluster_uid=UID)


def check_config(target: Target, config: dict[str, Any]) -> None:
    filled = {f"kubernetes:{key}": value and value.format(config=target.kubeconfig) for key, value in config.items()}
    check_stack_settings(filled, target, source="Pulumi.mx.yaml")


@pytest.mark.parametrize("config", AGREES)
def test_config_that_agrees_passes(target: Target, config: dict[str, Any]) -> None:
    check_config(target, config)


@pytest.mark.parametrize("config", LEADS_ELSEWHERE)
def test_config_that_leads_elsewhere_is_refused(target: Target, config: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        check_config(target, config)
    assert "Pulumi.mx.yaml" in caught.value.summary
    assert caught.value.next_step.startswith("remove kubernetes:")


def test_a_whole_kubeconfig_in_a_setting_is_not_shown(target: Target) -> None:
    content = "token: sup3r-s3cret\n" * 20
    with pytest.raises(Refused) as caught:
        check_stack_settings({"kubernetes:kubeconfig": content}, target, source="x")
    assert "sup3r" not in "\n".join(caught.value.lines())


VARIABLE, FILE, CONFIG = "environmentVariables", "files", "pulumiConfig"


@pytest.mark.parametrize(
    ("section", "key", "value", "refused"),
    [
        (VARIABLE, "AWS_REGION", "y", False),
        (VARIABLE, "CODEX_X", "z", False),
        (CONFIG, "postgresql:host", "x", False),
        (VARIABLE, "KUBECONFIG", "/etc/other", True),
        (FILE, "KUBECONFIG", "clusters: [{cluster: {server: elsewhere}}]", True),
        (CONFIG, "kubernetes:context", "other", True),
        (CONFIG, "kubernetes:kubeconfig", {"server": "elsewhere"}, True),
        # These change pulumi unseen.
        (VARIABLE, "PULUMI_K8S_DELETE_UNREACHABLE", "true", True),
        (VARIABLE, "PULUMI_SKIP_CHECKPOINTS", "true", True),
        (VARIABLE, "PULUMI_OPTION_YES", "true", True),
    ],
)
def test_an_opened_environment_may_not_lead_elsewhere(
    target: Target, section: str, key: str, value: Any, refused: bool
) -> None:
    opened = read_opened(
        json.dumps({"value": {section: {"value": {key: {"value": nested(value), "secret": section == FILE}}}}})
    )
    if not refused:
        check_opened(target, opened, "app/prod")
        return
    with pytest.raises(Refused, match=f"{key} in {section} of app/prod") as caught:
        check_opened(target, opened, "app/prod")
    assert caught.value.expected and "elsewhere" not in "\n".join(caught.value.lines())
    assert "environments/app/prod.yaml" in caught.value.next_step and "esc.apply app/prod" in caught.value.next_step


def nested(value: Any) -> Any:
    return {key: {"value": inner} for key, inner in value.items()} if isinstance(value, dict) else value


def test_secrets_in_a_settings_file_have_no_plain_value() -> None:
    assert plain_settings({"a:b": 1, "a:c": {"secure": "v1:x"}, "a:d": "t"}) == {"a:b": "1", "a:c": None, "a:d": "t"}


# States on the Pulumi Cloud: read from it directly, else by pulumi, with their secrets masked either way

STACK = "/api/stacks/acme/postgresql/mx"
SETTING, OUTPUT = "hunter2-of-settings", "hunter2-of-state"
CLEAR_SETTINGS = {"postgresql:superuser_password": {"value": SETTING, "secret": True}}


def exported(password: dict[str, str], url: str = "") -> dict[str, Any]:
    key = {"type": "service", "state": {"url": url, "owner": "acme", "project": "postgresql", "stack": "mx"}}
    stack = {"urn": "urn:s", "type": "pulumi:pulumi:Stack", "outputs": {"password": {SIGNATURE_KEY: SECRET_SIGNATURE}}}
    stack["outputs"]["password"] |= password
    return {"version": 3, "deployment": {"secrets_providers": key, "resources": [stack]}}


@pytest.fixture
def cloud(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "pul-0123456789abcdef")
    with answering() as server:
        repo.on_cloud(server.url)
        repo.answer("pulumi", ["config", "--show-secrets"], CLEAR_SETTINGS)
        repo.answer("pulumi", ["export", "--show-secrets"], exported({"plaintext": f'"{OUTPUT}"'}))
        yield server


def settings(repo: Repo, *more: str) -> Path:
    path = repo.config_file("postgres")
    path.write_text("\n".join([*more, "config:", "  postgresql:superuser_password:", "    secure: AAAB", ""]))
    return path


def plaintexts(**texts: str) -> dict[str, Any]:
    return {"plaintexts": {sealed: base64.b64encode(text.encode()).decode() for sealed, text in texts.items()}}


def prepared(repo: Repo) -> tuple[str, Any]:
    """How the secrets are shown, and the value of the output."""
    with open_session(repo.c, "preview.postgres") as session:
        stack = prepare(session, find_service("postgres"))
        shown = session.masker.mask(f"{SETTING} {OUTPUT}")
        return shown, clear_state(session, stack).outputs["password"]


def read_by_pulumi(repo: Repo) -> list[str]:
    return [word for argv in repo.argvs("pulumi") for word in ("ls", "config", "export") if f" {word} " in argv]


@pytest.mark.parametrize(
    ("config", "token", "answers", "read", "requests"),
    [
        ((), True, True, ["ls"], 3),
        (("encryptionsalt: v1:abc",), True, True, ["ls", "config"], 2),
        ((), True, False, ["ls", "config", "export"], 2),
        ((), False, False, ["ls", "config", "export"], 0),
    ],
    ids=["without a process", "config under a passphrase", "no answer of the cloud", "the token is in a key ring"],
)
def test_pulumi_reads_what_the_cloud_does_not_answer(
    repo: Repo, cloud: Served, monkeypatch: pytest.MonkeyPatch, config: tuple[str, ...], token: bool, answers: bool,
    read: list[str], requests: int,
) -> None:  # fmt: skip
    settings(repo, *config)
    if answers:
        secret = {"BBBC": f'"{OUTPUT}"'} | ({} if config else {"AAAB": SETTING})
        cloud.answers[f"{STACK}/export"] = (200, exported({"ciphertext": "BBBC"}, cloud.url))
        cloud.answers[f"{STACK}/batch-decrypt"] = (200, plaintexts(**secret))
    if not token:
        monkeypatch.delenv("PULUMI_ACCESS_TOKEN")
    assert prepared(repo) == ("[secret] [secret]", OUTPUT)
    assert (read_by_pulumi(repo), len(cloud.asked)) == (read, requests)
    assert {headers["Authorization"] for _, headers in cloud.asked} <= {"token pul-0123456789abcdef"}
    written = repo.everything_written()
    assert not any(text in written for text in (SETTING, OUTPUT, "pul-0123456789abcdef"))


def test_a_stack_that_is_not_in_the_list_does_not_exist(repo: Repo, cloud: Served) -> None:
    repo.answer("pulumi", ["stack", "ls"], [])
    with pytest.raises(NotFound):
        prepared(repo)
    assert read_by_pulumi(repo) == ["ls"]


def test_a_backend_that_cannot_list_its_stacks_is_asked_once_a_run(repo: Repo, cloud: Served) -> None:
    repo.answer("pulumi", ["stack", "ls"], (1, "", "error: [503] Service Unavailable\n"))
    with open_session(repo.c, "doctor") as session:
        errors = []
        for name in ("postgres", "immich", "stitch"):
            with pytest.raises(OpsError, match="503") as error:
                has_stack(session, session.stack(find_service(name)))
            errors.append(error.value)
    assert errors[0] is errors[1] is errors[2]
    assert read_by_pulumi(repo) == ["ls"]


def test_of_more_states_than_fit_the_first_is_read_again(repo: Repo) -> None:
    with open_session(repo.c, "preview.postgres") as session:
        stack, known = session.stack(find_service("postgres")), session.known
        for number in range(MOST_STATES + 1):
            known.remember(replace(stack, project=f"p{number}"), ClearState(export=Export(resources=()), digest=""))
        assert len(known.states) == MOST_STATES and replace(stack, project="p0").reference not in known.states
