"""States on the Pulumi Cloud: read from it directly, else by pulumi, with their secrets masked either way."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotFound, OpsError
from runbooks.run import open_session
from runbooks.services import find_service
from runbooks.stacks.preparation import clear_state, has_stack, prepare
from runbooks.stacks.session import MOST_STATES, ClearState
from runbooks.tools.pulumi import Export
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY
from tests.fixtures import Repo
from tests.local_server import Served, answering

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
