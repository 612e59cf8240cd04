"""A part of the lab, as data: what to start, what it needs, how to tell that it is ready."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Probe = Callable[[], str]
"""Asks a part whether it is ready: an empty answer is yes, anything else says what is wrong. It never raises."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One long-running process. Adding one to the lab is one entry in `control_plane.parts` or `additions.parts`."""

    name: str
    argv: tuple[str, ...]
    probe: Probe
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the little that every part gets (`supervisor.base_environment`)."""
    reads: tuple[Path, ...] = ()
    """Files it reads once at its start (settings, its own code): with another content it is started anew."""
    port: int | None = None
    """Where it listens on 127.0.0.1."""
    more_ports: tuple[int, ...] = ()
    version: str = ""
    needs: tuple[str, ...] = ()
    """Parts that must be ready before this one is started."""
    required: bool = True
    """`lab.up` fails when it does not get ready; a part that is not required is only reported."""
    ready_within: float = 60.0
    """Seconds from its start."""
    stop_signal: int = signal.SIGTERM
    stop_within: float = 10.0
    """Seconds before it is killed."""

    @property
    def fingerprint(self) -> str:
        """Changes when the part would be started differently than it was."""
        told = json.dumps([self.argv, sorted(self.env.items())])
        digest = hashlib.sha256(told.encode())
        for path in self.reads:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """One line of `lab.status`."""

    name: str
    ready: bool
    health: str
    """`ready`, `stopped`, `crashed`, or what its probe says is wrong."""
    version: str
    pid: int | None = None
    port: int | None = None
    memory: int | None = None
    """Bytes, of the process and its descendants; pages that processes share are counted once."""
