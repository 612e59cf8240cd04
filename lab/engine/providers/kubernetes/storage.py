"""Short waits of the core group: claims, volumes, quotas, token Secrets."""

from __future__ import annotations

from collections.abc import Callable

from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import name_of, pluck
from lab.engine.providers.kubernetes.waiting import StatusLog, WaitFailed
from lab.engine.providers.kubernetes.watching import Event

CLAIM_SECONDS = 300.0
VOLUME_SECONDS = 300.0
QUOTA_SECONDS = 60.0
TOKEN_SECONDS = 5.0


class StateWait:
    """Ready as soon as ``is_good`` holds for the object."""

    def __init__(self, live: Object, is_good: Callable[[Object], bool], path: str) -> None:
        self.live = live
        self._is_good = is_good
        self._path = path

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._path,)

    def observe(self, event: Event) -> None:
        if name_of(event.object) == name_of(self.live) and event.type != "DELETED":
            self.live = event.object

    def is_ready(self) -> bool:
        return self._is_good(self.live)

    def problems(self) -> list[str]:
        return []

    def report(self) -> None:
        return

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        what = "Resource operation was cancelled" if is_cancelled else "Timeout occurred polling"
        return WaitFailed(f"{what} for '{name_of(self.live)}'", self.live)


def claim_is_settled(bind_mode: Callable[[Object], str]) -> Callable[[Object], bool]:
    """Bound, or pending when the class waits for the first consumer. ``bind_mode`` looks the claim's class up."""

    def test(claim: Object) -> bool:
        phase = pluck(claim, "status", "phase")
        return phase == "Bound" or (phase == "Pending" and bind_mode(claim) == "WaitForFirstConsumer")

    return test


def volume_is_usable(log: StatusLog) -> Callable[[Object], bool]:
    def test(volume: Object) -> bool:
        phase = pluck(volume, "status", "phase")
        if phase == "Available":
            log("info", "PV marked available")
        elif phase == "Bound":
            log("info", "PV has been bound")
        return phase in ("Available", "Bound")

    return test


def quota_is_in_force(quota: Object) -> bool:
    hard = pluck(quota, "spec", "hard")
    return isinstance(hard, dict) and hard == pluck(quota, "status", "hard")


def token_is_there(secret: Object) -> bool:
    return bool(secret.get("data"))
