"""The evaluator's process: requests, questions of its own, started again when it dies. Here it is a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cloud import evaluator as evaluating
from lab.cloud.evaluator import Evaluator, Unanswerable
from lab.cloud.wire import ApiError, Json
from tests.fixtures import executable, side_by_side

SPEAKING = """\
#!{python}
import json, os, sys
print(json.dumps({{"never": "read"}}), file=sys.stderr)
start = json.loads(sys.stdin.readline())
assert start["op"] == "start" and len(start["key"]) == 44, start
def ask(kind, name):
    print(json.dumps({{"ask": kind, "name": name}}), flush=True)
    return json.loads(sys.stdin.readline())
for line in sys.stdin:
    request = json.loads(line)
    {body}
    print(json.dumps(answer), flush=True)
"""
PID = 'answer = {"environment": {"pid": os.getpid()}}'


def environment(name: str) -> str:
    if name == "known":
        return "values: {}"
    raise Unanswerable(f'environment "{name}" not found')


def stack(_name: str) -> Json:
    return {"value": {"port": {"value": 5432}}}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Evaluator]:
    def made(body: str) -> Evaluator:
        text = SPEAKING.format(python=sys.executable, body=body.replace("\n", "\n    "))
        program = executable(tmp_path / "evaluator", text)
        return Evaluator(lambda: program, b"k" * 32, environment, stack)

    monkeypatch.setattr(evaluating, "PATIENCE", 10.0)
    return made


def test_a_killed_process_is_started_again(make: Callable[[str], Evaluator]) -> None:
    evaluator = make(PID)
    first = evaluator.open("a/b", "")["environment"]["pid"]
    assert evaluator._process is not None
    evaluator._process.kill()
    assert evaluator.open("a/b", "")["environment"]["pid"] != first
    evaluator.stop()


SILENT = "import threading; threading.Event().wait(60); answer = {}"


@pytest.mark.parametrize(
    "body", ["sys.exit(1)", 'print("no json", flush=True); answer = {}', "os.close(1); continue", SILENT]
)
def test_one_that_dies_each_time_or_stays_silent_is_an_error_of_the_server(
    make: Callable[[str], Evaluator], monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    evaluator = make(body)
    monkeypatch.setattr(evaluating, "PATIENCE", 0.3 if body == SILENT else 10.0)
    with pytest.raises(ApiError, match="the evaluator ended") as failed:
        evaluator.open("a/b", "")
    assert failed.value.status == 500 and evaluator._process is None


def test_a_failure_is_reported_and_the_process_continues(make: Callable[[str], Evaluator]) -> None:
    evaluator = make(f'{PID}\nif request["definition"]: answer = {{"failure": "it broke down"}}')
    before = evaluator.open("a/b", "")
    with pytest.raises(ApiError, match="it broke down"):
        evaluator.open("a/b", "x")
    assert evaluator.open("a/b", "") == before
    evaluator.stop()


def test_calls_from_many_threads_do_not_mix(make: Callable[[str], Evaluator]) -> None:
    evaluator = make('ask("stack", request["name"]); answer = {"environment": {"name": request["name"]}}')
    seen: list[tuple[str, str]] = []

    def call(number: int) -> None:
        seen.append((f"a/{number}", evaluator.open(f"a/{number}", "")["environment"]["name"]))

    side_by_side(call, 12)
    assert len(seen) == 12
    assert all(asked == answered for asked, answered in seen)
    evaluator.stop()


def test_a_late_answer_is_not_taken_for_the_next(make: Callable[[str], Evaluator]) -> None:
    """A question that broke the cloud's own code ends the process: it still works on that call."""

    def broken(_name: str) -> Json:
        raise KeyError("ciphertext")

    evaluator = make(
        'if request["name"] == "a/first": ask("stack", "p/s")\nanswer = {"environment": {"name": request["name"]}}'
    )
    evaluator.stack = broken
    with pytest.raises(KeyError):
        evaluator.open("a/first", "")
    assert [evaluator.open(name, "")["environment"]["name"] for name in ("a/second", "a/third")] == [
        "a/second",
        "a/third",
    ]
    evaluator.stop()


def test_the_key_is_not_shown(make: Callable[[str], Evaluator]) -> None:
    assert "kkkk" not in repr(make(PID))
