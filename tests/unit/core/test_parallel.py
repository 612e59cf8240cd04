"""Work starts as soon as what it needs is done, not before, and not after a failure of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runbooks.core.mask import Masker
from runbooks.core.parallel import side_by_side, work_in_order
from runbooks.core.reporter import Reporter
from runbooks.services import SERVICES
from runbooks.stacks.service import layers

PATIENCE = 30.0
FIRST, SECOND = ("slow", "quick"), ("consumer", "both")
NEEDS = {"consumer": ["quick"], "both": ["slow", "quick"]}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool


def test_a_consumer_does_not_wait_for_the_rest_of_a_layer(pool: ThreadPoolExecutor) -> None:
    consumed = threading.Event()

    def work(name: str) -> bool:
        if name == "consumer":
            consumed.set()
        # Only ends in time when the consumer, of the second layer, runs beside it.
        return consumed.wait(PATIENCE) if name == "slow" else True

    tried = work_in_order(pool, [FIRST, SECOND], NEEDS, work)
    assert [[future.result() for future in layer] for layer in tried] == [[True, True], [True, True]]


def test_nothing_starts_before_all_that_it_needs_is_done(pool: ThreadPoolExecutor) -> None:
    done: list[str] = []
    needs = {each.name: each.needs for each in SERVICES}

    def work(name: str) -> str:
        assert set(needs[name]) <= set(done), f"{name} started before {needs[name]}"
        done.append(name)
        return name

    names = [[each.name for each in layer] for layer in layers(needs, SERVICES)]
    for layer, futures in zip(names, work_in_order(pool, names, needs, work), strict=True):
        assert [future.result() for future in futures] == layer
    assert sorted(done) == sorted(needs)


def test_what_needs_a_failed_one_never_starts_and_its_layer_is_tried_whole(pool: ThreadPoolExecutor) -> None:
    started: list[str] = []

    def work(name: str) -> None:
        started.append(name)
        if name == "quick":
            raise ValueError(name)

    slow, quick = next(work_in_order(pool, [FIRST, SECOND], NEEDS, work))
    assert slow.exception() is None and isinstance(quick.exception(), ValueError)
    assert sorted(started) == ["quick", "slow"]


def test_one_that_keeps_going_starts_what_needs_a_failed_one(pool: ThreadPoolExecutor) -> None:
    def work(name: str) -> str:
        if name == "quick":
            raise ValueError(name)
        return name

    _, (consumer, both) = work_in_order(pool, [FIRST, SECOND], NEEDS, work, keep_going=True)
    assert (consumer.result(), both.result()) == SECOND


def test_the_step_counts_what_is_done() -> None:
    reporter = Reporter(Masker(), io.StringIO(), io.StringIO())
    assert side_by_side(reporter, [1, 2], str) == ["1", "2"], "also without a step"
    with reporter.step("look at all of them") as progress:
        assert side_by_side(reporter, [1, 2, 3], str) == ["1", "2", "3"]
        assert "3 of 3" in progress.detail
