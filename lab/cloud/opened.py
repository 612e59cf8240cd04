"""Opened environments: evaluated once, read for a while, kept in memory only, because their secrets are plaintext."""

from __future__ import annotations

import re
import threading
import time
import uuid
from dataclasses import dataclass, field

from lab.cloud.wire import Json, bad_request, not_found

LONGEST = 24 * 3600.0
KEPT = 200
"""Sessions at a time; the oldest go first."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class _Session:
    of: str
    environment: Json = field(repr=False)
    until: float


@dataclass
class Opened:
    """The sessions of `open` and `yaml/open`."""

    _sessions: dict[str, _Session] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, of: str, environment: Json, seconds: float) -> str:
        """A new session's id; `of` is the environment's name, or that of the nameless one."""
        session = str(uuid.uuid4())
        with self._lock:
            living = {name: one for name, one in self._sessions.items() if one.until > time.monotonic()}
            living[session] = _Session(of, environment, time.monotonic() + min(seconds, LONGEST))
            self._sessions = dict(list(living.items())[-KEPT:])
        return session

    def get(self, of: str, session: str) -> Json:
        """What the environment evaluated to; raises `ApiError` 404 when the session is over or another's."""
        found = self._sessions.get(session)
        if found is None or found.of != of or found.until < time.monotonic():
            raise not_found("open environment not found: it has expired, or the cloud was restarted")
        return found.environment


def read_duration(text: str) -> float:
    """Seconds, of a duration as Go writes it (`2h0m0s`); two hours when empty. Raises `ApiError` 400."""
    if not text:
        return 2 * 3600.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise bad_request(f"invalid duration {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
