"""What stacks' states hold. A file backend's own file is read, the Pulumi Cloud is asked, else pulumi is.

An answer is kept, in memory, until something may have changed the state (`forget`). It is the clear one, so that every
secret in it is known to the masker before anything of it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import OpsError
from runbooks.stacks.plan import hash_files, hash_text
from runbooks.stacks.session import ClearState, Session
from runbooks.tools import pulumi
from runbooks.tools.cloud import Cloud, CloudError, token_for
from runbooks.tools.failures import explain
from runbooks.tools.secret_values import SECRET_SIGNATURE, secrets_in_config, secrets_in_export
from runbooks.tools.stack import Stack
from runbooks.tools.stack_api import NotTold, StackApi
from runbooks.tools.stack_config import StackFile

Told = TypeVar("Told")

SUFFIXES = (".gz", ".zst", "")
"""Of a state file; the first two where the user's pulumi was told to compress."""


def has_stack(session: Session, stack: Stack) -> bool:
    """Whether the backend holds the stack. Every backend but a file one is asked once a run, for all stacks."""
    if session.target.file_backend is not None:
        return _file(session, stack) is not None
    return row_of(session, stack) is not None


def is_deployed(session: Session, stack: Stack) -> bool:
    """Whether the stack exists and its state holds resources: a preview on the lab leaves an empty one."""
    return has_stack(session, stack) and bool(state_of(session, stack).own_resources)


def row_of(session: Session, stack: Stack) -> pulumi.StackRow | None:
    """The stack's line in the backend's listing, which is asked for once a run. Raises what pulumi's failure means."""
    with session.known.one_at_a_time("listing"):
        if session.known.unlisted is not None:
            raise session.known.unlisted
        if session.known.listed is None:
            try:
                session.known.listed = _listed(session, stack)
            except OpsError as error:
                session.known.unlisted = error
                raise
        return session.known.listed.get(stack.reference)


def _listed(session: Session, stack: Stack) -> dict[str, pulumi.StackRow]:
    found = _told_by_cloud(session, lambda api: api.stacks(stack.organization))
    if found is not None:
        return found
    asked = session.runner.run(pulumi.stack_ls(stack))
    if not asked.ok:
        raise explain(asked, stack)
    return {row.reference(stack): row for row in pulumi.read_stacks(asked.stdout)}


def was_made(session: Session, stack: Stack) -> None:
    """The stack is there from now on."""
    if session.known.listed is not None:
        session.known.listed[stack.reference] = pulumi.StackRow(name=stack.name)


def forget(session: Session, stack: Stack) -> None:
    """The state may be another one from now on."""
    session.known.states.pop(stack.reference, None)


def state_of(session: Session, stack: Stack, *, after_interrupt: bool = False) -> pulumi.Export:
    """What the state holds; `after_interrupt` when that is asked of a run that was told to stop.

    Secrets in it are ciphertext where it comes from a file, clear elsewhere.
    """
    path = state_file(session, stack)
    if path is not None:
        return pulumi.read_checkpoint(path.read_text(encoding="utf-8"))
    return clear_state(session, stack, after_interrupt=after_interrupt).export


def state_hash(session: Session, stack: Stack) -> str:
    path = state_file(session, stack)
    return hash_files([path]) if path is not None else clear_state(session, stack).digest


def may_hold_secrets(session: Session, stack: Stack) -> bool:
    """False only where a file backend's plain state shows that no value in it is secret."""
    path = state_file(session, stack)
    return path is None or SECRET_SIGNATURE in path.read_text(encoding="utf-8")


