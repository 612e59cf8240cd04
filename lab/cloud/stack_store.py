"""Stacks on disk: `stacks/<project>/<stack>/` with `stack.json`, `deployment.json`, `updates/` and `versions/`."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.cloud import files
from lab.cloud.wire import ORGANIZATION, ApiError, Json, is_name

REMEMBERED = 50
"""The most ended updates of a stack that are kept, each with the deployment it left."""

EMPTY: Json = {"version": 3, "deployment": {"manifest": {"time": "0001-01-01T00:00:00Z", "magic": "", "version": ""}}}
"""The export of a stack without an update."""

RUNNING = "running"


@dataclass
class Update:
    """One operation on a stack: an update, refresh, destroy, import or preview."""

    kind: str
    """`update`, `refresh`, `destroy`, `import` or `preview` (also of the others)."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "requested"
    """`requested`, then `running`, then `succeeded`, `failed` or `cancelled`."""
    version: int = 0
    """The stack's version that it makes; 0 for a preview, which makes none."""
    created: int = 0
    started: int = 0
    ended: int = 0
    lease_until: float = 0.0
    message: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    """Secure values are ciphertext."""
    changes: dict[str, int] = field(default_factory=dict)
    """Operations by kind, from the last summary event."""

    @property
    def is_preview(self) -> bool:
        return self.kind == "preview"

    @property
    def has_lease(self) -> bool:
        return self.status == RUNNING and time.time() < self.lease_until


@dataclass
class Stack:
    """The content of `stack.json`."""

    project: str
    name: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    tags: dict[str, str] = field(default_factory=dict)
    version: int = 0
    active_update: str = ""
    resources: int = 0
    """How many resources the deployment of the last ended update has."""
    last_update: int = 0
    """Start of the last update, Unix seconds; 0 before the first."""
    sealed_for: str = ""
    """The name that its secrets are bound to, also after a rename. Empty in a stack of an older lab: its full name."""

    @property
    def full_name(self) -> str:
        return f"{ORGANIZATION}/{self.project}/{self.name}"


