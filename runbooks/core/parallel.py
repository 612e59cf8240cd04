"""The same work for several items at once, in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from runbooks.core.errors import OpsError
from runbooks.core.reporter import Reporter

SIDE_BY_SIDE = 4
"""Items worked on at once: most of the work is waiting for a tool."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(reporter: Reporter, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
    """Do the work for all items at once and return the results in their order.

    Waits for all of them; then raises the first failure and reports the others.
    """
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE, thread_name_prefix="work") as pool:
        futures = [pool.submit(work, item) for item in items]
    return results_of(reporter, futures)


def results_of(reporter: Reporter, done: Sequence[Future[Result]]) -> list[Result]:
    """The results of finished work. Raises the first failure, after it reported the others."""
    failures = [error for future in done if (error := future.exception()) is not None]
    for error in failures[1:]:
        if isinstance(error, OpsError):
            reporter.advice(error.beside("also failed: "))
    if failures:
        raise failures[0]
    return [future.result() for future in done]
