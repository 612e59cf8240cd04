"""When a service's turn comes: as soon as everything it needs is done, not when a whole layer is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from graphlib import TopologicalSorter
from typing import Generic, TypeVar

from runbooks.stacks.service import Service

Result = TypeVar("Result")

MOST = 8
"""Previews at once, on however many processors: each takes some hundred megabytes."""


def processors() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def previews_at_once() -> int:
    """One more than there are processors, for while another waits.

    A preview is almost all work: of four at once on two processors each takes a tenth more CPU than of two.
    """
    return min(processors() + 1, MOST)


class Schedule(Generic[Result]):
    """Work on services, started in `pool` while somebody asks for results. What needs a failed one is never started."""

    def __init__(
        self, pool: Executor, service_layers: Sequence[Sequence[Service]], work: Callable[[Service], Result]
    ) -> None:
        self._pool = pool
        self._work = work
        # In the order of the layers: of what is ready, the earlier one starts first.
        self._services = {service.name: service for layer in service_layers for service in layer}
        self._sorter = TopologicalSorter(
            {
                name: [need for need in service.needs if need in self._services]
                for name, service in self._services.items()
            }
        )
        self._sorter.prepare()
        self._started: dict[str, Future[Result]] = {}
        self._running: dict[Future[Result], str] = {}

    def finished(self, layer: Sequence[Service]) -> list[Future[Result]]:
        """Wait until all services of the layer were tried; those of the layers before it must have succeeded."""
        self._start_ready()
        while any(service.name not in self._started or not self._started[service.name].done() for service in layer):
            wait(self._running, return_when=FIRST_COMPLETED)
            self._start_ready()
        return [self._started[service.name] for service in layer]

    def _start_ready(self) -> None:
        for future in [future for future in self._running if future.done()]:
            name = self._running.pop(future)
            if future.exception() is None:
                self._sorter.done(name)
        for name in sorted(self._sorter.get_ready(), key=list(self._services).index):
            future = self._started[name] = self._pool.submit(self._work, self._services[name])
            self._running[future] = name
