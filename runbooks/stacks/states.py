"""Reads the states of stacks: from a file backend's own file, from the Pulumi Cloud, or through pulumi.

An answer stays in memory until something may have changed the state (`forget`). It is the one in plaintext, so that
every secret in it is registered with the masker before anything of it is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runbooks.core.command import Command
from runbooks.core.errors import OpsError
from runbooks.stacks.service import Service
from runbooks.stacks.session import ClearState, Session
from runbooks.tools import pulumi
from runbooks.tools.cloud import Cloud, NoAnswer, token_for
from runbooks.tools.failures import explain
from runbooks.tools.secret_values import SECRET_SIGNATURE, secrets_in_config, secrets_in_export
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile

Answer = TypeVar("Answer")

SUFFIXES = (".gz", ".zst", "")
"""Suffixes of a state file; the first two are of compressed ones."""


def has_stack(session: Session, stack: Stack) -> bool:
    """Whether the backend holds the stack. Raises the error for pulumi's failure."""
    # A file backend needs no process: the file exists or not. Any other backend is listed once a run.
    if session.target.file_backend is not None:
        return _find_file(session, stack) is not None
    return row_of(session, stack) is not None


def is_deployed(session: Session, stack: Stack) -> bool:
    """Whether the stack exists and its state holds resources: a preview on the lab leaves an empty one."""
    return has_stack(session, stack) and bool(state_of(session, stack).own_resources)


LISTING = "stacks"


def row_of(session: Session, stack: Stack) -> pulumi.StackRow | None:
    """The stack's line in the backend's list, which is read once a run. Raises the error for pulumi's failure."""

    def read() -> dict[str, pulumi.StackRow] | OpsError:
        try:
            rows = pulumi.read_stacks(run_pulumi(session, pulumi.stack_ls(stack), stack))
        except OpsError as error:
            return error  # that is not tried again for every service, as a silent server costs minutes
        return {row.reference(stack): row for row in rows}

    listed = session.known.once.read(LISTING, read)
    if isinstance(listed, OpsError):
        raise listed
    return listed.get(stack.reference)


def state_of(session: Session, stack: Stack, *, after_interrupt: bool = False) -> pulumi.Export:
    """Read the stack's state. Its secrets are ciphertext if it comes from a file, else plaintext.

    `after_interrupt`: also in a run that was interrupted.
    """
    path = state_file(session, stack)
    if path is not None:
        return pulumi.read_checkpoint(path.read_text(encoding="utf-8"))
    return clear_state(session, stack, after_interrupt=after_interrupt).export


def exports_of(session: Session, service: Service) -> Mapping[str, Any]:
    """The outputs of the service's stack, secrets as in `state_of`; empty without a stack."""
    stack = session.stack(service)
    return state_of(session, stack).outputs if has_stack(session, stack) else {}


def in_its_namespace(session: Session, service: Service) -> Service:
    """The service with the namespace that its stack exports: its config may have moved it. Never raises."""
    try:
        found = exports_of(session, service).get("k8s_namespace")
    except OpsError:
        # A caller that needs more of the state reports why it cannot be read.
        found = None
    return replace(service, namespace=found) if isinstance(found, str) and found else service


def clear_state(session: Session, stack: Stack, *, after_interrupt: bool = False) -> ClearState:
    """The state with its secrets in plaintext, each registered with the masker before this returns.

    Raises the error for pulumi's failure.
    """
    with session.known.once.lock(stack.reference):
        found = session.known.states.get(stack.reference)
        if found is None:
            text = _from_cloud(session, lambda cloud: cloud.export(stack.reference))
            if text is None:
                text = run_pulumi(
                    session, pulumi.stack_export(stack, show_secrets=True), stack, after_interrupt=after_interrupt
                )
            session.masker.register_all(secrets_in_export(text))
            found = ClearState(export=pulumi.read_export(text), digest=hash_text(text))
            # A state file is read each time, which is fast and shows whether it changed.
            if session.target.file_backend is None:
                session.known.remember(stack, found)
        return found


def sealed_state(session: Session, stack: Stack) -> pulumi.Export:
    """The state with its secrets as ciphertext, which needs no key. Raises the error for pulumi's failure."""
    text = _from_cloud(session, lambda cloud: cloud.export(stack.reference, show_secrets=False))
    return pulumi.read_export(text or run_pulumi(session, pulumi.stack_export(stack), stack))


def register_secrets(session: Session, stack: Stack, file: StackFile) -> None:
    """Register every secret of the stack's config and state with the masker. Raises the error for pulumi's failure.

    The values of bound environments are registered when they are opened.
    """
    if file.has_encrypted_values:
        # The cloud has no key of a config that has its own.
        found = (
            None if file.has_own_key else _from_cloud(session, lambda it: it.decrypt(stack.reference, file.ciphertexts))
        )
        if found is None:
            listed = run_pulumi(session, pulumi.config_list(stack), stack)
            session.masker.register_all(secrets_in_config(listed))
        else:
            session.masker.register_all(found.values())
    path = state_file(session, stack)
    # A plain state of a file backend can show that no value in it is secret, without a run of pulumi.
    if path is None or SECRET_SIGNATURE in path.read_text(encoding="utf-8"):
        clear_state(session, stack)


def _from_cloud(session: Session, read: Callable[[Cloud], Answer]) -> Answer | None:
    """The answer of the Pulumi Cloud, without a process; `None` if pulumi has to be run, which reports the reason."""

    def log_in() -> Cloud | None:
        url = session.target.backend
        token = token_for(url, session.env, Path(session.env["PULUMI_CREDENTIALS_PATH"]))
        session.masker.register_all([token] if token else [])
        return Cloud(url=url, token=token) if token else None

    if session.target.has_diy_backend:
        return None
    cloud = session.known.once.read("cloud", log_in)
    # Without an answer pulumi runs: it supports more logins and explains a failure (docs/decisions/0007).
    try:
        return read(cloud) if cloud is not None else None
    except NoAnswer:
        return None


def run_pulumi(session: Session, command: Command, stack: Stack, *, after_interrupt: bool = False) -> str:
    """The standard output of a command of pulumi. Raises the error for its failure.

    Of a confidential command the standard output is never shown. Its standard error contains no values when it fails,
    and is masked.
    """
    outcome = session.runner.run(command, after_interrupt=after_interrupt)
    if not outcome.ok:
        shown = session.masker.mask(outcome.stderr) if command.confidential else outcome.shown_stderr
        raise explain(replace(outcome, shown_stderr=shown), stack)
    return outcome.stdout


def state_file(session: Session, stack: Stack) -> Path | None:
    """The state on a file backend, if it can be read without pulumi: not compressed."""
    path = _find_file(session, stack)
    return path if path is not None and path.suffix == ".json" else None


def _find_file(session: Session, stack: Stack) -> Path | None:
    folder = session.target.file_backend
    if folder is None:
        return None
    stacks = folder / ".pulumi" / "stacks" / stack.project
    return next((path for suffix in SUFFIXES if (path := stacks / f"{stack.name}.json{suffix}").exists()), None)


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
