"""What stacks' states hold. A file back end's own file is read, the Pulumi Cloud is asked, else pulumi is.

An answer is kept, in memory, until something may have changed the state (`forget`). It is the clear one, so that every
secret in it is known to the masker before anything of it is shown.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runbooks.lib import pulumi
from runbooks.lib.cloud import Cloud, CloudError, token_for
from runbooks.lib.command import Command, Outcome
from runbooks.lib.errors import OpsError
from runbooks.lib.failures import explain
from runbooks.lib.plan import hash_files, hash_text
from runbooks.lib.secret_values import SECRET_SIGNATURE, secrets_in_config, secrets_in_export, unwrapped
from runbooks.lib.stack_api import NotTold, StackApi
from runbooks.lib.stackfile import StackFile
from runbooks.lib.stacks import Stack

if TYPE_CHECKING:
    from runbooks.lib.esc import Opened
    from runbooks.session import Session

Told = TypeVar("Told")

SUFFIXES = (".gz", ".zst", "")
"""Of a state file; the first two where the user's pulumi was told to compress."""


@dataclass
class Known:
    """What this run was told so far. Read and written from several threads."""

    states: dict[str, ClearState] = field(default_factory=dict, repr=False)
    """By the stack's reference."""
    listed: dict[str, pulumi.StackRow] | None = None
    """The stacks there are, by their references; `None` while nobody was asked."""
    unlisted: OpsError | None = field(default=None, repr=False)
    """Why nobody could say which there are: not tried again for every service, as a silent server costs minutes."""
    cloud: Cloud | None = None
    """The back end, once it was asked for."""
    opened: dict[tuple[Path | str, ...], list[Opened]] = field(default_factory=dict, repr=False)
    """By a settings file and what it binds: opened to prepare the stack, and not yet used for its plan."""
    digests: dict[str, str] = field(default_factory=dict, repr=False)
    """Of outputs in a state file: hash of them as they stand there → hash of the values."""
    _locks: dict[str, threading.RLock] = field(default_factory=dict, repr=False)

    def one_at_a_time(self, what: str) -> threading.RLock:
        """The lock under which `what` is asked for, so that side by side it is asked for once."""
        return self._locks.setdefault(what, threading.RLock())


@dataclass(frozen=True, kw_only=True)
class ClearState:
    """The state with its secrets, as `stack export --show-secrets` tells it."""

    export: pulumi.Export
    digest: str

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Output → value, nothing hidden."""
        return {str(name): unwrapped(value) for name, value in self.export.outputs.items()}


def has_stack(session: Session, stack: Stack) -> bool:
    """Whether the back end holds the stack. Every back end but a file one is asked once a run, for all stacks."""
    if session.target.file_backend is not None:
        return _file(session, stack) is not None
    return row_of(session, stack) is not None


def row_of(session: Session, stack: Stack) -> pulumi.StackRow | None:
    """The stack's line in the back end's listing, which is asked for once a run. Raises what pulumi's failure means."""
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
    """False only where a file back end's plain state shows that no value in it is secret."""
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
                text = in_clear(session, pulumi.stack_export(stack, show_secrets=True), stack, after_interrupt)
            session.masker.register_all(secrets_in_export(text))
            found = ClearState(export=pulumi.read_export(text), digest=hash_text(text))
            if session.target.file_backend is None:
                session.known.states[stack.reference] = found
        return found


def register_settings(session: Session, stack: Stack, file: StackFile) -> None:
    """Give the masker every secret of the stack's settings file. Raises what pulumi's failure means.

    Nobody is asked where there are none. What bound environments provide is registered where they are opened.
    """
    if not file.has_encrypted_values:
        return
    if not file.has_own_key:
        found = _told_by_cloud(session, lambda api: api.decrypt(stack.reference, file.ciphertexts))
        if found is not None:
            session.masker.register_all(found.values())
            return
    listed = in_clear(session, pulumi.config_list(stack, show_secrets=True), stack)
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
    """The back end, where it is the Pulumi Cloud and its token can be read: a key ring is for pulumi alone."""
    url = session.target.backend
    if session.target.has_diy_backend:
        return None
    with session.known.one_at_a_time("cloud"):
        if session.known.cloud is None:
            token = token_for(url, session.env, Path(session.env["PULUMI_CREDENTIALS_PATH"]))
            session.masker.register_all([token] if token else [])
            session.known.cloud = Cloud(url=url, token=token) if token else None
        return session.known.cloud


def in_clear(session: Session, command: Command, stack: Stack, after_interrupt: bool = False) -> str:
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
    """The state on a file back end, where it can be read without starting pulumi: not compressed."""
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
