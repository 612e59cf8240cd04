"""Makes a stack ready for its first command. The lab creates what is missing; a real target's error names it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from runbooks.core.errors import STATE_FOLDER, NotFound, Usage
from runbooks.core.files import make_folder, write_atomically
from runbooks.core.runner import CommandFailed
from runbooks.core.yaml_file import read_text
from runbooks.stacks import environments, states
from runbooks.stacks.guard import read_settings
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.secret_values import generate_secret
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile, missing_keys, preserve, refresh_copy, refuse_interrupted_edit

CONFIGS = "the folder of the lab's stack configs"


def prepare(session: Session, service: Service) -> Stack:
    """Prepare the service's stack for its first command, once a run, and return it.

    On the lab its config is brought up to date, and stack and secrets are made where they are missing. On a real target
    stack and secrets must be there: raises `NotFound` or `Usage` with the command that makes them. On both its secrets
    are registered with the masker, and a config that leads to another cluster is refused.
    """
    stack = session.prepared.get(service.name)
    if stack is None:
        stack = set_up(session, service)
        settings = read_settings(session, stack)
        # Registers the secrets of what is bound; those of config and state follow. Their plaintext stays in memory.
        session.known.opened[(settings.path, *settings.environment)] = environments.open_bound(session, settings)
        states.register_secrets(session, stack, settings)
        # Last: another thread must not find a stack whose secrets are not registered yet.
        session.prepared[service.name] = stack
    return stack


def set_up(session: Session, service: Service) -> Stack:
    """Find the service's stack and check its own config, without opening bound environments.

    Raises `NotFound` or `Usage` on a real target where stack or secrets are missing.
    """
    stack = find_stack(session, service)
    if session.target.ephemeral:
        return stack
    refuse_interrupted_edit(stack.settings_file)
    file = StackFile.read(stack.settings_file)
    if not file.environment:  # which may provide what the file does not
        refuse_missing(session, service, file, ())
    return stack


def refuse_missing(session: Session, service: Service, file: StackFile, plain: Iterable[str]) -> None:
    """Raise `Usage` for the secrets, and the plain settings, of the service that its stack config lacks."""
    secret = [setting.key for setting in service.secrets]
    missing = missing_keys(file, service.project_name, [*plain, *secret])
    if missing:
        key = missing[0].removeprefix(f"{service.project_name}:")
        by_hand = f"pulumi config set {missing[0]} VALUE in pulumi/{service.folder}"
        raise Usage(
            f"{service.name} has no value for {', '.join(missing)}",
            expected=f"every required setting in {file.path.name}",
            next_step=f"./inv --target {session.target.name} secrets.set {service.name} {key}"
            if key in secret
            else by_hand,
        )


def find_stack(session: Session, service: Service) -> Stack:
    """Find the service's stack. The lab creates a missing one, with its secrets.

    Raises `NotFound` on a real target: no run creates a stack there by itself, so that a typo makes none.
    """
    stack = session.stack(service)
    if session.target.ephemeral:
        make_stack(session, service, stack)
    elif not states.has_stack(session, stack):
        raise NotFound(
            f"{service.name} has no stack {stack.name!r} on {session.target.shown_backend}",
            expected=f"the stack {stack.reference}; no run creates one by itself",
            next_step=f"./inv --target {session.target.name} stack.init {service.name}",
        )
    return stack


def outputs_of(session: Session, name: str) -> dict[str, object]:
    """The outputs of the service called `name` as its state holds them (secrets encrypted); empty before an update."""
    return dict(states.state_of(session, prepare(session, session.service(name))).outputs)


# What the lab makes by itself: its own copies of stack configs, stacks, generated secrets


def make_stack(session: Session, service: Service, stack: Stack) -> None:
    """Bring the stack's config up to date, and make the stack and its secrets where they are missing."""
    make_folder(stack.settings_file.parent, CONFIGS)
    # Without the lock, two runs could generate one secret twice, and the database would have the first value.
    with _lock(stack.settings_file.parent):
        refresh_config(session, stack)
        if not states.has_stack(session, stack):
            try:
                with preserve(stack.settings_file):
                    session.runner.check(pulumi.stack_init(stack))
            except CommandFailed as error:
                if "already exists" not in error.outcome.stderr:  # another run made it meanwhile
                    raise
            listed = session.known.once.answers.get(states.LISTING)
            if isinstance(listed, dict):  # also an empty one, of a new lab
                listed[stack.reference] = pulumi.StackRow(name=stack.name)
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


def config_file_of(session: Session, service: Service) -> Path:
    """The stack config; on the lab a private copy, brought up to date."""
    stack = session.stack(service)
    refresh_config(session, stack)
    return stack.settings_file