def clear_state(session: Session, stack: Stack, *, after_interrupt: bool = False) -> ClearState:
    """The state with its secrets, each of them registered with the masker before this returns.

    Raises what pulumi's failure means.
    """
    with session.known.one_at_a_time(stack.reference):
        found = session.known.states.get(stack.reference)
        if found is None:
            text = _told_by_cloud(session, lambda api: api.clear_export(stack.reference))
            if text is None:
                text = in_plaintext(session, pulumi.stack_export(stack, show_secrets=True), stack, after_interrupt)
            session.masker.register_all(secrets_in_export(text))
            found = ClearState(export=pulumi.read_export(text), digest=hash_text(text))
            if session.target.file_backend is None:
                session.known.states[stack.reference] = found
        return found


def register_settings(session: Session, stack: Stack, file: StackFile) -> None:
    """Give the masker every secret of the stack config. Raises what pulumi's failure means.

    Nobody is asked where there are none. What bound environments provide is registered where they are opened.
    """
    if not file.has_encrypted_values:
        return
    if not file.has_own_key:
        found = _told_by_cloud(session, lambda api: api.decrypt(stack.reference, file.ciphertexts))
        if found is not None:
            session.masker.register_all(found.values())
            return
    listed = in_plaintext(session, pulumi.config_list(stack, show_secrets=True), stack)
    session.masker.register_all(secrets_in_config(listed))


def _told_by_cloud(session: Session, ask: Callable[[StackApi], Told]) -> Told | None:
    """The cloud's own answer, which takes no process; `None` where pulumi has to be asked, which also says why."""
    cloud = cloud_of(session)
    if cloud is None:
        return None
    try:
        return ask(StackApi(cloud=cloud))
    except (CloudError, NotTold):
        return None


def cloud_of(session: Session) -> Cloud | None:
    """The backend, where it is the Pulumi Cloud and its token can be read: a key ring is for pulumi alone."""
    url = session.target.backend
    if session.target.has_diy_backend:
        return None
    with session.known.one_at_a_time("cloud"):
        if session.known.cloud is None:
            token = token_for(url, session.env, Path(session.env["PULUMI_CREDENTIALS_PATH"]))
            session.masker.register_all([token] if token else [])
            session.known.cloud = Cloud(url=url, token=token) if token else None
        return session.known.cloud


def in_plaintext(session: Session, command: Command, stack: Stack, after_interrupt: bool = False) -> str:
    """What a confidential command answers. Raises what its failure means; its standard output stays unseen then."""
    outcome = session.runner.run(command, after_interrupt=after_interrupt)
    if not outcome.ok:
        raise in_confidence(session, outcome, stack)
    return outcome.stdout


def in_confidence(session: Session, failure: Outcome, stack: Stack) -> OpsError:
    """What the failure of a confidential command means.

    Its standard output stays unseen; what pulumi says on standard error when it fails holds no values, and is masked.
    """
    return explain(replace(failure, shown_stderr=session.masker.mask(failure.stderr)), stack)


def state_file(session: Session, stack: Stack) -> Path | None:
    """The state on a file backend, where it can be read without starting pulumi: not compressed."""
    path = _file(session, stack)
    return path if path is not None and path.suffix == ".json" else None


def _file(session: Session, stack: Stack) -> Path | None:
    folder = session.target.file_backend
    if folder is None:
        return None
    kept = folder / ".pulumi" / "stacks" / stack.project
    return next((path for suffix in SUFFIXES if (path := kept / f"{stack.name}.json{suffix}").exists()), None)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def outputs_digest(session: Session, stack: Stack) -> str:
    """One hash over what the stack's outputs are, secret ones by their values.

    Their ciphertexts do not do: pulumi encrypts every secret of a state anew at each update, changed or not
    (pkg/resource/stack/secrets.go). The values are asked for once a state and stay in memory.
    """
    held = canonical(state_of(session, stack).outputs)
    if state_file(session, stack) is None or SECRET_SIGNATURE not in held:
        return hash_text(held)
    known = hash_text(held)
    with session.known.one_at_a_time("digests"):
        if known not in session.known.digests:
            session.known.digests[known] = hash_text(canonical(clear_state(session, stack).outputs))
        return session.known.digests[known]
