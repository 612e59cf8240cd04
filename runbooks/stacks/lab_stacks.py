"""What the lab makes by itself: stacks, its own copies of stack configs, generated secrets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import string
from collections.abc import Iterator
from pathlib import Path

from runbooks.core.errors import STATE_FOLDER, Usage
from runbooks.core.files import make_folder, write_atomically
from runbooks.core.runner import CommandFailed
from runbooks.core.yaml_file import read_text
from runbooks.stacks import states
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile, missing_keys, preserve, refresh_copy

CONFIGS = "the folder of the lab's stack configs"
GENERATED_LENGTH = 32
ALPHABET = string.ascii_letters + string.digits
"""Letters and digits alone: the same text in a URL, in JSON and in a shell, so every tool's own masking finds it."""


def generate_secret() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(GENERATED_LENGTH))


def make_stack(session: Session, service: Service, stack: Stack) -> None:
    """Bring the stack's config up to date, and make the stack and its secrets where they are missing."""
    make_folder(stack.settings_file.parent, CONFIGS)
    with _lock(stack.settings_file.parent):
        refresh_config(session, stack)
        if not states.has_stack(session, stack):
            try:
                with preserve(stack.settings_file):
                    session.runner.check(pulumi.stack_init(stack))
            except CommandFailed as error:
                if "already exists" not in error.outcome.stderr:  # another run made it meanwhile
                    raise
            states.was_made(session, stack)
        required = (setting.key for setting in service.secrets)
        for key in missing_keys(StackFile.read(stack.settings_file), stack.project, required):
            value = generate_secret()
            session.masker.register(value)
            with preserve(stack.settings_file):
                session.runner.check(pulumi.config_set_secret(stack, key, value))


def refresh_config(session: Session, stack: Stack) -> None:
    """Bring the lab's own copy of the stack config up to date with its template; real targets have no copy."""
    if not session.target.ephemeral:
        return
    if stack.config_file is None or stack.init_folder is None:
        raise Usage("the lab's target has no folder for stack configs", next_step="./inv lab.up")
    make_folder(stack.init_folder, CONFIGS)
    text, copied = read_text(stack.folder / "Pulumi.yaml"), stack.init_folder / "Pulumi.yaml"
    if not copied.exists() or read_text(copied) != text:
        write_atomically(copied, text, mode=0o600, next_step=STATE_FOLDER)
    template = stack.folder / f"Pulumi.{stack.name}.yaml"
    refresh_copy(template, stack.config_file, session.target.settings.get(stack.project, {}))


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Wait while another run makes the same stack and its secrets."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
