"""A stack of the lab is made once, also where two runs begin at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.core.command import Command
from runbooks.core.errors import Usage
from runbooks.core.runner import CommandFailed
from runbooks.services import find_service
from runbooks.stacks.preparation import LISTING, make_stack, set_up
from runbooks.tools import pulumi
from tests.fixtures import TREE, ScriptedSession, ended_process, outcome

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
