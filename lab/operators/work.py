"""Asks controllers to look at objects: each object in one thread at a time, later when asked, again after a failure.

Level-triggered, as Kubernetes controllers are: a key means *look at this object again*, never what happened to it.
kopf's own handlers with retries, its daemons and its timers write annotations or finalizers on the objects they watch,
which would show in the states of stacks; so kopf only watches here (decision 15).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg

from lab.operators import objects
from lab.operators.api import ApiError
from lab.operators.objects import Object
from runbooks.core.errors import OpsError

log = logging.getLogger("lab.operators")

FIRST_RETRY = 0.25
LONGEST_RETRY = 10.0
TROUBLE = (ApiError, httpx.HTTPError, OpsError, psycopg.Error, OSError)
"""Errors after which a controller retries. Any other is a bug: the process ends with exit code 70."""


Key = tuple[str, str, str]
"""One object for one controller: the controller's name, the object's namespace and name."""
Controller = Callable[[str, str], float | None]
"""Looks at the object (namespace, name) and acts; may return seconds after which to look again."""


class Work:
    """The queue of objects that controllers look at.

    Call `start` on the loop, `add` from any thread, and `stop` before the loop ends.
    """

    def __init__(self, controllers: Mapping[str, Controller], threads: int = 4) -> None:
        self._controllers = controllers
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="work")
        self._loop: asyncio.AbstractEventLoop | None = None
        # The rest is touched on the loop only.
        self._due: dict[Key, float] = {}
        self._running: dict[Key, asyncio.Future[float | None]] = {}
        self._failures: dict[Key, int] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def add(self, controller: str, namespace: str = "", name: str = "", after: float = 0.0) -> None:
        """Queue an object for its controller, which looks at it in `after` seconds at the latest."""
        loop = self._loop  # read once: `stop` may come in between
        if loop is not None:
            loop.call_soon_threadsafe(self._schedule, (controller, namespace, name), loop.time() + after)

    def add_each(self, controller: str, found: Iterable[Object]) -> None:
        for one in found:
            self.add(controller, *objects.key_of(one))

    async def stop(self, patience: float = 5.0) -> None:
        """Start no controller any more; wait for those that run."""
        self._loop = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=patience)

    @property
    def is_running(self) -> bool:
        """Whether a controller still runs after `stop`: the interpreter would wait for its thread."""
        return bool(self._running)

    def _schedule(self, key: Key, moment: float) -> None:
        if self._loop is not None and moment < self._due.get(key, float("inf")):
            self._due[key] = moment
            self._loop.call_at(moment, self._begin, key, moment)

    def _begin(self, key: Key, moment: float) -> None:
        # An earlier look was asked for since, or one runs: `_end` begins the next.
        if self._loop is None or self._due.get(key) != moment or key in self._running:
            return
        del self._due[key]
        self._running[key] = look = self._loop.run_in_executor(self._pool, self._look, key)
        look.add_done_callback(lambda done: self._end(key, done))

    def _end(self, key: Key, look: asyncio.Future[float | None]) -> None:
        del self._running[key]
        if self._loop is None or look.cancelled():
            return
        if (again := look.result()) is not None:
            self._schedule(key, self._loop.time() + again)
        if key in self._due:
            self._loop.call_at(self._due[key], self._begin, key, self._due[key])

    def _look(self, key: Key) -> float | None:
        try:
            again = self._controllers[key[0]](*key[1:])
            self._failures.pop(key, None)
        except TROUBLE as problem:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            # What passes by itself is everyday business and would fill the log.
            if not (isinstance(problem, ApiError) and problem.is_passing):
                log.warning("%s: %s", " ".join(filter(None, key)), explain(problem))
            return min(FIRST_RETRY * 2.0 ** min(count - 1, 10), LONGEST_RETRY)
        except BaseException:
            # At once, not through the loop: half a controller must not go on working on the cluster.
            log.critical("bug while looking at %s", key, exc_info=True)
            logging.shutdown()
            os._exit(70)
        return again


def explain(problem: BaseException) -> str:
    """The error as a message; a database's answer loses the statement that it quotes."""
    if isinstance(problem, psycopg.Error) and problem.diag.message_primary:
        return problem.diag.message_primary
    return str(problem) or type(problem).__name__
