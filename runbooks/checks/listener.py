"""Who listens on a port of this machine, from /proc: a password goes to the right process or to none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A process that listens on a port."""

    pid: int
    program: str
    """Its executable."""
    folder: Path
    """Its working directory; Postgres works in its data folder."""


class CannotTell(Exception):
    """This system, or this user's rights, do not tell who listens."""


def listeners(port: int, proc: Path = Path("/proc")) -> list[Listener]:
    """Every process that listens on TCP `port`, IPv4 or IPv6, on any address; empty when nobody does.

    Raises `CannotTell` where there is no /proc, or when the port is held by a process of another user.
    """
    if not (proc / "net" / "tcp").exists():
        raise CannotTell("this system has no /proc to look the listener up in")
    inodes = set(_inodes(port, proc))
    if not inodes:
        return []
    found = [listener for process in proc.glob("[0-9]*") if (listener := _holder(process, inodes))]
    if not found:
        raise CannotTell(f"port {port} is held by a process of another user")
    return found


def _inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        path = proc / "net" / table
        if not path.exists():
            continue
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holder(process: Path, inodes: set[str]) -> Listener | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    with contextlib.suppress(OSError):
        if wanted.isdisjoint(_open_files(process)):
            return None
        return Listener(
            pid=int(process.name),
            program=str((process / "exe").readlink()),
            folder=(process / "cwd").readlink(),
        )
    return None


def _open_files(process: Path) -> Iterator[str]:
    """What the process has open. There are thousands on a machine: plain strings, no paths."""
    folder = str(process / "fd")
    for descriptor in os.listdir(folder):  # noqa: PTH208
        with contextlib.suppress(OSError):
            yield os.readlink(f"{folder}/{descriptor}")  # noqa: PTH115


def all_within(found: list[Listener], folder: Path) -> bool:
    """Whether every listener works inside `folder`, links resolved. False for none."""
    home = folder.resolve()
    return bool(found) and all(listener.folder.is_relative_to(home) for listener in found)
