"""Ports on 127.0.0.1: picked once, kept, and, when somebody else took one, told by whom."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from lab.platform import processes
from runbooks.core.errors import OpsError

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 30000)
"""Below Linux's ephemeral ports, which any outgoing connection may occupy for a while."""


def is_free(port: int) -> bool:
    """Nobody listens there and we could (as a server that sets SO_REUSEADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def pick(taken: Iterable[int], preferred: int | None = None) -> int:
    """A free port outside `taken`: the preferred one when it is free, else a random one of `RANGE`."""
    avoided = set(taken)
    if preferred is not None and preferred not in avoided and is_free(preferred):
        return preferred
    for port in random.sample(RANGE, len(RANGE)):
        if port not in avoided and is_free(port):
            return port
    raise OpsError(
        f"no free port between {RANGE.start} and {RANGE.stop - 1} on {LOOPBACK}",
        expected="a few free ports for the lab",
        next_step="ss -ltnp   (what listens there)",
    )


def holder(port: int) -> int | None:
    """The process that listens on the port; None when nobody does or it is another user's."""
    inodes = set(_listening_inodes(port))
    for pid in processes.all_pids() if inodes else ():
        with contextlib.suppress(OSError):
            for descriptor in (processes.PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        return pid
    return None


def _listening_inodes(port: int) -> Iterable[str]:
    for table in ("net/tcp", "net/tcp6"):
        path: Path = processes.PROC / table
        if not path.exists():
            continue
        for line in path.read_text("ascii").splitlines()[1:]:
            fields = line.split()
            # State 0A is LISTEN; the address is hexadecimal, ip:port.
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"


LINGERING = 3.0
"""Seconds in which a port that no process shows as its own may come free.

Of a killed process the first thread may be gone, and with it what /proc shows, while the others still hold its sockets.
"""


def refuse_taken(part: str, port: int) -> None:
    """Raises `OpsError` naming the process that took a port the lab had picked earlier."""
    if is_free(port):
        return
    pid = holder(port)
    if pid is None and processes.wait_until(lambda: is_free(port), LINGERING):
        return
    who = f"process {pid} ({processes.name_of(pid)})" if pid else "a process of another user"
    raise OpsError(
        f"port {port} of the lab's {part} is taken by {who}",
        expected=f"{LOOPBACK}:{port} free: the lab picked it at its first start and keeps it",
        next_step="end that process, or ./inv lab.reset   (a new lab picks new ports; what is in this one is lost)",
    )
