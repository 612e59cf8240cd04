"""A consumer is applied once its producer answers where the consumer's provider connects, or patience ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.stacks import addresses, apply, preview
from runbooks.stacks.order import closure, layers
from tests.unit.stage import TREE, Stage, applied, creating


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "LOOK_AGAIN", 0.05)


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine that nobody listens on, held so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def deployed(tmp_path: Path, **outputs: Any) -> Stage:
    """A first deployment of `app`, for which `db` gives these outputs."""
    stage = Stage(tmp_path, {}, ephemeral=True)
    for name in ("net", "op", "db", "app"):
        stage.runner.script["preview", name], stage.runner.script["up", name] = creating(name), applied(name)
    gives = {"host": "db.example", **outputs}
    stage.runner.script["up", "db"] = applied("db", does=lambda: stage.write_state("db", outputs=gives))
    plan = preview.plan_run(stage, layers(closure(["app"], TREE), TREE))  # type: ignore[arg-type]
    apply.apply_run(stage, plan, yes=False, again="")  # type: ignore[arg-type]
    return stage


def waits(stage: Stage) -> list[str]:
    steps = [event for event in stage.reporter.events if event["event"] == "step" and event["state"] == "in progress"]
    return [event["title"] for event in steps if event["title"].startswith("wait")]


def test_what_answers_at_once_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stage = deployed(tmp_path, ts_hostname="127.0.0.1", port=float(server.getsockname()[1]))
    assert ("up", "app") in stage.runner.ran and not waits(stage)


def test_what_answers_late_is_waited_for(tmp_path: Path) -> None:
    late = socket.socket()
    late.bind(("127.0.0.1", 0))
    listens = threading.Timer(0.5, late.listen)
    listens.start()
    try:
        stage = deployed(tmp_path, ts_hostname="127.0.0.1", port=late.getsockname()[1])
    finally:
        listens.join()
        late.close()
    assert waits(stage) == [f"wait for db at 127.0.0.1:{stage_port(stage)}"]
    assert "does not answer" not in stage.reporter.text


def stage_port(stage: Stage) -> int:
    return int(preview.outputs_of(stage, "db")["port"])  # type: ignore[arg-type, call-overload]


def test_what_does_not_answer_is_told_and_pulumi_goes_on(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "LAB_PATIENCE", 0.3)
    stage = deployed(tmp_path, ts_hostname="127.0.0.1", port=port)
    assert f"db does not answer at 127.0.0.1:{port} yet (" in stage.reporter.text
    assert "./inv verify.db says why" in stage.reporter.text and ("up", "app") in stage.runner.ran


@pytest.mark.parametrize("outputs", [{}, {"ts_hostname": "db"}, {"ts_hostname": "", "port": 5432}, {"port": 5432}])
def test_a_producer_without_an_address_is_not_waited_for(tmp_path: Path, outputs: dict[str, Any]) -> None:
    stage = deployed(tmp_path, **outputs)
    assert ("up", "app") in stage.runner.ran and not waits(stage)


@pytest.mark.parametrize(("name", "number"), [("127.0.0.1", 99_999_999), ("x" * 70 + ".example", 5432)])
def test_an_address_that_is_none_is_told(
    tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "LAB_PATIENCE", 0.1)
    assert (
        f"db does not answer at {name}:{number} yet ("
        in deployed(tmp_path, ts_hostname=name, port=number).reporter.text
    )


def test_a_run_that_was_told_to_stop_waits_no_longer(tmp_path: Path, port: int) -> None:
    stage = Stage(tmp_path, {})
    stage.write_state("db", outputs={"ts_hostname": "127.0.0.1", "port": port})
    stage.runner.interrupted = True
    addresses.await_producers(stage, TREE, ["db"])  # type: ignore[arg-type]
    assert waits(stage)


def test_only_what_this_run_applied_is_waited_for(tmp_path: Path, port: int) -> None:
    stage = Stage(tmp_path, {})
    stage.write_state("db", outputs={"ts_hostname": "127.0.0.1", "port": port})
    addresses.await_producers(stage, TREE, ["net"])  # type: ignore[arg-type]
    assert not waits(stage)
