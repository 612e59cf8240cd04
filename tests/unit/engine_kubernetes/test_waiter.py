"""The loop around waits: what reaches a wait, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from lab.engine.cancellation import CancellationToken
from lab.engine.providers.kubernetes.storage import StateWait
from lab.engine.providers.kubernetes.waiting import StatusLog, Waiter, WaitFailed
from lab.engine.providers.kubernetes.watching import Event, EventType

PATH, EVENTS = "/api/v1/namespaces/n/things", "/api/v1/namespaces/n/events"


def thing(version: int, phase: str, uid: str = "u") -> dict[str, Any]:
    metadata = {"name": "o", "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"phase": phase}}


class Hub:
    """Gives prepared events, then nothing."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.paths: tuple[str, ...] = ()

    def subscribe(self, *paths: str) -> Hub:
        self.paths = paths
        return self

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def next(self, seconds: float) -> Event | None:
        return self.events.pop(0) if self.events else None


def event(obj: dict[str, Any], kind: EventType = "MODIFIED", path: str = PATH) -> Event:
    return Event(path, kind, obj)


class Clock:
    """Every look costs a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def run(hub: Hub, *, seconds: float = 100, cancelled: bool = False, log: StatusLog | None = None) -> dict[str, Any]:
    token = CancellationToken()
    if cancelled:
        token.cancel()
    wait = StateWait(thing(5, "Pending"), lambda obj: obj["status"]["phase"] == "Bound", PATH)
    return Waiter(hub, token, Clock()).run(wait, seconds, log)  # type: ignore[arg-type]


def test_a_state_from_before_the_change_is_not_looked_at() -> None:
    with pytest.raises(WaitFailed, match="Timeout occurred polling for 'o'"):
        run(Hub(event(thing(4, "Bound"))))
    assert run(Hub(event(thing(4, "Bound")), event(thing(6, "Bound"))))["metadata"]["resourceVersion"] == "6"


def test_the_replaced_object_is_not_looked_at() -> None:
    with pytest.raises(WaitFailed, match="Timeout occurred polling for 'o'"):
        run(Hub(event(thing(9, "Bound", uid="before"))))


def test_a_cancellation_is_told_as_one() -> None:
    with pytest.raises(WaitFailed, match="Resource operation was cancelled for 'o'"):
        run(Hub(), cancelled=True)


def test_warnings_about_the_object_are_progress() -> None:
    said: list[str] = []
    log = StatusLog(lambda severity, message: said.append(f"{severity}: {message}"))
    notices = [
        {"involvedObject": {"uid": uid}, "type": kind, "reason": "Failed", "message": f"{uid} {kind}"}
        for uid, kind in (("u", "Warning"), ("u", "Normal"), ("other", "Warning"), ("u", "Warning"))
    ]
    hub = Hub(*(event(notice, path=EVENTS) for notice in notices), event(thing(6, "Bound")))
    run(hub, log=log)
    assert hub.paths == (PATH, EVENTS)
    assert said == ["warning: Failed: u Warning"]
