"""What a person or a program sees: plain lines, events, the live plan; all of it masked."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runbooks.core import reporter
from runbooks.core.findings import Finding, State, not_tried, passed
from runbooks.core.mask import Masker
from runbooks.core.reporter import JsonReporter, LiveReporter, Reporter, make_reporter, on_target
from tests.fixtures import Typed

ROOT = Path(__file__).parents[3]
CANARY = "canary-4711-secret"


@pytest.fixture
def masker() -> Masker:
    masker = Masker()
    masker.register(CANARY)
    return masker


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


FOUND = Finding(
    check="it answers", state=State.FAILED, evidence=f"saw {CANARY}", cause="down", next_step="./inv status"
)


def say_everything(reporter: reporter.Reporter) -> None:
    reporter.announce(f"announce {CANARY}")
    reporter.plan([f"step {CANARY}"])
    with reporter.step(f"step {CANARY}") as progress:
        progress.note(f"note {CANARY}")
        with reporter.step(f"inner {CANARY}"):
            reporter.line(f"line {CANARY}")
    reporter.table(f"title {CANARY}", ["a", "b"], [["1", CANARY]])
    reporter.event("kind", value=CANARY, many=[{"deep": CANARY}], number=1, nothing=None)
    reporter.finding(FOUND)
    reporter.error([f"summary {CANARY}", "next: x"], exit_code=5)
    reporter.close()


@pytest.mark.parametrize("kind", [Reporter, JsonReporter, LiveReporter])
def test_nothing_is_shown_unmasked(kind: type[Reporter], masker: Masker, out: io.StringIO) -> None:
    err = io.StringIO()
    say_everything(kind(masker, out, err))
    everything = out.getvalue() + err.getvalue()
    assert "[secret]" in everything and CANARY not in everything


def test_public_names_stay_readable_in_our_own_sentences_only(out: io.StringIO) -> None:
    """The handbook makes the username `postgres` a secret."""
    masker = Masker(["postgres", "long postgres secret"], public_names=["postgres"])
    reporter = Reporter(masker, out, out)
    reporter.announce("Deploying postgres, which needs cnpg")
    reporter.line("./inv deploy.postgres, postgres: applied; a long postgres secret is none of ours")
    reporter.quote("role postgres exists")
    reporter.table("outputs of postgres", ["service", "value"], [["postgres", "postgres"]])
    reporter.finding(
        Finding(
            check="postgres answers", state=State.FAILED, evidence="as postgres", cause="down", next_step="x postgres"
        )
    )
    reporter.error(["postgres failed", "next: ./inv deploy.postgres"], exit_code=1)
    assert out.getvalue().splitlines() == [
        "Deploying postgres, which needs cnpg",
        "./inv deploy.postgres, postgres: applied; a [secret] is none of ours",
        "role [secret] exists",
        "outputs of postgres",
        "service   value",
        "postgres  [secret]",
        "  FAIL postgres answers: as [secret]",
        "       likely cause: down",
        "       next: x postgres",
        "error: postgres failed",
        "  next: ./inv deploy.postgres",
    ]


def test_public_names_stay_readable_in_events(out: io.StringIO) -> None:
    masker = Masker(["postgres"], public_names=["postgres"])
    JsonReporter(masker, out, out).event(
        "applied", service="postgres", stacks=[{"service": "postgres", "properties": ["user: postgres"]}]
    )
    assert json.loads(out.getvalue()) == {
        "event": "applied",
        "service": "postgres",
        "stacks": [{"service": "postgres", "properties": ["user: [secret]"]}],
    }


def test_events_are_one_json_object_a_line_on_standard_output_alone(masker: Masker, out: io.StringIO) -> None:
    err = io.StringIO()
    say_everything(JsonReporter(masker, out, err))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        "announce", "plan", "step", "line", "step", "table", "kind", "finding", "error",
    ]  # fmt: skip
    assert events[-1] == {"event": "error", "summary": "summary [secret]", "details": ["next: x"], "exit_code": 5}
    assert events[2]["state"] == "in progress" and events[4]["state"] == "done"
    assert err.getvalue() == ""


SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/events.schema.json").read_text("utf-8")))
KINDS = {each["if"]["properties"]["event"]["const"] for each in SCHEMA.schema["allOf"]}


def test_every_event_keeps_the_schema(masker: Masker, out: io.StringIO) -> None:
    Draft202012Validator.check_schema(SCHEMA.schema)
    events = JsonReporter(masker, out, out)
    say_everything(events)
    events._show_step(reporter.Step("preview a"), reporter.LASTING)
    for finding in (passed("it works", "seen"), not_tried("it works", "y")):
        events.finding(finding)
    events.quote("what a tool printed")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    for line in lines:
        SCHEMA.validate(line)
    # `target` and `verdict` are facts of tasks.
    assert KINDS - {line["event"] for line in lines} == {"target", "verdict"}


@pytest.mark.parametrize("record", sorted((ROOT / "docs/runs").glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_recorded_run_keeps_the_schema(record: Path) -> None:
    for line in record.read_text("utf-8").splitlines():
        SCHEMA.validate(json.loads(line))


@pytest.mark.parametrize(
    "event", [{}, {"event": "step", "title": "a", "state": "over"}, {"event": "error", "summary": "a"}]
)
def test_the_schema_refuses_what_a_program_could_not_rely_on(event: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(event)


def test_failed_step_says_so(masker: Masker, out: io.StringIO) -> None:
    reporter = Reporter(masker, out, io.StringIO())
    with pytest.raises(ValueError, match="no"), reporter.step("work"):
        raise ValueError("no")
    assert "work: failed" in out.getvalue()


def test_long_step_gives_a_sign_of_life(masker: Masker, out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "FIRST_PROGRESS", 0.01)
    told = threading.Event()

    class Listening(Reporter):
        def line(self, text: str) -> None:
            super().line(text)
            if "…" in text:
                told.set()

    with Listening(masker, out, io.StringIO()).step("long work") as progress:
        progress.note("at it")
        assert told.wait(10)
    assert "… long work, 0 s: at it" in out.getvalue()


def test_reader_that_leaves_does_not_end_the_run() -> None:
    """`./inv … | head -1`: later lines are dropped, the process goes on and ends with its own exit code."""
    program = (
        "import sys\n"
        "from runbooks.core.mask import Masker\n"
        "from runbooks.core.reporter import make_reporter\n"
        "reporter = make_reporter(as_json=False, masker=Masker())\n"
        "for number in range(20000): reporter.line('x' * 100)\n"
        "print('went on', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    told = child.stderr.read()
    child.stderr.close()
    assert child.wait(60) == 7
    assert told == b"went on\n"


def test_kind_of_display(masker: Masker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert type(make_reporter(as_json=False, masker=masker, out=io.StringIO())) is Reporter
    assert type(make_reporter(as_json=False, masker=masker, out=Typed())) is LiveReporter
    assert type(make_reporter(as_json=True, masker=masker, out=Typed())) is JsonReporter
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_reporter(as_json=False, masker=masker, out=Typed())) is Reporter


ASKING = """
from runbooks.core.mask import Masker
from runbooks.core.reporter import make_reporter
reporter = make_reporter(as_json={as_json}, masker=Masker())
with reporter.step("a step"):
    pass
