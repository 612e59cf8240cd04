"""When a deleted object is really gone: finalizers can hold it for long."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.conditions import NOT_IN_TIME
from lab.engine.providers.kubernetes.objects import name_of, namespace_of, pluck
from lab.engine.providers.kubernetes.waiting import WaitFailed
from lab.engine.providers.kubernetes.watching import Event

LOOK_SECONDS = 2.0
"""How often the server is asked although no event came."""


class DeleteWait:
    """Ready when an event says that the object is gone, or ``look`` (the object, or ``None``) finds it no more."""

    def __init__(
        self,
        live: Object,
        collection: str,
        look: Callable[[], Object | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.live = live
        self._collection = collection
        self._look = look
        self._clock = clock
        self._next_look = 0.0
        self._is_gone = False

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._collection,)

    def observe(self, event: Event) -> None:
        obj = event.object
        if (namespace_of(obj), name_of(obj)) != (namespace_of(self.live), name_of(self.live)):
            return
        is_same = pluck(obj, "metadata", "uid") == pluck(self.live, "metadata", "uid")
        if event.type == "DELETED" and is_same:
            self._is_gone = True
        elif is_same:
            self.live = obj

    def is_ready(self) -> bool:
        if not self._is_gone and self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_SECONDS
            found = self._look()
            self._is_gone = found is None
        return self._is_gone

    def problems(self) -> list[str]:
        return []

    def report(self) -> None:
        return

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        del is_cancelled  # one sentence for both, as the real provider has it
        return WaitFailed(NOT_IN_TIME, self.live)