@dataclass
class StackStore:
    """Reads and writes stacks. Callers hold `lock` while they call a method that changes a stack."""

    root: Path
    _locks: dict[tuple[str, str], threading.RLock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files.make_private(self.root)
        files.clear_removed(self.root)

    @contextlib.contextmanager
    def lock(self, project: str, name: str) -> Iterator[Stack]:
        """The stack, with no other request working on it. Raises `ApiError` 404."""
        with self._locks.setdefault((project, name), threading.RLock()):
            yield self.load(project, name)

    def folder(self, stack: Stack) -> Path:
        return self.root / stack.project / stack.name

    def load(self, project: str, name: str) -> Stack:
        """Raises `ApiError` 404."""
        stored = None
        if is_name(project) and is_name(name):
            stored = files.read_json(self.root / project / name / "stack.json")
        if stored is None:
            raise ApiError(404, "Stack not found")
        return Stack(**stored)

    def create(self, stack: Stack) -> None:
        """Create a stack. Raises `ApiError` 409 if the name exists; the CLI matches the text."""
        with self._locks.setdefault((stack.project, stack.name), threading.RLock()):
            if (self.folder(stack) / "stack.json").exists():
                raise ApiError(409, "Stack already exists")
            files.make_private(self.folder(stack) / "updates")
            files.make_private(self.folder(stack) / "versions")
            stack.sealed_for = stack.id
            self.save(stack)

    def rename(self, stack: Stack, project: str, name: str) -> None:
        """Move the stack and rewrite its state. Raises `ApiError` 409 when there is one of that name."""
        renamed = replace(stack, project=project, name=name, sealed_for=stack.sealed_for or stack.full_name)
        if (self.folder(renamed) / "stack.json").exists():
            raise ApiError(409, "Stack already exists")
        copy = files.copy(self.folder(stack), self.root / project)
        files.write_json(copy / "stack.json", asdict(renamed))
        state = files.read_json(copy / "deployment.json")
        if state is not None:
            renamed_state = rename_state(state, (stack.project, stack.name), (project, name))
            files.write_json(copy / "deployment.json", renamed_state)
        # From here on there are two for a moment; after a crash the old one is still whole.
        copy.rename(self.folder(renamed))
        self.remove(stack)

    def save(self, stack: Stack) -> None:
        files.write_json(self.folder(stack) / "stack.json", asdict(stack))

    def remove(self, stack: Stack) -> None:
        files.remove(self.folder(stack))

    def all(self) -> list[Stack]:
        stored = (files.read_json(self.root / path / "stack.json") for path in map("/".join, files.entries(self.root)))
        return [Stack(**one) for one in stored if one is not None]

    def deployment(self, stack: Stack, version: int | None = None) -> Json:
        """Read `{version, deployment}` as the CLI sent it last, or as an earlier update left it (`ApiError` 404)."""
        if version is None or version == stack.version == 0:
            stored = files.read_json(self.folder(stack) / "deployment.json")
            return EMPTY if stored is None else dict(stored)
        stored = files.read_json(self.folder(stack) / "versions" / f"{version}.json")
        if stored is None:
            raise ApiError(404, f"no deployment of version {version} is kept")
        return dict(stored)

    def write_deployment(self, stack: Stack, deployment: Json) -> None:
        """Write the deployment, without fsync: an update writes it twice for each resource, and a lab may lose it."""
        files.write_json(self.folder(stack) / "deployment.json", deployment, survives_power_loss=False)

    def update(self, stack: Stack, update: str) -> Update:
        """Raises `ApiError` 404."""
        stored = files.read_json(self._update_file(stack, update)) if is_name(update) else None
        if stored is None:
            raise ApiError(404, "Update not found")
        return Update(**stored)

    def save_update(self, stack: Stack, update: Update) -> None:
        files.write_json(self._update_file(stack, update.id), asdict(update))

    def updates(self, stack: Stack) -> list[Update]:
        """All updates that are kept, the newest version first; previews and those not started are last."""
        stored = [files.read_json(path) for path in (self.folder(stack) / "updates").glob("*.json")]
        found = [Update(**one) for one in stored if one is not None]
        return sorted(found, key=lambda update: -update.version)

    def active(self, stack: Stack) -> Update | None:
        """The update that runs on the stack, with or without a living lease."""
        if not stack.active_update:
            return None
        update = self.update(stack, stack.active_update)
        # The server may have crashed after the update had ended and before the stack was freed.
        return update if update.status == RUNNING else None

    def end_update(self, stack: Stack, update: Update, status: str) -> None:
        """Mark it as ended, keep the deployment it left, and free the stack for the next update."""
        update.status, update.ended, update.lease_until = status, int(time.time()), 0.0
        if not update.is_preview:
            self._keep_version(stack, update.version)
        # First of all its token stops working: a checkpoint that comes later must not be taken.
        self.save_update(stack, update)
        if not update.is_preview:
            if stack.active_update == update.id:
                stack.active_update = ""
            stack.resources = len(self.deployment(stack)["deployment"].get("resources") or ())
            self.save(stack)
        self._forget_old(stack)

    def refuse_while_updating(self, stack: Stack) -> None:
        """Raise `ApiError` 409 while an update has a lease; end one whose lease has run out."""
        holder = self.active(stack)
        if holder is None:
            return
        if holder.has_lease:
            # The CLI shows this text as it is.
            raise ApiError(409, "Another update is currently in progress.")
        self.end_update(stack, holder, "failed")

    def _keep_version(self, stack: Stack, version: int) -> None:
        current = self.folder(stack) / "deployment.json"
        kept = self.folder(stack) / "versions" / f"{version}.json"
        if not current.exists():
            files.write_json(kept, EMPTY)
            return
        # The current one is replaced as a whole by every checkpoint, so the link keeps today's content.
        kept.unlink(missing_ok=True)
        os.link(current, kept)

    def _forget_old(self, stack: Stack) -> None:
        updates = self.updates(stack)
        ended = [one for one in updates if one.version and one.ended]
        yesterday = time.time() - 24 * 3600  # one that is younger may still be running
        abandoned = [one for one in updates if not one.version and (one.ended or one.created < yesterday)]
        for update in (*ended[REMEMBERED:], *abandoned):
            self._update_file(stack, update.id).unlink(missing_ok=True)
            if update.version:
                (self.folder(stack) / "versions" / f"{update.version}.json").unlink(missing_ok=True)

    def _update_file(self, stack: Stack, update: str) -> Path:
        return self.folder(stack) / "updates" / f"{update}.json"


def rename_state(state: Json, old: tuple[str, str], new: tuple[str, str]) -> Json:
    """Rewrite `{version, deployment}` for the stack's new name `new` (project, stack).

    Its URNs change, and where its secrets manager looks for the stack. With a file backend the CLI rewrites them
    (pulumi pkg/resource/edit, RenameStack), with the Pulumi Cloud the service.
    """
    prefix, renamed_prefix = (f"urn:pulumi:{stack}::{project}::" for project, stack in (old, new))
    root, renamed_root = (f"pulumi:pulumi:Stack::{project}-{stack}" for project, stack in (old, new))

    def rename_urn(text: str) -> str:
        if not text.startswith(prefix):
            return text
        rest = text.removeprefix(prefix)
        return renamed_prefix + (renamed_root if rest == root else rest)

    renamed: Json = _map_texts(state, rename_urn)
    manager = renamed["deployment"].get("secrets_providers") or {}
    if manager.get("type") == "service" and isinstance(manager.get("state"), dict):
        manager["state"] |= {"project": new[0], "stack": new[1]}
    return renamed


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map_texts(item, change) for key, item in value.items()}
    return value
