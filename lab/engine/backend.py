"""What a back end is to the commands, and the file back end: stacks, history, backups and locks below ``.pulumi/``,
laid out as the real CLI does.

Files are written to a temporary file in the same folder and renamed, so a reader, or a run after a kill, finds the old
document or the new one. Source: pulumi pkg/backend/diy.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from lab.engine.display import SecretFilter
from lab.engine.events import Event
from lab.engine.failures import CommandFailed, StackNotFound
from lab.engine.state import Snapshot, encode_deployment

ORGANIZATION = "organization"


@dataclass(frozen=True)
class StackName:
    """In a file back end the organization is always ``organization``."""

    project: str
    stack: str
    organization: str = ORGANIZATION

    @property
    def qualified(self) -> str:
        return f"{self.organization}/{self.project}/{self.stack}"


def read_stack_name(text: str, project: str) -> StackName:
    """``stack``, ``project/stack`` or ``organization/project/stack``."""
    parts = text.split("/")
    if not all(parts) or len(parts) > 3 or any(part in (".", "..") for part in parts):
        raise CommandFailed(
            f"stack names are <stack>, <project>/<stack> or {ORGANIZATION}/<project>/<stack>, not '{text}'"
        )
    if len(parts) == 3 and parts[0] != ORGANIZATION:
        raise CommandFailed(f"file back ends know only the organization '{ORGANIZATION}', not '{parts[0]}'")
    return StackName(parts[-2] if len(parts) > 1 else project, parts[-1])


@dataclass(frozen=True)
class StackSummary:
    """A line of ``stack ls``. ``last_update`` is POSIX time; it and ``resources`` are ``None`` for a cloud stack never
    updated, ``is_updating`` is ``None`` on a file back end too."""

    name: StackName
    last_update: float | None
    resources: int | None
    is_updating: bool | None = None


@dataclass(frozen=True)
class RunRequest:
    """What a back end is told before an operation. ``config`` holds settings as the settings file has them."""

    name: StackName
    kind: str
    is_preview: bool
    runtime: str = "python"
    message: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    hidden: SecretFilter = field(default_factory=lambda: SecretFilter(()), repr=False)


class Run(Protocol):
    """One operation, as the back end sees it."""

    def state(self) -> dict[str, Any] | None:
        """The deployment, now that nobody else can change it. ``None``: nobody could since it was read."""
        ...

    def save(self, deployment: dict[str, Any]) -> None:
        """Keep the state as it is now. Raises ``CommandFailed``, ``OperationFailed`` when that has been told."""
        ...

    def tell(self, event: Event) -> None:
        """An event, as it was shown."""
        ...

    def finish(self, result: str, entry: dict[str, Any]) -> None:
        """``result``: succeeded or failed. ``entry`` is for the history. Not called: the operation was cut off."""
        ...


class Backend(Protocol):
    """Stacks and their states. Failures are ``CommandFailed``."""

    @property
    def url(self) -> str: ...

    @property
    def organization(self) -> str: ...

    @property
    def lost_locks(self) -> list[str]: ...

    @property
    def title_end(self) -> str:
        """What follows ``Updating (stack)``."""
        ...

    def read_name(self, text: str, project: str) -> StackName: ...

    def read_reference(self, text: str, project: str) -> StackName:
        """As a stack reference names it."""
        ...

    def whoami(self) -> dict[str, Any]:
        """``user``, ``url`` and, of a cloud, ``organizations``."""
        ...

    def has_stack(self, name: StackName) -> bool: ...

    def stacks(self, project: str | None = None) -> list[StackSummary]: ...

    def create_stack(self, name: StackName, runtime: str) -> None: ...

    def read_latest(self, name: StackName) -> dict[str, Any]: ...

    def last_update(self, name: StackName) -> float | None: ...

    def running_update(self, name: StackName) -> tuple[float, str] | None:
        """Start (POSIX time) and author of the update that runs, where the back end knows."""
        ...

    def remove_stack(self, name: StackName) -> None: ...

    def history(self, name: StackName) -> list[dict[str, Any]]: ...

    def cancel(self, name: StackName) -> None: ...

    def locked(self, name: StackName) -> AbstractContextManager[object]:
        """Around a whole command: nobody else changes the stack meanwhile."""
        ...

    def run(self, request: RunRequest, lost: Callable[[str], None]) -> AbstractContextManager[Run]:
        """Around one operation. ``lost(why)`` is called when the back end takes the operation away from us."""
        ...


@dataclass(frozen=True)
class Lock:
    """``url`` as the real CLI names it."""

    path: Path
    url: str
    pid: int
    username: str
    hostname: str
    timestamp: str


class FileBackend:
    """``url`` is ``file://`` with an absolute path."""

    organization = ORGANIZATION
    title_end = ":"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.root = Path(unquote(parts.path))
        self.lost_locks: list[str] = []
        """What to tell about locks that somebody took away during the run; no failure of the run."""
        self._base = self.root / ".pulumi"

    # -- stacks --------------------------------------------------------------------------------------------------

    def stack_file(self, name: StackName) -> Path:
        return self._base / "stacks" / name.project / f"{name.stack}.json"

    def read_name(self, text: str, project: str) -> StackName:
        return read_stack_name(text, project)

    def read_reference(self, text: str, project: str) -> StackName:
        return read_stack_name(text, project)

    def whoami(self) -> dict[str, Any]:
        return {"user": getpass.getuser(), "url": self.url}

    def has_stack(self, name: StackName) -> bool:
        return self.stack_file(name).is_file()

    def stacks(self, project: str | None = None) -> list[StackSummary]:
        """All stacks, or one project's, sorted."""
        found = []
        for file in sorted((self._base / "stacks").glob(f"{project or '*'}/*.json")):
            name = StackName(file.parent.name, file.stem)
            resources = len(self.read_latest(name).get("resources") or ())
            found.append(StackSummary(name, self.last_update(name), resources))
        return found

    def create_stack(self, name: StackName, runtime: str) -> None:
        del runtime
        if self.has_stack(name):
            raise CommandFailed(f"stack '{name.qualified}' already exists")
        if not (self._base / "meta.yaml").exists():
            _write(self._base / "meta.yaml", "version: 1\n")
        self.write_latest(name, encode_deployment(Snapshot(), lambda text: text))

    def read_latest(self, name: StackName) -> dict[str, Any]:
        """The deployment of the last checkpoint."""
        try:
            document = json.loads(self.stack_file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StackNotFound(name.stack) from None
        except ValueError as error:
            raise CommandFailed(f"{self.stack_file(name)} is not a checkpoint: {error}") from error
        latest = document.get("checkpoint", {}).get("latest")
        return latest if isinstance(latest, dict) else {}

    def write_latest(self, name: StackName, deployment: dict[str, Any]) -> None:
        document = {"version": 3, "checkpoint": {"stack": name.qualified, "latest": deployment}}
        try:
            _write(self.stack_file(name), json.dumps(document, separators=(",", ":"), ensure_ascii=False))
        except OSError as error:
            raise CommandFailed(f"failed to save the checkpoint of stack '{name.stack}': {error}") from error

    def keep_previous(self, name: StackName) -> None:
        """Copy the checkpoint to ``.bak`` before a run changes it."""
        file = self.stack_file(name)
        with contextlib.suppress(FileNotFoundError):
            _write(file.with_name(f"{file.name}.bak"), file.read_text(encoding="utf-8"))

    def last_update(self, name: StackName) -> float:
        """POSIX time of the last write."""
        return self.stack_file(name).stat().st_mtime

    def running_update(self, name: StackName) -> tuple[float, str] | None:
        del name
        return None

    def remove_stack(self, name: StackName) -> None:
        file = self.stack_file(name)
        for path in (file, file.with_name(f"{file.name}.bak")):
            path.unlink(missing_ok=True)
        for folder in ("history", "backups"):
            shutil.rmtree(self._base / folder / name.project / name.stack, ignore_errors=True)

    # -- history -------------------------------------------------------------------------------------------------

    def add_history(self, name: StackName, entry: dict[str, Any]) -> None:
        """Keep ``entry`` with a copy of the checkpoint, and a backup."""
        stamp = time.time_ns()
        checkpoint = self.stack_file(name).read_text(encoding="utf-8")
        history = self._base / "history" / name.project / name.stack
        _write(history / f"{name.stack}-{stamp}.history.json", json.dumps(entry, indent=4))
        _write(history / f"{name.stack}-{stamp}.checkpoint.json", checkpoint)
        _write(self._base / "backups" / name.project / name.stack / f"{name.stack}.{stamp}.json", checkpoint)

    def history(self, name: StackName) -> list[dict[str, Any]]:
        """Newest first."""
        files = sorted((self._base / "history" / name.project / name.stack).glob("*.history.json"), reverse=True)
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    # -- operations ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def run(self, request: RunRequest, lost: Callable[[str], None]) -> Iterator[Run]:
        del lost  # locks are files, and their loss is told at the end
        if not request.is_preview:
            self.keep_previous(request.name)
        yield FileRun(self, request)

    # -- locks ---------------------------------------------------------------------------------------------------

    def _lock_folder(self, name: StackName) -> Path:
        return self._base / "locks" / ORGANIZATION / name.project / name.stack

    def locks(self, name: StackName) -> list[Lock]:
        found = []
        for path in sorted(self._lock_folder(name).glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                content = {}
            found.append(
                Lock(
                    path,
                    f"file://{path}?no_tmp_dir=true",
                    int(content.get("pid", 0)),
                    str(content.get("username", "")),
                    str(content.get("hostname", "")),
                    str(content.get("timestamp", "")),
                )
            )
        return found

    @contextlib.contextmanager
    def locked(self, name: StackName) -> Iterator[Lock]:
        """Hold the stack's lock. List, write, list again: of two that start together both may be refused."""
        _refuse_when_locked(self.locks(name))
        path = self._lock_folder(name) / f"{uuid.uuid4()}.json"
        content = {
            "pid": os.getpid(),
            "username": getpass.getuser(),
            "hostname": socket.gethostname(),
            "timestamp": datetime.now().astimezone().isoformat(),
        }
        _write(path, json.dumps(content, separators=(",", ":")))
        try:
            locks = self.locks(name)
            _refuse_when_locked([lock for lock in locks if lock.path != path])
            yield next(lock for lock in locks if lock.path == path)
        finally:
            self._release(path)

    def _release(self, path: Path) -> None:
        try:
            path.unlink()
        except FileNotFoundError:
            self.lost_locks.append(
                f"there was a problem deleting the lock at file://{path}?no_tmp_dir=true, manual clean up may be "
                f'required: blob (key "{path.relative_to(self.root)}") (code=NotFound): remove {path}: '
                "no such file or directory"
            )

    def cancel(self, name: StackName) -> None:
        """Removes the lock files, and does not stop the run that made them."""
        for lock in self.locks(name):
            lock.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class FileRun:
    """State and history as files."""

    backend: FileBackend
    request: RunRequest

    def state(self) -> None:
        """The lock was there before the state was read."""

    def save(self, deployment: dict[str, Any]) -> None:
        self.backend.write_latest(self.request.name, deployment)

    def tell(self, event: Event) -> None:
        """Nobody else to tell."""

    def finish(self, result: str, entry: dict[str, Any]) -> None:
        del result  # is in the entry
        if not self.request.is_preview:
            self.backend.add_history(self.request.name, entry)


def _refuse_when_locked(locks: list[Lock]) -> None:
    if not locks:
        return
    lines = [
        f"the stack is currently locked by {len(locks)} lock(s). Either wait for the other process(es) to end or "
        "delete the lock file with `pulumi cancel`."
    ]
    lines += [
        f"  {lock.url}: created by {lock.username}@{lock.hostname} (pid {lock.pid}) at {lock.timestamp}"
        for lock in locks
    ]
    raise CommandFailed("\n".join(lines))


def _write(path: Path, text: str) -> None:
    """Atomically, readable by the owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
