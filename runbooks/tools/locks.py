"""Who holds a stack, and whether that process still lives. `pulumi cancel` itself only deletes the lock file."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from runbooks.tools.pulumi import Lock

SLACK = 2.0
"""Seconds by which a clock reading may be off."""


class Holder(Enum):
    """What became of the process that took a lock. The value is what a person is told."""

    ALIVE = "lives"
    GONE = "is gone"
    ELSEWHERE = "is on another machine, out of sight"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lock and its holder."""

    lock: Lock
    holder: Holder

    def told(self) -> str:
        lock = self.lock
        if lock.is_unreadable:
            return f"a lock that names nobody, {lock.path}: whose it was cannot be told"
        if not lock.host:
            return f"an update of {lock.user or 'somebody'}, begun {lock.since}: its process {self.holder.value}"
        return f"process {lock.pid} of {lock.user} on {lock.host}, since {lock.since}: it {self.holder.value}"


def look(
    lock: Lock,
    *,
    host: str | None = None,
    is_alive: Callable[[int], bool] | None = None,
    started: Callable[[int], float | None] | None = None,
) -> Held:
    """Find out about a lock's holder. A process of that number that began after the lock was taken is another one.

    Unless it runs a pulumi operation: a clock that was set meanwhile moves every beginning, so it may be the holder.
    """
    if lock.host != (host or socket.gethostname()):
        return Held(lock=lock, holder=Holder.ELSEWHERE)
    if not (is_alive or process_is_alive)(lock.pid):
        return Held(lock=lock, holder=Holder.GONE)
    began = (started or process_started)(lock.pid)
    taken = seconds_of(lock.since)
    if began is not None and taken is not None and began > taken + SLACK and not _runs_operation(lock.pid):
        return Held(lock=lock, holder=Holder.GONE)
    return Held(lock=lock, holder=Holder.ALIVE)


OPERATIONS = frozenset({"up", "update", "destroy", "refresh", "import"})


def look_here(
    update: Lock, stack: str, folders: Collection[str], *, everybody_is_here: bool, proc: Path = Path("/proc")
) -> list[Held]:
    """Find out about an update that the cloud says is running: which processes here work on the project's folders.

    Where there are none it was started elsewhere, or, when everybody is here, its process is gone.
    """
    pids = working_on(folders, stack, proc)
    if pids:
        here = [replace(update, pid=pid, host=socket.gethostname()) for pid in pids]
        return [Held(lock=lock, holder=Holder.ALIVE) for lock in here]
    would_be_seen = everybody_is_here and (proc / "self").exists()
    return [Held(lock=update, holder=Holder.GONE if would_be_seen else Holder.ELSEWHERE)]


def working_on(folders: Collection[str], stack: str = "", proc: Path = Path("/proc")) -> list[int]:
    """Processes here that run a pulumi operation on the project in those folders: told by `-C`, or standing there.

    Not those that name another stack than the one of that name. Empty where the system does not tell (no /proc).
    """
    found = []
    for process in proc.glob("[0-9]*"):
        try:
            words = _words(process)
            if OPERATIONS.isdisjoint(words) or (stack and _other_stack(words, stack)):
                continue
            if not set(words).isdisjoint(folders) or str((process / "cwd").readlink()) in folders:
                found.append(int(process.name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return sorted(found)


def _other_stack(words: Sequence[str], stack: str) -> bool:
    named = [value for option, value in itertools.pairwise(words) if option in {"--stack", "-s"}]
    return any(value.rpartition("/")[2] != stack for value in named)


def _runs_operation(pid: int) -> bool:
    try:
        return not OPERATIONS.isdisjoint(_words(Path(f"/proc/{pid}")))
    except OSError:
        return False


def _words(process: Path) -> list[str]:
    return (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")


def process_is_alive(pid: int) -> bool:
    """Whether a process of that number exists, whoever owns it; a zombie does not count."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def process_started(pid: int) -> float | None:
    """When the process began, in seconds since the epoch; `None` where that cannot be told (not Linux)."""
    fields = _fields(pid)
    boot = _boot_time()
    if fields is None or boot is None:
        return None
    return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _state(pid: int) -> str:
    fields = _fields(pid)
    return fields[0] if fields else ""


def _fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on; the command's name before may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None


def _boot_time() -> float | None:
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


def seconds_of(timestamp: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; `None` when it is none."""
    try:
        moment = datetime.fromisoformat(_without_nanoseconds(timestamp))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _without_nanoseconds(timestamp: str) -> str:
    """Go prints up to nine digits of a second, Python 3.11 reads six."""
    head, dot, rest = timestamp.partition(".")
    if not dot:
        return timestamp
    digits = rest[: next((at for at, letter in enumerate(rest) if not letter.isdigit()), len(rest))]
    return f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
