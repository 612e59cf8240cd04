"""Finds the holder of a stack, and whether it is alive. `pulumi cancel` itself only deletes the lock file."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runbooks.core.processes import list_processes, process_is_alive
from runbooks.tools.stack import Stack

SLACK = 2.0
"""Seconds by which a clock reading may be off."""
OPERATIONS = frozenset({"up", "update", "destroy", "refresh", "import"})


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The lock of a stack, or an update in progress on the cloud."""

    pid: int
    """0 on the cloud, which does not know the process."""
    user: str
    host: str
    since: str
    """RFC 3339; for the cloud, the text that it prints, e.g. `2 minutes ago`."""
    path: Path | None = None

    @property
    def is_unreadable(self) -> bool:
        """Whether the lock file names no holder: a full disk or a power cut left it empty. pulumi still respects it."""
        return self.path is not None and not self.host

    @property
    def identity(self) -> tuple[int, str, str, str]:
        """Identifies the lock. `since` is not part of it on the cloud, which prints a growing age."""
        return (self.pid, self.user, self.host, self.since if self.path else "")


class Holder(Enum):
    """The process that took a lock. The value is shown."""

    ALIVE = "is alive"
    GONE = "is gone"
    ELSEWHERE = "is on another machine, and cannot be seen"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lock and its holder."""

    lock: Lock
    holder: Holder

    def describe(self) -> str:
        lock = self.lock
        if lock.is_unreadable:
            return f"a lock without an owner, {lock.path}"
        if not lock.host:
            return f"an update of {lock.user or 'an unknown user'}, begun {lock.since}: its process {self.holder.value}"
        return f"process {lock.pid} of {lock.user} on {lock.host}, since {lock.since}: it {self.holder.value}"


def lock_folder(stack: Stack, backend: str) -> Path | None:
    """Where a `file://` backend keeps the stack's locks; `None` for every other backend."""
    parts = urlsplit(backend)
    if parts.scheme != "file":
        return None
    root = Path(unquote(parts.path)).expanduser()
    return root / ".pulumi" / "locks" / stack.organization / stack.project / stack.name


def locks_in(folder: Path) -> tuple[Lock, ...]:
    """The locks in that folder. A file that cannot be read counts as a lock."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_lock(path.read_text(encoding="utf-8"), path))
        except FileNotFoundError:  # released in the meantime
            continue
        except (ValueError, TypeError, AttributeError):
            found.append(Lock(pid=0, user="", host="", since="", path=path))
    return tuple(found)


def read_lock(text: str, path: Path | None = None) -> Lock:
    """A lock file of a file backend. Raises `ValueError`, `TypeError` or `AttributeError` for anything else."""
    answer = json.loads(text)
    return Lock(
        pid=int(answer.get("pid") or 0),
        user=str(answer.get("username", "")),
        host=str(answer.get("hostname", "")),
        since=str(answer.get("timestamp", "")),
        path=path,
    )


CURRENT_UPDATE = re.compile(
    r"^\s*Update in progress:\s*^\s*Started:\s*(?P<since>.*?)\s*$(?:\s*^\s*Requested By:\s*(?P<user>.*?)\s*$)?",
    re.MULTILINE,
)


def read_current_update(text: str) -> Lock | None:
    """The update in progress that `pulumi stack` prints on the cloud, if there is one."""
    found = CURRENT_UPDATE.search(text)
    return Lock(pid=0, user=found["user"] or "", host="", since=found["since"]) if found else None


def find_holder(lock: Lock) -> Held:
    """Find the holder of a lock. A process with its number that started after the lock was taken is another one.

    An exception is one that runs a pulumi operation: setting the clock moves every start time, so it may be the holder.
    """
    if lock.host != socket.gethostname():
        return Held(lock=lock, holder=Holder.ELSEWHERE)
    if not process_is_alive(lock.pid):
        return Held(lock=lock, holder=Holder.GONE)
    taken = seconds_of(lock.since)
    is_another = taken is not None and any(
        (process["create_time"] or 0) > taken + SLACK and OPERATIONS.isdisjoint(process["cmdline"] or ())
        for process in list_processes("create_time", "cmdline")
        if process["pid"] == lock.pid
    )
    return Held(lock=lock, holder=Holder.GONE if is_another else Holder.ALIVE)


def find_holders(update: Lock, stack: str, folders: Collection[str], *, only_this_machine: bool) -> list[Held]:
    """Find the processes of an update that is in progress on the cloud: those that work on the project's folders here.

    Without one it was started elsewhere, or, if only this machine uses the cloud, its process is gone.
    """
    here = [replace(update, pid=pid, host=socket.gethostname()) for pid in working_on(folders, stack)]
    if here:
        return [Held(lock=lock, holder=Holder.ALIVE) for lock in here]
    return [Held(lock=update, holder=Holder.GONE if only_this_machine else Holder.ELSEWHERE)]


def working_on(folders: Collection[str], stack: str = "") -> list[int]:
    """Processes that run a pulumi operation in one of those folders, by `-C` or by their working directory.

    Without those that name another stack than `stack`.
    """
    found = []
    for process in list_processes("cmdline", "cwd"):
        words = process["cmdline"] or []
        stacks = [value for option, value in itertools.pairwise(words) if option in {"--stack", "-s"}]
        is_other = bool(stack) and any(value.rpartition("/")[2] != stack for value in stacks)
        if not OPERATIONS.isdisjoint(words) and not is_other and not {*words, process["cwd"]}.isdisjoint(folders):
            found.append(process["pid"])
    return sorted(found)


def seconds_of(timestamp: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; `None` for anything else."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
