"""Real signals to a real wrapper process, with real children: who hears what, how often, and who waits for whom."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.journal import read_journal, runs_of
from tests.fixtures import is_alive, until

ROOT = Path(__file__).resolve().parents[3]

# Runs one child for each mark it is given, in its main thread or in threads of their own, and tells how they ended.
WRAPPER = """
import json, os, sys, threading
from pathlib import Path
from runbooks.core.command import Command
from runbooks.core.errors import NotApproved
from runbooks.core.journal import Journal
from runbooks.core.mask import Masker
from runbooks.core.runner import Runner

state, where, mutates, child, *marks = sys.argv[1:]
masker = Masker()
journal = Journal.open(Path(state), "wrapper", sys.argv)
show = lambda stream, text: print(text, end="", flush=True) if where == "shown" else None
runner = Runner(masker=masker, journal=journal, base_env=os.environ, show=show)
ended = []

def work(mark):
    command = Command(argv=(sys.executable, child, mark), title="the child", mutates=mutates == "mutates")
    outcome = runner.run(command)
    ended.append((mark, outcome.exit_code, outcome.interrupted, outcome.stdout))

if where == "threads":
    threads = [threading.Thread(target=work, args=(mark,)) for mark in marks]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
else:
    for mark in marks:
        work(mark)
try:
    runner.run(Command(argv=("true",)))
except NotApproved as refused:
    ended.append(("next", refused.summary))
journal.finish(8 if runner.interrupted else 0)
Path(state, "ended.json").write_text(json.dumps(ended))
sys.exit(8 if runner.interrupted else 0)
"""

# Notes every signal beside its mark, says a line for each, and goes on until the mark "release" is there.
CHILD = """
import os, signal, sys, time
from pathlib import Path
mark = Path(sys.argv[1])
heard = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
    signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
mark.with_suffix(".pid").write_text(str(os.getpid()))
told = 0
print("ready", flush=True)
mark.with_suffix(".ready").touch()
while not mark.with_name("release").exists():
    while told < len(heard):
        print(heard[told], flush=True)
        told += 1
        mark.with_suffix(".heard").write_text(" ".join(heard[:told]))
    time.sleep(0.005)
