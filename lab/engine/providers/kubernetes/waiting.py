"""Waiting until an object is ready: the loop that all waits share, and how a wait ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lab.engine.cancellation import CancellationToken
from lab.engine.providers import Severity
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import kind_of, name_of, namespace_of, pluck
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

    def run(self, wait: Wait, seconds: float, log: StatusLog | None = None) -> Object:
        """Block until ready; the live object. Raises ``WaitFailed`` on time-out and cancellation.

        With ``log``, warning Events about the object are told as progress.
        """
        deadline = self.clock() + seconds
        next_report = self.clock() + REPORT_SECONDS
        told = f"/api/v1/namespaces/{namespace_of(wait.live) or 'default'}/events" if log is not None else ""
        with self.hub.subscribe(*wait.paths, *([told] if told else [])) as events:
            while not wait.is_ready():
                event = events.next(POLL_SECONDS)
                while event is not None:
                    if log is not None and event.path == told:
                        _tell_warning(event.object, wait.live, log)
                    elif not _is_stale(event.object, wait.live):
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


def _is_stale(obj: Object, live: Object) -> bool:
    """A shared watch may still show the state before the change that is waited for, or the object replaced by it."""
    identities = [(kind_of(one), namespace_of(one), name_of(one)) for one in (obj, live)]
    if identities[0] != identities[1]:
        return False
    if pluck(obj, "metadata", "uid") != pluck(live, "metadata", "uid"):
        return True
    versions = [pluck(one, "metadata", "resourceVersion") for one in (obj, live)]
    return all(isinstance(one, str) and one.isdigit() for one in versions) and int(versions[0]) < int(versions[1])


def _tell_warning(event: Object, live: Object, log: StatusLog) -> None:
    is_about = pluck(event, "involvedObject", "uid") == pluck(live, "metadata", "uid")
    if is_about and event.get("type") == "Warning":
        log("warning", f"{event.get('reason', '')}: {event.get('message', '')}")


def ended(live: Object, problems: Sequence[str], *, is_cancelled: bool) -> WaitFailed:
    """The usual ending of the built-in waits."""
    if is_cancelled:
        return WaitFailed(f'Resource operation was cancelled for "{name_of(live)}"', live, problems)
    return WaitFailed(f"'{name_of(live)}' timed out waiting to be Ready", live, problems)


def not_initialized(live: Object, problems: Sequence[str]) -> WaitFailed:
    """The ending of a look at an object (a refresh) that is not ready."""
    return WaitFailed(f"Resource '{name_of(live)}' was created but failed to initialize", live, problems)
