"""Ports on 127.0.0.1, picked once and kept. If another process takes one, the error names that process."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

import psutil

from lab.platform import processes
from runbooks.core.errors import OpsError

LOOPBACK = "127.0.0.1"
RANGE = range(20000, 30000)
"""Below Linux's ephemeral ports, which any outgoing connection may occupy for a while."""
LINGERING = 3.0
"""Seconds to wait for a port that is in use by no visible process.

Of a killed process the first thread may be gone, and with it what /proc shows, while the others still hold its sockets.
"""


def is_free(port: int) -> bool:
    """Whether no process listens there and we can (as a server that sets SO_REUSEADDR)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def pick(taken: Iterable[int], preferred: int | None = None) -> int:
    """Pick a free port that is not in `taken`: the preferred one if it is free, else a random one of `RANGE`."""
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
    """The process that listens on the port; None without one, or if it is another user's."""
    listening = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    return next((one.pid for one in listening if one.laddr and one.laddr.port == port and one.pid), None)


class PortTaken(OpsError):
    """Another process listens on a port of the lab."""


def refuse_taken(component: str, port: int, patience: float = 0.0) -> None:
    """Raise `PortTaken` if a process still holds a port of the lab after `patience` seconds; the error names it."""
    if processes.wait_until(lambda: is_free(port), patience):
        return
    pid = holder(port)
    if pid is None and processes.wait_until(lambda: is_free(port), LINGERING):
        return
    taker = f"process {pid} ({processes.name_of(pid)})" if pid else "a process of another user"
    raise PortTaken(
        f"port {port} of the lab's {component} is taken by {taker}",
        expected=f"{LOOPBACK}:{port} free: the lab picked it at its first start and keeps it",
        next_step="end that process, or ./inv lab.reset   (a new lab picks new ports; what is in this one is lost)",
    )
