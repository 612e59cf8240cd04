"""A stack made ready for its first command: on the lab whatever is missing is made, on a real target it is named."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import string
from collections.abc import Iterator
from pathlib import Path

from runbooks.core.errors import NotFound, Usage
from runbooks.core.files import STATE_FOLDER, make_folder, write_atomically
from runbooks.core.runner import CommandFailed
from runbooks.core.yaml_file import read_text
from runbooks.stacks import environments, states
from runbooks.stacks.guard import read_settings
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import has_stack
from runbooks.tools import pulumi
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile, kept, missing_keys, refresh_copy, refuse_cut_off

LAB_SETTINGS = "the folder of the lab's stack settings"
GENERATED_LENGTH = 32
ALPHABET = string.ascii_letters + string.digits
"""Letters and digits alone: the same text in a URL, in JSON and in a shell, so every tool's own masking finds it."""


def generated_secret() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(GENERATED_LENGTH))


def prepare(session: Session, service: Service) -> Stack:
    """The service's stack, ready for its first command.

    On the lab its settings are brought up to date, and stack and secrets made where they are missing. On a real
    target stack and secrets must be there: raises `NotFound` or `Usage` with the command that makes them. On both
    its secrets are registered with the masker, and settings that lead to another cluster are refused. Done once a run.
    """
    stack = session.prepared.get(service.name)
    if stack is None:
        stack = session.prepared[service.name] = _prepare(session, service)
    return stack


def _prepare(session: Session, service: Service) -> Stack:
    stack = set_up(session, service)
    settings = read_settings(session, stack)
    session.known.opened[(settings.path, *settings.environment)] = environments.open_bound(session, settings)
    register_secrets(session, stack, settings)
    return stack


def set_up(session: Session, service: Service) -> Stack:
    """The service's stack, which is there with its own settings; what it is bound to is not opened."""
    stack = session.stack(service)
    if session.target.ephemeral:
        _make_on_lab(session, service, stack)
    else:
        _must_be_there(session, service, stack)
    return stack


def register_secrets(session: Session, stack: Stack, settings: StackFile) -> None:
    """Give the masker every secret of the stack's settings and state; those of bound environments it knows by now.

    Their clear values stay in memory. Where stack config and state file show that there are none, nobody is asked.
    """
    states.register_settings(session, stack, settings)
    if states.may_hold_secrets(session, stack):
        states.clear_state(session, stack)


# --- a real target: nothing is made ------------------------------------------------------------------------------


def _must_be_there(session: Session, service: Service, stack: Stack) -> None:
    target = f"./inv --target {session.target.name}"
    if not has_stack(session, stack):
        raise NotFound(
            f"{service.name} has no stack {stack.name!r} on {session.target.shown_backend}",
            expected=f"the stack {stack.reference}; no run creates one by itself",
            next_step=f"{target} stack.init {service.name}",
        )
    refuse_cut_off(stack.settings_file)
    file = StackFile.read(stack.settings_file)
    if file.environment:
        return  # the bound environment may provide what the file does not
    missing = missing_keys(file, service.project_name, (setting.key for setting in service.secrets))
    if missing:
        raise Usage(
            f"{service.name} has no value for {', '.join(missing)}",
            expected=f"every required secret in {stack.settings_file.name}",
            next_step=f"{target} secrets.set {service.name} {missing[0].removeprefix(service.project_name + ':')}",
        )


# --- the lab: whatever is missing is made ------------------------------------------------------------------------


def refresh_settings(session: Session, stack: Stack) -> None:
    """Bring the lab's own copy of the stack's settings up to date with its template; real targets have no copy."""
    if not session.target.ephemeral:
        return
    if stack.config_file is None or stack.init_folder is None:
        raise Usage("the lab's target has no folder for stack settings", next_step="./inv lab.up")
    make_folder(stack.init_folder, LAB_SETTINGS)
    _copy_project_file(stack.folder / "Pulumi.yaml", stack.init_folder / "Pulumi.yaml")
    template = stack.folder / f"Pulumi.{stack.name}.yaml"
    refresh_copy(template, stack.config_file, session.target.settings.get(stack.project, {}))


def _make_on_lab(session: Session, service: Service, stack: Stack) -> None:
    make_folder(stack.settings_file.parent, LAB_SETTINGS)
    with _alone(stack.settings_file.parent):
        refresh_settings(session, stack)
        if not has_stack(session, stack):
            _make_stack(session, stack)
        for key in missing_keys(
            StackFile.read(stack.settings_file), stack.project, (setting.key for setting in service.secrets)
        ):
            value = generated_secret()
            session.masker.register(value)
            with kept(stack.settings_file):
                session.runner.check(pulumi.config_set_secret(stack, key, value))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While another run makes the same stack and its secrets, this one waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_stack(session: Session, stack: Stack) -> None:
    try:
        with kept(stack.settings_file):
            session.runner.check(pulumi.stack_init(stack))
    except CommandFailed as error:
        if "already exists" not in error.outcome.stderr:  # another run made it since this one looked
            raise
    states.was_made(session, stack)


def _copy_project_file(source: Path, copied: Path) -> None:
    text = read_text(source)
    if not copied.exists() or read_text(copied) != text:
        write_atomically(copied, text, mode=0o600, next_step=STATE_FOLDER)
