"""Whose turn it is: a service starts as soon as what it needs is done, not before, and not after a failure of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runbooks.services import SERVICES
from runbooks.stacks.order import layers
from runbooks.stacks.schedule import Schedule, previews_at_once
from runbooks.stacks.service import Service

PATIENCE = 30.0


def service(name: str, *needs: str) -> Service:
    return Service(name=name, folder=name, about="", namespace=name, needs=needs)


TREE = [service("slow"), service("quick"), service("consumer", "quick"), service("both", "slow", "quick")]
FIRST, SECOND = layers([each.name for each in TREE], TREE)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool


def test_a_consumer_does_not_wait_for_the_rest_of_a_layer(pool: ThreadPoolExecutor) -> None:
    consumed = threading.Event()

    def work(each: Service) -> bool:
        if each.name == "consumer":
            consumed.set()
        # Only ends in time when the consumer, of the second layer, runs beside it.
        return consumed.wait(PATIENCE) if each.name == "slow" else True

    schedule = Schedule(pool, [FIRST, SECOND], work)
    assert [future.result() for future in schedule.finished(FIRST)] == [True, True]
    assert [future.result() for future in schedule.finished(SECOND)] == [True, True]


def test_nothing_starts_before_all_that_it_needs_is_done(pool: ThreadPoolExecutor) -> None:
    done: list[str] = []
    known = {each.name: each for each in SERVICES}

    def work(each: Service) -> str:
        assert set(each.needs) <= set(done), f"{each.name} started before {each.needs}"
        done.append(each.name)
        return each.name

    service_layers = layers(known, SERVICES)
    schedule = Schedule(pool, service_layers, work)
    for layer in service_layers:
        assert [future.result() for future in schedule.finished(layer)] == [each.name for each in layer]
    assert sorted(done) == sorted(known)


def test_what_needs_a_failed_one_never_starts_and_its_layer_is_tried_whole(pool: ThreadPoolExecutor) -> None:
    started: list[str] = []

    def work(each: Service) -> None:
        started.append(each.name)
        if each.name == "quick":
            raise ValueError(each.name)

    slow, quick = Schedule(pool, [FIRST, SECOND], work).finished(FIRST)
    assert slow.exception() is None and isinstance(quick.exception(), ValueError)
    assert sorted(started) == ["quick", "slow"]


def test_a_need_that_is_not_of_this_run_does_not_count(pool: ThreadPoolExecutor) -> None:
    only = [(TREE[3],)]
    (future,) = Schedule(pool, only, lambda each: each.name).finished(only[0])
    assert future.result() == "both"


@pytest.mark.parametrize(("processors", "previews"), [(1, 2), (2, 3), (64, 8)])
def test_previews_keep_the_processors_busy_and_no_more(
    monkeypatch: pytest.MonkeyPatch, processors: int, previews: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)), raising=False)
    assert previews_at_once() == previews