print("in order", flush=True)
print("x" * 200_000, flush=True)
mark.with_suffix(".heard").write_text(" ".join(heard))
mark.with_suffix(".done").touch()
sys.exit(5)
"""


class Wrapper:
    """A wrapper process and what is known of its children."""

    def __init__(self, folder: Path, where: str, *, mutates: bool = True, children: int = 1, **settings: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.marks = [folder / f"child{number}" for number in range(children)]
        (folder / "wrapper.py").write_text(WRAPPER)
        (folder / "child.py").write_text(CHILD)
        kind = "mutates" if mutates else "reads"
        with (folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "wrapper.py", str(self.state), where, kind, "child.py", *map(str, self.marks)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=stderr,
                start_new_session=True,
                **settings,
            )
        started = self.marks if where == "threads" else self.marks[:1]
        until(lambda: all(mark.with_suffix(".ready").exists() for mark in started), "the children start")

    def heard(self, mark: Path) -> str:
        path = mark.with_suffix(".heard")
        return path.read_text() if path.exists() else ""

    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def release(self) -> None:
        (self.folder / "release").touch()

    def end(self, exit_code: int, heard: str) -> None:
        """Let the children end: the wrapper ends with this code, and each child heard nothing but that."""
        self.release()
        assert self.process.wait(30) == exit_code
        assert {self.heard(mark) for mark in self.marks} == {heard}

    def ended(self) -> dict[str, list[Any]]:
        return {row[0].rpartition("/")[2]: row[1:] for row in json.loads((self.state / "ended.json").read_text())}

    def records(self) -> list[dict[str, Any]]:
        (path,) = runs_of(self.state)
        return read_journal(path)

    def clean_up(self) -> None:
        self.release()
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        for mark in self.marks:
            path = mark.with_suffix(".pid")
            if path.exists():
                pid = int(path.read_text())
                until(lambda pid=pid: not is_alive(pid), f"process {pid} ends")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Wrapper]]:
    started: list[Wrapper] = []

    def begin(where: str, **settings: Any) -> Wrapper:
        started.append(Wrapper(tmp_path, where, **settings))
        return started[-1]

    yield begin
    for wrapper in started:
        wrapper.clean_up()


@pytest.mark.parametrize("mutates", [True, False])
@pytest.mark.parametrize("where", ["main", "threads"])
@pytest.mark.parametrize(
    ("number", "heard"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGTERM")]
)
def test_a_signal_to_the_wrapper_alone_is_passed_on_once(
    start: Callable[..., Wrapper], where: str, number: signal.Signals, heard: str, mutates: bool
) -> None:
    wrapper = start(where, mutates=mutates)
    wrapper.process.send_signal(number)
    until(lambda: wrapper.heard(wrapper.marks[0]) == heard, "the child hears it")
    assert wrapper.process.poll() is None
    wrapper.end(8, heard)
    exit_code, interrupted, stdout = wrapper.ended()["child0"]
    assert (exit_code, interrupted) == (5, True)
    assert stdout.startswith(f"ready\n{heard}\nin order\n")
    assert "was not started: the run was interrupted" in wrapper.ended()["next"][0]
    assert f"{heard} was passed on to 'the child'" in wrapper.said()


@pytest.mark.parametrize("where", ["main", "threads"])
def test_ctrl_c_reaches_the_child_once_and_a_second_one_not_at_all(start: Callable[..., Wrapper], where: str) -> None:
    wrapper = start(where)
    group = os.getpgid(wrapper.process.pid)
    os.killpg(group, signal.SIGINT)
    until(lambda: wrapper.heard(wrapper.marks[0]) == "SIGINT", "the child hears it")
    os.killpg(group, signal.SIGINT)
    until(lambda: "still waiting for 'the child'" in wrapper.said(), "the wrapper says that it waits")
    os.killpg(group, signal.SIGTERM)
    until(lambda: wrapper.said().count("still waiting") == 2, "the wrapper says so again")
    child = int(wrapper.marks[0].with_suffix(".pid").read_text())
    assert f"kill -KILL {child}" in wrapper.said()
    wrapper.end(8, "SIGINT")
    assert wrapper.ended()["child0"][0] == 5
    record = next(record for record in wrapper.records() if record["kind"] == "command")
    assert (record["exit_code"], record["interrupted"]) == (5, True)


def test_every_child_that_runs_side_by_side_hears_it_once(start: Callable[..., Wrapper]) -> None:
    wrapper = start("threads", children=4)
    wrapper.process.send_signal(signal.SIGINT)
    wrapper.process.send_signal(signal.SIGINT)
    until(lambda: all(wrapper.heard(mark) == "SIGINT" for mark in wrapper.marks), "all children hear it")
    wrapper.end(8, "SIGINT")
    assert {wrapper.ended()[mark.name][0] for mark in wrapper.marks} == {5}


def test_nothing_new_starts_after_an_interruption(start: Callable[..., Wrapper]) -> None:
    wrapper = start("main", children=2)
    wrapper.process.send_signal(signal.SIGINT)
    until(lambda: wrapper.heard(wrapper.marks[0]) == "SIGINT", "the child hears it")
    wrapper.release()
    assert wrapper.process.wait(30) == 1  # The wrapper of this test does not catch the refusal.
    assert "NotApproved: the child was not started" in wrapper.said()
    assert not wrapper.marks[1].with_suffix(".ready").exists()


@pytest.mark.parametrize("mutates", [True, False])
def test_a_killed_wrapper_leaves_a_child_that_ends_in_order(start: Callable[..., Wrapper], mutates: bool) -> None:
    wrapper = start("main", mutates=mutates)
    if not mutates:  # A read gets its guard only when it lasts.
        until(lambda: len(guard_pids(wrapper)) == 1, "the guard starts")
    wrapper.process.kill()
    wrapper.process.wait()
    until(lambda: wrapper.heard(wrapper.marks[0]) == "SIGINT", "the child hears it")
    wrapper.release()
    # It goes on printing, more than a pipe holds: without a reader it would get SIGPIPE or hang.
    until(lambda: wrapper.marks[0].with_suffix(".done").exists(), "the child ends in order")
    assert wrapper.heard(wrapper.marks[0]) == "SIGINT"
    until(lambda: len(guard_pids(wrapper)) == 0, "the guard ends with the child")
    killed = [record for record in wrapper.records() if record["kind"] == "killed"]
    assert len(killed) == 1
    assert killed[0]["pid"] == int(wrapper.marks[0].with_suffix(".pid").read_text())


def test_a_wrapper_killed_while_it_waits_does_not_cause_a_second_signal(start: Callable[..., Wrapper]) -> None:
    wrapper = start("main")
    wrapper.process.send_signal(signal.SIGINT)
    until(lambda: wrapper.heard(wrapper.marks[0]) == "SIGINT", "the child hears it")
    wrapper.process.kill()
    wrapper.process.wait()
    until(lambda: any(record["kind"] == "killed" for record in wrapper.records()), "the guard notices")
    wrapper.release()
    until(lambda: wrapper.marks[0].with_suffix(".done").exists(), "the child ends in order")
    assert wrapper.heard(wrapper.marks[0]) == "SIGINT"


def test_a_killed_guard_changes_nothing(start: Callable[..., Wrapper]) -> None:
    wrapper = start("main")
    for pid in guard_pids(wrapper):
        os.kill(pid, signal.SIGKILL)
    wrapper.process.send_signal(signal.SIGTERM)
    until(lambda: wrapper.heard(wrapper.marks[0]) == "SIGTERM", "the child hears it")
    wrapper.end(8, "SIGTERM")
    assert wrapper.ended()["child0"][:2] == [5, True]


def guard_pids(wrapper: Wrapper) -> list[int]:
    """The shells that watch over this wrapper's children; they carry the path of its journal."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"orphan-guard" in words and any(word.startswith(bytes(wrapper.state)) for word in words):
            found.append(int(entry.parent.name))
    return found