print(reporter.interactive, reporter.{question})
"""


def answered(question: str, typed: str, *, as_json: bool = False, color: bool = True) -> str:
    """Run a question on a pseudo-terminal, type an answer when it was asked, and give what the screen showed."""
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    if not color:
        environment["NO_COLOR"] = "1"
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", ASKING.format(question=question, as_json=as_json)],
        cwd=ROOT, stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:
            break
        shown += piece
        if b"go on?" in piece:
            os.write(controller, typed.encode())
    child.wait(60)
    os.close(controller)
    return shown.decode()


@pytest.mark.parametrize(
    ("question", "typed", "as_json", "told"),
    [
        ("ask_yes('go on?')", "y\n", False, "True True"),
        ("ask_yes('go on?')", "\n", False, "True False"),
        ("ask_word('go on?', 'postgres')", "postgres\n", False, "True True"),
        ("ask_word('go on?', 'postgres')", "y\n", False, "True False"),
        ("ask_yes('go on?')", "y\n", True, "False False"),
    ],
)
def test_a_person_is_asked_on_a_terminal_and_not_with_events(
    question: str, typed: str, as_json: bool, told: str
) -> None:
    assert told in answered(question, typed, as_json=as_json)


def test_a_later_plan_takes_the_place_of_what_is_still_pending(masker: Masker) -> None:
    screen = Typed()
    with contextlib.closing(LiveReporter(masker, screen, screen)) as live:
        live.plan(["preview db, app", "apply db, app"])
        with live.step("preview db, app"):
            pass
        screen.seek(screen.truncate(0))
        live.plan(["apply app"])
        assert "preview db, app" in screen.getvalue() and "apply app" in screen.getvalue()
        assert "apply db, app" not in screen.getvalue()


@pytest.mark.parametrize("kind", [Reporter, LiveReporter])
def test_a_terminal_that_goes_away_does_not_end_the_run(kind: type[Reporter]) -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as screen, contextlib.closing(kind(Masker(), screen, screen)) as reporter:
        reporter.line("seen")
        os.close(controller)
        with reporter.titled("deploy.postgres"), reporter.step("apply postgres") as step:
            step.note("1 of 3 objects")
            reporter.announce("nobody reads this")
        reporter.error(["interrupted"], exit_code=8)


def test_no_color_is_respected() -> None:
    assert "\x1b[32m" in answered("ask_yes('go on?')", "y\n")
    assert "\x1b[32m" not in answered("ask_yes('go on?')", "y\n", color=False)


def test_no_question_without_a_terminal(masker: Masker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    reporter = Reporter(masker, io.StringIO(), io.StringIO())
    assert not reporter.interactive
    assert not reporter.ask_yes("go on?") and not reporter.ask_word("go on?", "y")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("next: ./inv deploy.postgres", "next: ./inv --target home deploy.postgres"),
        ("run ./inv preview.all, then ./inv status",
         "run ./inv --target home preview.all, then ./inv --target home status"),
        ("./inv lab.up", "./inv lab.up"),
        ("./inv --list", "./inv --list"),
        ("./inv test", "./inv test"),
        ("./inv testing.all", "./inv --target home testing.all"),
        ("./inv target.show --target lab", "./inv target.show --target lab"),
        ("next: ./inv deploy.net\n  or ./inv status --target lab",
         "next: ./inv --target home deploy.net\n  or ./inv status --target lab"),
    ],
)  # fmt: skip
def test_next_steps_go_to_the_target_that_was_chosen(text: str, told: str) -> None:
    assert on_target(text, "home") == told
    assert on_target(text, "") == text


def test_messages_name_commands_on_the_chosen_target() -> None:
    for as_json in (False, True):
        out, err = io.StringIO(), io.StringIO()
        reporter = make_reporter(as_json=as_json, masker=Masker(), target="home", out=out, err=err)
        reporter.finding(Finding(check="r", state=State.FAILED, next_step="./inv verify.net"))
        reporter.line("- `./inv preview.net` was run")
        reporter.advice("also failed: net\n  next: ./inv wire.net")
        reporter.error(["broken", "next: ./inv doctor"], exit_code=1)
        assert "./inv --target home verify.net" in out.getvalue()
        assert "next: ./inv --target home wire.net" in out.getvalue()
        assert "`./inv preview.net` was run" in out.getvalue()
        assert "next: ./inv --target home doctor" in out.getvalue() + err.getvalue()


@pytest.mark.parametrize(("error", "result"), [(None, "done"), (ValueError("no"), "failed")])
def test_the_title_of_the_terminal(
    masker: Masker, monkeypatch: pytest.MonkeyPatch, error: Exception | None, result: str
) -> None:
    """The run, its step and its result, between the codes that put the old title aside and restore it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Typed()
    live = make_reporter(as_json=False, masker=masker, out=out)
    with contextlib.suppress(ValueError), live.titled("deploy.net"):
        with live.step(f"apply {CANARY}\a\x1b"):
            pass
        if error:
            raise error
    codes = re.findall(r"\x1b\]0;(.*?)\x07|\x1b\[(2[23];0)t", out.getvalue())
    titles = ["deploy.net: apply [secret]", f"deploy.net: {result}"]
    assert codes == [("", "22;0"), *((title, "") for title in titles), ("", "23;0")]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("as_json", [False, True])
def test_no_title_without_a_terminal_that_shows_colours(
    masker: Masker, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], as_json: bool
) -> None:
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    out = Typed()
    reporter = make_reporter(as_json=as_json, masker=masker, out=out)
    with reporter.titled("deploy.net"), reporter.step("apply net"):
        pass
    assert "\x1b]0;" not in out.getvalue() and ";0t" not in out.getvalue()
