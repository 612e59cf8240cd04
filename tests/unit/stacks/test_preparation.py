"""A stack of the lab is made once, also where two runs begin at the same time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.core.command import Command, Outcome
from runbooks.core.mask import Masker
from runbooks.core.runner import CommandFailed
from runbooks.services import find_service
from runbooks.stacks.preparation import make_stack
from runbooks.stacks.session import Known
from runbooks.stacks.states import LISTING
from runbooks.tools.stack import Stack

POSTGRES = find_service("postgres")
MADE_BY_ANOTHER = "error: stack 'organization/postgresql/lab' already exists\n"


class Lab:
    """What making a stack needs of a session; `check` gets each command."""

    def __init__(self, root: Path, check: Callable[[Command], Any]) -> None:
        folder, own = root / "pulumi" / POSTGRES.folder, root / "stacks" / "postgresql"
        folder.mkdir(parents=True)
        (folder / "Pulumi.yaml").write_text("name: postgresql\n")
        (folder / "Pulumi.lab.yaml").write_text("config: {}\n")
        self.target = SimpleNamespace(ephemeral=True, settings={}, file_backend=root / "backend")
        self.runner = SimpleNamespace(check=check)
        self.masker = Masker()
        self.known = Known()
        self.stack = Stack(
            service="postgres", project="postgresql", name="lab", organization="organization", folder=folder,
            config_file=own / "Pulumi.lab.yaml", init_folder=own,
        )  # fmt: skip

    def make(self) -> None:
        make_stack(self, POSTGRES, self.stack)


def failing(command: Command, said: str) -> CommandFailed:
    return CommandFailed("no", Outcome(command=command, exit_code=1, seconds=0, stdout="", stderr=said))


def test_another_run_waits_while_a_stack_and_its_secrets_are_made(tmp_path: Path) -> None:
    titles: list[str] = []

    def check(command: Command) -> None:
        titles.append(command.title)
        descriptor = os.open(lab.stack.settings_file.parent, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    lab = Lab(tmp_path, check)
    lab.make()
    assert titles[0] == "create the stack organization/postgresql/lab"
    assert titles[1:] == [f"set the secret postgresql:{secret.key} of postgres" for secret in POSTGRES.secrets]


def test_the_first_stack_of_a_cloud_is_made_once(tmp_path: Path) -> None:
    titles: list[str] = []
    lab = Lab(tmp_path, lambda command: titles.append(command.title))
    lab.target.file_backend = None
    lab.known.once.answers[LISTING] = {}
    lab.make()
    lab.make()
    assert titles.count("create the stack organization/postgresql/lab") == 1


def test_a_stack_that_another_run_made_meanwhile_is_there(tmp_path: Path) -> None:
    def check(command: Command) -> None:
        if "init" in command.argv:
            raise failing(command, MADE_BY_ANOTHER)

    Lab(tmp_path, check).make()


def test_a_stack_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    def check(command: Command) -> None:
        raise failing(command, "error: no space left on device\n")

    with pytest.raises(CommandFailed):
        Lab(tmp_path, check).make()
