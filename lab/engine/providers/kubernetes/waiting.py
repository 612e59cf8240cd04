"""Waiting until an object is ready: the loop that all waits share, and how a wait ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lab.engine.cancellation import CancellationToken
from lab.engine.providers import Severity
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import name_of
from lab.engine.providers.kubernetes.watching import Event, WatchHub

POLL_SECONDS = 0.2
"""How soon a cancellation is noticed."""
REPORT_SECONDS = 10.0
"""How often a wait may repeat what is in the way (``Wait.report``)."""


class StatusLog:
    """Messages of one operation, each shown once (the real provider's "dedup logger")."""

    def __init__(self, show: Callable[[Severity, str], None]) -> None:
        self._show = show
        self._seen: set[tuple[Severity, str]] = set()

    def __call__(self, severity: Severity, message: str) -> None:
        if (severity, message) not in self._seen:
            self._seen.add((severity, message))
            self._show(severity, message)


class WaitFailed(Exception):
    """The object is there and not ready. ``reasons`` start with the sentence of ``str()``."""

    def __init__(self, message: str, live: Object, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.live = live
        self.reasons = (message, *problems)


class Wait(Protocol):
    """What it takes for one object to be ready."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Collections whose events are needed."""
        ...

    @property
    def live(self) -> Object:
        """The object as last seen."""
        ...

    def observe(self, event: Event) -> None:
        """Take a change in. May raise ``WaitFailed`` when readiness has become impossible."""
        ...

    def is_ready(self) -> bool:
        """Called after each event and at least every ``POLL_SECONDS``; may report progress."""
        ...

    def problems(self) -> list[str]:
        """Why it is not ready, for the error."""
        ...

    def report(self) -> None:
        """Repeat what is in the way."""
        ...

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        """The error for a wait that ends unready, or ``None`` when what is there is good enough."""
        ...


@dataclass
class Waiter:
    """Runs waits against one server."""

    hub: WatchHub
    cancellation: CancellationToken
    clock: Callable[[], float] = field(default=time.monotonic)

    def run(self, wait: Wait, seconds: float) -> Object:
        """Block until ready; the live object. Raises ``WaitFailed`` on time-out and cancellation."""
        deadline = self.clock() + seconds
        next_report = self.clock() + REPORT_SECONDS
        with self.hub.subscribe(*wait.paths) as events:
            while not wait.is_ready():
                event = events.next(POLL_SECONDS)
                while event is not None:
                    wait.observe(event)
                    event = events.next(0) if not wait.is_ready() else None
                is_over = self.clock() >= deadline
                if self.cancellation.is_cancelled or is_over:
                    return self._end(wait, is_cancelled=not is_over)
                if self.clock() >= next_report:
                    wait.report()
                    next_report = self.clock() + REPORT_SECONDS
        return wait.live

    def _end(self, wait: Wait, *, is_cancelled: bool) -> Object:
        if wait.is_ready():
            return wait.live
        failure = wait.ending(is_cancelled=is_cancelled)
        if failure is not None:
            raise failure
        return wait.live


def ended(live: Object, problems: Sequence[str], *, is_cancelled: bool) -> WaitFailed:
    """The usual ending of the built-in waits."""
    if is_cancelled:
        return WaitFailed(f'Resource operation was cancelled for "{name_of(live)}"', live, problems)
    return WaitFailed(f"'{name_of(live)}' timed out waiting to be Ready", live, problems)


def not_initialized(live: Object, problems: Sequence[str]) -> WaitFailed:
    """The ending of a look at an object (a refresh) that is not ready."""
    return WaitFailed(f"Resource '{name_of(live)}' was created but failed to initialize", live, problems)
