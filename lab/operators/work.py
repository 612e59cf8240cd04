"""A queue of keys with a few threads: each key is worked on by one thread at a time, and again after a failure.

Level-triggered, as Kubernetes controllers are: a key says *look at this object again*, never what happened to it.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import httpx
import psycopg

from lab.operators.api import ApiError
from runbooks.core.errors import OpsError

log = logging.getLogger("lab.operators")

FIRST_RETRY = 0.25
LONGEST_RETRY = 10.0
TROUBLE = (ApiError, httpx.HTTPError, OpsError, psycopg.Error, OSError)
"""What the world can do to a controller; it is tried again. Anything else is a bug: the process ends, loudly."""


class Key(NamedTuple):
    """One object for one controller."""

    controller: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.controller} {self.namespace}/{self.name}" if self.namespace else f"{self.controller} {self.name}"


Controller = Callable[[str, str], float | None]
"""Looks at the object (namespace, name) and acts; may return seconds after which to look again."""


class Work:
    """`add` keys from anywhere; `start` threads that hand them to the controllers; `stop` waits for them."""

    def __init__(self, controllers: Mapping[str, Controller], threads: int = 4) -> None:
        self._controllers = controllers
        self._turn = threading.Condition()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"work-{number}", daemon=True) for number in range(threads)
        ]

    def add(self, controller: str, namespace: str, name: str, after: float = 0.0) -> None:
        """Ask for a look, at the latest in `after` seconds."""
        key, moment = Key(controller, namespace, name), time.monotonic() + after
        with self._turn:
            if moment < self._due.get(key, float("inf")):
                self._due[key] = moment
                heapq.heappush(self._heap, (moment, key))
                self._turn.notify()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float = 5.0) -> None:
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(patience)

    def _take(self) -> Key | None:
        with self._turn:
            while not self._stopping:
                key, wait = self._next()
                if key is not None:
                    self._busy.add(key)
                    return key
                self._turn.wait(wait)
            return None

    def _next(self) -> tuple[Key | None, float | None]:
        """A key that is due and not being worked on, or how long until the next one may be."""
        now, found = time.monotonic(), None
        held: list[tuple[float, Key]] = []
        while self._heap and self._heap[0][0] <= now and found is None:
            moment, key = heapq.heappop(self._heap)
            if key in self._busy:
                held.append((moment, key))
            elif self._due.get(key) == moment:
                del self._due[key]
                found = key
        wait = self._heap[0][0] - now if self._heap else None
        for entry in held:
            heapq.heappush(self._heap, entry)
        return found, wait

    def _work(self) -> None:
        while (key := self._take()) is not None:
            again: float | None = None
            try:
                again = self._controllers[key.controller](key.namespace, key.name)
                self._failures.pop(key, None)
            except TROUBLE as problem:
                again = self._failed(key, problem)
            except BaseException:
                log.critical("bug while looking at %s", key, exc_info=True)
                logging.shutdown()
                os._exit(70)
            finally:
                with self._turn:
                    self._busy.discard(key)
                    self._turn.notify()  # the key may have come due meanwhile
            if again is not None:
                self.add(*key, after=again)

    def _failed(self, key: Key, problem: BaseException) -> float:
        """Log a failure, but not what passes by itself, and say when to try again."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        if not (isinstance(problem, ApiError) and problem.is_passing):
            log.warning("%s: %s", key, told(problem))
        return min(FIRST_RETRY * 2.0 ** min(count - 1, 10), LONGEST_RETRY)


def told(problem: BaseException) -> str:
    """What went wrong, for people: a database's answer without the statement it quotes."""
    if isinstance(problem, psycopg.Error) and problem.diag.message_primary:
        return problem.diag.message_primary
    return str(problem) or type(problem).__name__
