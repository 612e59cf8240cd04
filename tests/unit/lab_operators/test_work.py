"""The queue: one thread a key, again after trouble, nothing lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from lab.operators.api import ApiError
from lab.operators.objects import Kind, Object
from lab.operators.routes import ROUTES, look_again
from lab.operators.work import Controller, Work

Start = Callable[[dict[str, Controller]], Work]


@pytest.fixture
def start() -> Iterator[Start]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: list[Work] = []

    def starter(controllers: dict[str, Controller]) -> Work:
        async def begin() -> Work:
            work = Work(controllers)
            work.start()
            return work

        started.append(asyncio.run_coroutine_threadsafe(begin(), loop).result(5))
        return started[-1]

    yield starter
    for work in started:
        asyncio.run_coroutine_threadsafe(work.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_a_key_that_comes_due_while_busy_is_looked_at_once_more(start: Start) -> None:
    entered, leave, twice = threading.Event(), threading.Event(), threading.Event()
    running: list[int] = []
    count = 0

    def look(_namespace: str, _name: str) -> None:
        nonlocal count
        running.append(1)
        assert len(running) == 1, "two threads at one key"
        count += 1
        entered.set()
        assert leave.wait(5)
        running.pop()
        if count == 2:
            twice.set()

    work = start({"thing": look})
    work.add("thing", "", "one")
    assert entered.wait(5)
    for _ in range(5):
        work.add("thing", "", "one")
    leave.set()
    assert twice.wait(5)


@pytest.mark.parametrize("problem", [OSError("gone"), ApiError(httpx.Response(409, json={"reason": "Conflict"}))])
def test_tries_again_after_trouble(start: Start, problem: Exception) -> None:
    tries, done = [], threading.Event()

    def look(_namespace: str, name: str) -> None:
        tries.append(name)
        if len(tries) == 1:
            raise problem
        done.set()

    start({"thing": look}).add("thing", "", "one")
    assert done.wait(5)


def test_looks_again_when_the_controller_asks(start: Start) -> None:
    looks, done = [], threading.Event()

    def look(_namespace: str, name: str) -> float | None:
        looks.append(name)
        if len(looks) < 3:
            return 0.01
        done.set()
        return None

    start({"thing": look}).add("thing", "", "one")
    assert done.wait(5)


def test_a_slow_key_does_not_hold_up_others(start: Start) -> None:
    leave, done = threading.Event(), threading.Event()

    def slow(_namespace: str, _name: str) -> None:
        leave.wait(5)

    work = start({"slow": slow, "quick": lambda _namespace, _name: done.set()})
    work.add("slow", "", "one")
    work.add("quick", "", "two")
    assert done.wait(5)
    leave.set()


class Listing:
    """The API server's lists, as the controllers ask for them."""

    def __init__(self, **objects: list[str]) -> None:
        self._objects = objects
        self.asked: list[str] = []

    def list(self, kind: Kind) -> list[Object]:
        self.asked.append(kind.plural)
        return [{"metadata": {"name": name, "namespace": "here"}} for name in self._objects.get(kind.plural, [])]


def test_what_no_watch_reported_is_looked_at(start: Start) -> None:
    seen: set[tuple[str, str]] = set()
    done = threading.Event()

    def look(controller: str) -> Controller:
        def see(_namespace: str, name: str) -> None:
            seen.add((controller, name))
            if len(seen) == 3:
                done.set()

        return see

    listing = Listing(databaseroles=["n8n"], certificates=["web"], issuers=["letsencrypt"], services=["web"])
    look_again(listing, start({name: look(name) for name in ("role", "certificate", "issuers")}))  # type: ignore[arg-type]
    assert done.wait(5)
    assert seen == {("role", "n8n"), ("certificate", "web"), ("issuers", "")}
    own = {kind.plural for kind, _ in ROUTES if kind.plural in ("services", "secrets", "pods", "ingresses")}
    assert own.isdisjoint(listing.asked)
