"""The same work for several items at once, in threads: side by side, or each after those it needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from graphlib import TopologicalSorter
from queue import Empty, SimpleQueue
from typing import TypeVar

from runbooks.core.errors import OpsError, Usage
from runbooks.core.reporter import Reporter

SIDE_BY_SIDE = 4
"""Items worked on at once: most of the work is waiting for a tool."""

WAKE_UP = 0.2
"""Seconds after which a waiting main thread wakes up: a signal that another thread took is handled only then."""

Item = TypeVar("Item")
Node = TypeVar("Node", bound=Hashable)
Result = TypeVar("Result")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(wanted: int, default: int) -> int:
    """How many items to work on at once: the user's number, or a default for 0. Raises `Usage` for a negative one."""
    if wanted < 0:
        raise Usage(f"--parallel is {wanted}", expected="how many stacks at once, or 0 for as many as fit")
    return wanted or default


def side_by_side(reporter: Reporter, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
    """Do the work for all items at once and return the results in their order.

    Waits for all of them; then raises the first failure and reports the others.
    """
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE, thread_name_prefix="work") as pool:
        done: list[int] = []

        def work_on(number: int) -> Result:
            result = work(items[number])
            done.append(number)
            reporter.note(f"{len(done)} of {len(items)} done")
            return result

        numbers = range(len(items))  # the items themselves need not be hashable
        futures = next(work_in_order(pool, [numbers], {}, work_on, keep_going=True))
    return results_of(reporter, futures)


def results_of(reporter: Reporter, done: Sequence[Future[Result]]) -> list[Result]:
    """The results of finished work. Raises the first failure, after it reported the others."""
    raise_first(reporter, [error for future in done if (error := future.exception()) is not None])
    return [future.result() for future in done]


def raise_first(reporter: Reporter, failures: Sequence[BaseException]) -> None:
    """Raise the first failure, if there is one, after the others were reported."""
    for error in failures[1:]:
        if isinstance(error, OpsError):
            reporter.advice(error.beside("also failed: "))
    if failures:
        raise failures[0]


@contextlib.contextmanager
def report_others(reporter: Reporter, failures: Sequence[BaseException]) -> Iterator[None]:
    """Report those `failures` that are not the one with which the block ends, also of work that it did not wait for."""
    try:
        yield
    except BaseException as error:
        raise_first(reporter, [error, *(each for each in failures if each is not error)])
        raise


def work_in_order(
    pool: Executor,
    layers: Sequence[Sequence[Node]],
    needs: Mapping[Node, Collection[Node]],
    work: Callable[[Node], Result],
    *,
    keep_going: bool = False,
) -> Iterator[list[Future[Result]]]:
    """Yield the futures of each layer once all its items were tried.

    Work on an item starts as soon as everything it needs is done, not when a whole layer is. An item that needs a
    failed one never starts, so do not ask for a layer after a failure. With `keep_going` it starts nevertheless.
    """
    order = {item: number for number, item in enumerate(item for layer in layers for item in layer)}
    sorter = TopologicalSorter({item: needs.get(item, ()) for item in order})
    sorter.prepare()
    started: dict[Node, Future[Result]] = {}
    finished: SimpleQueue[tuple[Node, Future[Result]]] = SimpleQueue()
    for layer in layers:
        while True:
            # In the order of the layers, so that of two ready items the earlier one starts first.
            for item in sorted(sorter.get_ready(), key=order.__getitem__):
                started[item] = pool.submit(work, item)
                started[item].add_done_callback(lambda future, done=item: finished.put((done, future)))  # type: ignore[misc]
            if all(item in started and started[item].done() for item in layer):
                break
            try:
                item, future = finished.get(timeout=WAKE_UP)
            except Empty:
                continue
            if keep_going or future.exception() is None:
                sorter.done(item)
        yield [started.pop(item) for item in layer]