def test_output_piped_to_head_neither_hangs_nor_ends_what_changes_something(start: Callable[..., Wrapper]) -> None:
    wrapper = start("shown", stdout=subprocess.PIPE)
    assert wrapper.process.stdout is not None
    assert wrapper.process.stdout.readline() == b"ready\n"
    wrapper.process.stdout.close()
    wrapper.end(0, "")
    exit_code, interrupted, stdout = wrapper.ended()["child0"]
    assert (exit_code, interrupted) == (5, False)
    assert stdout.endswith("x\n")
    record = next(record for record in wrapper.records() if record["kind"] == "command")
    assert record["stdout"] == stdout


def test_no_guard_is_left_when_all_went_well(start: Callable[..., Wrapper]) -> None:
    wrapper = start("threads", children=3)
    assert len(guard_pids(wrapper)) == 3
    wrapper.end(0, "")
    assert len(guard_pids(wrapper)) == 0
    assert [record["kind"] for record in wrapper.records()].count("killed") == 0


def test_a_real_terminals_ctrl_c(start: Callable[..., Wrapper]) -> None:
    primary, secondary = os.openpty()
    try:
        wrapper = start("main", stdin=secondary, preexec_fn=take_terminal)
        os.write(primary, b"\x03")
        until(lambda: wrapper.heard(wrapper.marks[0]) == "SIGINT", "the child hears it")
        os.write(primary, b"\x03")
        until(lambda: "still waiting" in wrapper.said(), "the wrapper says that it waits")
        wrapper.end(8, "SIGINT")
    finally:
        os.close(primary)
        os.close(secondary)


def take_terminal() -> None:
    """Make standard input the controlling terminal of the session that was just begun."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
