"""The processes and listening ports of this machine, by psutil, which is imported when it is first needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def process_is_alive(pid: int) -> bool:
    """Whether a process with that number exists, of any user; a zombie does not count."""
    import psutil

    try:
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:  # it is gone, or another user's and hidden
        # A lock may hold any number; psutil fails for one that no process can have.
        return pid < 2**31 and bool(psutil.pid_exists(pid))


def list_processes(*facts: str) -> Iterator[dict[str, Any]]:
    """`pid` and these facts, by psutil's names, of every process; `None` for what this user may not see."""
    import psutil

    for process in psutil.process_iter(["pid", *facts]):
        yield process.info


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A process that listens on a port."""

    pid: int
    program: str
    """Its executable."""
    folder: Path
    """Its working directory; Postgres works in its data folder."""


class ListenerUnknown(Exception):
    """This system, or this user's rights, do not allow seeing which process listens."""


def listeners(port: int) -> list[Listener]:
    """The processes that listen on TCP `port`, on any address. Raises `ListenerUnknown`, e.g. for another user's."""
    import psutil

    try:
        held = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        raise ListenerUnknown("this system does not show which process listens") from None
    pids = {each.pid for each in held if each.laddr and each.laddr.port == port}
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid or 0)
            found.append(Listener(pid=process.pid, program=process.exe(), folder=Path(process.cwd())))
    if pids and (None in pids or not found):
        raise ListenerUnknown(f"port {port} is held by a process of another user")
    return found
