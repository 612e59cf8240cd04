"""A stack made ready for its first command: the lab makes what is missing, a real target names it."""

from __future__ import annotations

from runbooks.core.errors import NotFound, Usage
from runbooks.stacks import environments, lab_stacks, states
from runbooks.stacks.guard import read_settings
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile, missing_keys, refuse_interrupted_edit


def prepare(session: Session, service: Service) -> Stack:
    """The service's stack, ready for its first command. Done once a run.

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
        states.register_settings(session, stack, settings)
        if states.may_hold_secrets(session, stack):
            states.clear_state(session, stack)
        session.prepared[service.name] = stack
    return stack


def set_up(session: Session, service: Service) -> Stack:
    """The service's stack, which exists with its own config; bound environments are not opened.

    Raises `NotFound` or `Usage` on a real target where stack or secrets are missing.
    """
    stack = session.stack(service)
    if session.target.ephemeral:
        lab_stacks.make_stack(session, service, stack)
        return stack
    refuse_missing(session, service, stack)
    refuse_interrupted_edit(stack.settings_file)
    file = StackFile.read(stack.settings_file)
    required = (setting.key for setting in service.secrets)
    # A bound environment may provide what the file does not.
    missing = [] if file.environment else missing_keys(file, service.project_name, required)
    if missing:
        key = missing[0].removeprefix(f"{service.project_name}:")
        raise Usage(
            f"{service.name} has no value for {', '.join(missing)}",
            expected=f"every required secret in {stack.settings_file.name}",
            next_step=f"./inv --target {session.target.name} secrets.set {service.name} {key}",
        )
    return stack


def refuse_missing(session: Session, service: Service, stack: Stack) -> None:
    """Raise `NotFound` where the stack does not exist: no run creates one by itself, so that a typo makes none."""
    if not states.has_stack(session, stack):
        raise NotFound(
            f"{service.name} has no stack {stack.name!r} on {session.target.shown_backend}",
            expected=f"the stack {stack.reference}; no run creates one by itself",
            next_step=f"./inv --target {session.target.name} stack.init {service.name}",
        )
