"""Opened environments: evaluated once, read for a while, kept in memory only, because their secrets are plaintext."""

from __future__ import annotations

import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from lab.cloud.wire import Json, bad_request, not_found

LONGEST = 24 * 3600.0
REMEMBERED = 200
"""Sessions at a time; the oldest are forgotten first."""

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
            self._sessions = dict(list(living.items())[-REMEMBERED:])
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


# Between quotes a backslash before a quote is the one escape; any other stands for itself, as the CLIs read it.
_BRACKETS = r"""\["(?P<text>(?:[^"\\]|\\"|\\(?!"))*)"\]|\[(?P<index>\d+)\]"""
_FIRST = re.compile(rf"""(?P<name>[^.\[\]"]+)|{_BRACKETS}""")
_NEXT = re.compile(rf"""\.(?P<name>[^.\[\]"]+)|{_BRACKETS}""")


def read_path(path: str) -> list[str | int]:
    """The steps of a path, none of an empty one; raises `ApiError` 400 for an invalid one."""
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        found = (_NEXT if steps else _FIRST).match(path, position)
        if found is None:
            raise bad_request(f"invalid property path {path!r}")
        index, text = found["index"], found["text"]
        quoted = None if text is None else text.replace('\\"', '"')
        steps.append(int(index) if index is not None else found["name"] if quoted is None else quoted)
        position = found.end()
    return steps


def value_at(environment: Json, path: str) -> Json:
    """The ESC value at a path. Raises `ApiError` 400 or 404."""
    value: Json = {"value": environment.get("properties") or {}}
    for step in read_path(path):
        inner: Any = value.get("value")
        keys = range(len(inner)) if isinstance(inner, list) else inner if isinstance(inner, dict) else ()
        if step not in keys:
            raise not_found(f"property {path!r} not found")
        value = inner[step]
    return value
