"""The one place that starts processes, with real children: output, callbacks, time, failures."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.core.child import Capture, Patience
from runbooks.core.command import Command
from runbooks.core.errors import NotApproved, OpsError, OutOfTime, ToolFailed
from runbooks.core.journal import Journal, Unwritable, read_journal
from runbooks.core.mask import Masker
from runbooks.core.runner import CommandFailed, Runner, ToolMissing
from tests.fixtures import RealRunner, executable, is_alive, until

SECRET = "hunter2-hunter2"
BRISK = Patience(interrupted_read=0.2, terminated=0.2, open_pipes=0.3, unguarded_read=0.2)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., RealRunner]]:
    made: list[RealRunner] = []

    def build(**options: Any) -> RealRunner:
        made.append(RealRunner(tmp_path / "state", SECRET, **{"patience": BRISK} | options))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def ops(make: Callable[..., RealRunner]) -> RealRunner:
    return make()


def python(code: str, *arguments: str, **fields: Any) -> Command:
    """A child that runs this Python code."""
    return Command(argv=(sys.executable, "-c", textwrap.dedent(code), *arguments), title="the child", **fields)


# --- output and exit codes -------------------------------------------------------------------------------------------


def test_output_reaches_parsers_clear_and_people_masked(ops: RealRunner) -> None:
    code = "import sys; text = sys.stdin.read(); print('out', text); print('err', text, file=sys.stderr)"
    outcome = ops.runner.run(python(code, stdin=SECRET.encode()))
    assert (outcome.exit_code, outcome.ok) == (0, True)
    assert (outcome.stdout, outcome.stderr) == (f"out {SECRET}\n", f"err {SECRET}\n")
    assert (outcome.shown_stdout, outcome.shown_stderr) == ("out [secret]\n", "err [secret]\n")
    assert (ops.shown_on("stdout"), ops.shown_on("stderr")) == ("out [secret]\n", "err [secret]\n")
    assert SECRET not in repr(outcome)
    assert SECRET.encode() not in ops.journal.path.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_child_that_a_signal_ended_has_its_number(ops: RealRunner, number: signal.Signals) -> None:
    outcome = ops.runner.run(python("import os, sys; os.kill(os.getpid(), int(sys.argv[1]))", str(int(number))))
    assert outcome.exit_code == -number
    assert not outcome.interrupted


def test_check_gives_the_last_lines_masked(ops: RealRunner) -> None:
    command = python(f"print('fine'); raise SystemExit('line\\n' * 30 + 'no: {SECRET}')")
    with pytest.raises(CommandFailed) as failed:
        ops.runner.check(command)
    assert "the child" in failed.value.summary.splitlines()[0]
    assert failed.value.summary.endswith("no: [secret]")
    assert len(failed.value.summary.splitlines()) == 13
    assert failed.value.outcome.stdout == "fine\n"
    assert isinstance(failed.value, ToolFailed)
    assert SECRET not in str(failed.value)


def test_the_title_or_the_arguments_in_an_error_are_masked(ops: RealRunner) -> None:
    with pytest.raises(CommandFailed, match=r"^false \[secret\]"):
        ops.runner.check(Command(argv=("false", SECRET)))


def test_a_secret_of_several_lines_is_masked_when_its_lines_arrive_one_by_one(ops: RealRunner) -> None:
    lines = ["-----BEGIN KEY-----", "MIIEvQIBADANBgkq", "AQEFAASCBKcwggSj", "Zm9vYg==", "-----END KEY-----"]
    ops.masker.register("\n".join(lines))
    code = "import sys, time\nfor line in sys.argv[1:]: print(line, flush=True); time.sleep(0.05)"
    outcome = ops.runner.run(python(code, *lines))
    for shown in (ops.shown_on("stdout"), outcome.shown_stdout):
        assert "[secret]" in shown and not any(line in shown for line in lines[1:4])


def test_a_secret_of_the_commands_own_environment_is_masked_from_the_first_byte(ops: RealRunner) -> None:
    command = python("import os; print(os.environ['DB_PASSWORD'])", env={"DB_PASSWORD": "correct-horse"})
    assert ops.runner.run(command).shown_stdout == "[secret]\n"


def test_a_byte_at_a_time_splits_no_character_and_no_secret(ops: RealRunner) -> None:
    code = r"""
    import os, sys, time
    for byte in "ä€😀\n".encode() + b"\xff\xfeend\n" + sys.argv[1].encode():
        os.write(1, bytes([byte])); time.sleep(0.001)
    """
    lines: list[tuple[str, int]] = []
    on_line = lambda line: lines.append((line, threading.get_ident()))  # noqa: E731
    outcome = ops.runner.run(python(code, f"<{SECRET}>\n"), on_line=on_line)
    assert outcome.stdout == f"ä€😀\n\ufffd\ufffdend\n<{SECRET}>\n"
    assert lines == [(line, threading.get_ident()) for line in ("ä€😀", "\ufffd\ufffdend", f"<{SECRET}>")]
    assert ops.shown_on("stdout") == outcome.shown_stdout == "ä€😀\n\ufffd\ufffdend\n<[secret]>\n"


def test_confidential_output_stays_in_memory(ops: RealRunner) -> None:
    command = python("import sys; print('clear-text'); sys.exit('clear-error')", confidential=True)
    outcome = ops.runner.run(command)
    assert (outcome.stdout, outcome.stderr) == ("clear-text\n", "clear-error\n")
    assert (outcome.shown_stdout, outcome.shown_stderr, ops.shown) == ("", "", [])
    with pytest.raises(CommandFailed) as failed:
        ops.runner.check(command)
    assert "confidential" in failed.value.summary
    assert "clear-error" not in failed.value.summary
    assert ops.records()[0]["confidential"] is True
    # The title is the command's name here; what it printed is nowhere.
    assert not any({"stdout", "stderr"} & record.keys() for record in ops.records())


def test_very_much_output_neither_blocks_the_child_nor_fills_the_memory(make: Callable[..., RealRunner]) -> None:
    ops = make(largest_output=100_000)
    code = f"import sys; sys.stdout.write(('x' * 99 + '\\n') * 90_000 + '{SECRET}'); sys.exit(3)"
    with pytest.raises(CommandFailed) as failed:
        ops.runner.run(python(code, mutates=True))
    assert "9000015 bytes" in failed.value.summary
    assert failed.value.outcome.exit_code == 3
    kept = ops.records()[0]["stdout"]
    assert 30_000 < len(kept) <= 100_000 and len(kept) % 100 == 0, "whole lines, so that no secret is cut in two"


def test_the_journal_has_the_beginning_and_the_end_of_long_output(ops: RealRunner) -> None:
    outcome = ops.runner.run(python(f"print('start'); print('x' * 5_000_000); print('{SECRET} end')"))
    for kept in (outcome.shown_stdout, ops.records()[0]["stdout"]):
        assert kept.startswith("start\n") and kept.endswith("[secret] end\n") and "bytes left out" in kept
        assert len(kept) < 4_300_000
    assert len(outcome.stdout) > 5_000_000


def test_a_child_that_does_not_read_its_input_ends_as_it_likes(ops: RealRunner) -> None:
    assert ops.runner.run(python("exit(4)", stdin=b"x" * 1_000_000)).exit_code == 4


def test_output_and_input_flow_at_the_same_time(ops: RealRunner) -> None:
    text = b"0123456789abcdef" * 100_000
    assert ops.runner.run(Command(argv=("cat",), stdin=text)).stdout.encode() == text
    ops.runner.run(python("import sys; sys.stdin.read()", stdin=b"line of input\n", mutates=True))
    assert b"line of input" not in ops.journal.path.read_bytes(), "input is never recorded"


def test_a_child_may_close_its_output_and_go_on(ops: RealRunner) -> None:
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(5)"
    assert ops.runner.run(python(code)).exit_code == 5


def test_the_environment_is_the_allow_list_and_the_commands_own(ops: RealRunner) -> None:
    code = "import os; print('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))"
    outcome = ops.runner.run(python(code, env={"KUBECONFIG": "/run/one", "PULUMI_OPTION_YES": "true"}))
    names = {line.partition("=")[0] for line in outcome.stdout.splitlines()}
    assert {"PATH", "KUBECONFIG", "PULUMI_SKIP_UPDATE_CHECK"} <= names
    assert "PULUMI_OPTION_YES" not in names
    assert "PYTEST_CURRENT_TEST" not in names


CHUNKS = st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\r\n", b"a\nb", "ä€".encode()]), max_size=20)


@given(CHUNKS)
def test_lines_are_the_same_however_they_arrive(chunks: list[bytes]) -> None:
    lines: list[str] = []
    texts: list[bytes] = []
    capture = Capture(on_line=lines.append, on_text=texts.append)
    for chunk in chunks:
        capture.feed(chunk)
    assert all(text.endswith(b"\n") for text in texts)
    capture.close()
    whole = b"".join(chunks)
    assert capture.data == b"".join(texts) == whole
    expected = whole.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert lines == [line.removesuffix(b"\r").decode("utf-8", "replace") for line in expected]


# --- callbacks that fail ---------------------------------------------------------------------------------------------

WORDY = "import sys\nfor n in range(500): print('line', n, flush=True)\nsys.exit(0)"


@pytest.mark.parametrize("mutates", [True, False])
@pytest.mark.parametrize("error", [KeyError("oops"), BrokenPipeError(32, "x"), SystemExit(0), KeyboardInterrupt()])
def test_a_failing_on_line_loses_no_output(ops: RealRunner, mutates: bool, error: BaseException) -> None:
    seen: list[str] = []

    def fail(line: str) -> None:
        seen.append(line)
        raise error

    with pytest.raises(type(error)) as raised:
        ops.runner.run(python(WORDY, mutates=mutates), on_line=fail)
    assert raised.value is error
    assert "itself ended with exit 0" in raised.value.__notes__[0]
    assert seen == ["line 0"]
    assert ops.records()[0]["stdout"].endswith("line 499\n")
    assert ops.shown_on("stdout").endswith("line 499\n")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_failing_show_loses_nothing_and_only_a_closed_terminal_is_no_failure(
    make: Callable[..., RealRunner], is_terminal: bool
) -> None:
    def fail(stream: str, text: str) -> None:
        raise BrokenPipeError(32, "head has seen enough") if is_terminal else ValueError("the display broke")

    ops = make(show=fail)
    with contextlib.nullcontext() if is_terminal else pytest.raises(ValueError, match="the display broke"):
        assert ops.runner.run(python(WORDY, mutates=True)).ok
    assert ops.records()[0]["stdout"].endswith("line 499\n")
    assert ops.records()[0]["exit_code"] == 0


# --- time and what is left behind ------------------------------------------------------------------------------------


def test_a_read_that_is_out_of_time_is_ended_with_all_it_started(ops: RealRunner) -> None:
    code = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
    """
    pids: list[int] = []
    with pytest.raises(OutOfTime, match=r"the child .* 1 s"):
        ops.runner.run(python(code, timeout=1.0), on_line=lambda line: pids.append(int(line)))
    until(lambda: not is_alive(pids[0]))
    assert ops.records()[0]["timed_out"] is True
    assert ops.records()[0]["exit_code"] == -signal.SIGKILL


def test_a_command_that_changes_something_cannot_have_a_time_limit() -> None:
    with pytest.raises(ValueError, match="time-out"):
        python("", mutates=True, timeout=1)


@pytest.mark.parametrize("mutates", [True, False])
def test_a_grandchild_that_keeps_the_pipe_does_not_hang_us(ops: RealRunner, mutates: bool) -> None:
    begun = time.monotonic()
    outcome = ops.runner.run(Command(argv=("sh", "-c", "sleep 45 & echo $!; echo hello"), mutates=mutates))
    pid = int(outcome.stdout.split()[0])
    try:
        assert time.monotonic() - begun < 10
        assert outcome.exit_code == 0
        assert outcome.stdout.endswith("hello\n")
        assert f"sleep (process {pid})" in outcome.left_behind
        assert ops.records()[0]["left_behind"] == outcome.left_behind
        assert ops.reported == [outcome.left_behind]
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_what_a_gone_child_had_written_is_read_to_the_end(make: Callable[..., RealRunner]) -> None:
    ops = make(patience=Patience(open_pipes=30))
    outcome = ops.runner.run(Command(argv=("sh", "-c", "(sleep 0.1; head -c 60000 /dev/zero; echo late) & exit 0")))
    assert outcome.stdout.endswith("late\n")
    assert outcome.left_behind == ""


# --- programs that do not start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "fields", "words"),
    [
        (("pulumi", "version"), {"env": {"PATH": "/nowhere"}}, ("pulumi", "get.pulumi.com")),
        (("/nowhere/kubectl",), {}, ("/nowhere/kubectl",)),
        (("no-such-tool",), {}, ("next: ", "no-such-tool")),
        (("true",), {"cwd": Path("/nowhere/at/all")}, ("/nowhere/at/all",)),
        (("TMP/tool",), {}, ("No such file or directory",)),
        (("true", "x" * 3_000_000), {}, ("Argument list too long",)),
        (("true", "a\0b"), {}, ("arguments",)),
    ],
)
def test_a_program_that_does_not_start(
    ops: RealRunner, tmp_path: Path, argv: tuple[str, ...], fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    executable(tmp_path / "tool", "#!/no/such/interpreter")
    there = tuple(word.replace("TMP", str(tmp_path)) for word in argv)
    with pytest.raises(ToolMissing) as missing:
        ops.runner.run(Command(argv=there, **fields))
    assert missing.value.exit_code == 1
    assert [word for word in words if word not in "\n".join(missing.value.lines())] == []
    assert ops.records() == []


# --- the journal -----------------------------------------------------------------------------------------------------


def test_the_record_of_a_command(ops: RealRunner, tmp_path: Path) -> None:
    ops.runner.run(
        python(
            "print('x'); raise SystemExit(7)", SECRET, mutates=True, cwd=tmp_path,
            env={"API_TOKEN": "token-in-the-environment"},
        )
    )  # fmt: skip
    (start,) = ops.records("start")
    assert start["argv"][0] == sys.executable
    assert start["argv"][-1] == "[secret]"
    (record,) = ops.records()
    assert record["argv"] == start["argv"]
    assert (record["exit_code"], record["stdout"], record["stderr"]) == (7, "x\n", "")
    assert (record["title"], record["cwd"], record["mutates"]) == ("the child", str(tmp_path), True)
    assert 0 < record["seconds"] < 20
    assert record["cpu_seconds"] > 0
    assert b"token-in-the-environment" not in ops.journal.path.read_bytes()


def test_titles_keep_the_platforms_names_and_output_does_not(make: Callable[..., RealRunner], tmp_path: Path) -> None:
    masker = Masker(["postgres"], public_names=["postgres"])
    journal = Journal.open(tmp_path, "test", [], masker=masker)
    with contextlib.closing(Runner(masker=masker, journal=journal, base_env=os.environ)) as runner:
        outcome = runner.run(Command(argv=("echo", "user postgres"), title="preview postgres"))
    (record,) = (record for record in read_journal(journal.path) if record["kind"] == "command")
    assert (record["title"], record["stdout"]) == ("preview postgres", "user [secret]\n")
    assert outcome.shown_stdout == "user [secret]\n"
    journal.close()


def test_a_full_disk_stops_what_changes_something_before_it_starts(ops: RealRunner, tmp_path: Path) -> None:
    full(ops.journal)
    mark = tmp_path / "changed"
    with pytest.raises(Unwritable) as refused:
        ops.runner.run(Command(argv=("touch", str(mark)), mutates=True))
    assert "No space left on device" in refused.value.summary
    assert refused.value.exit_code == 1
    assert not mark.exists()


def test_a_full_disk_does_not_hide_how_a_command_ended(ops: RealRunner) -> None:
    outcome = ops.runner.run(python("exit(6)", mutates=True), on_line=None)
    assert outcome.exit_code == 6
    command = python("import sys; print('go', flush=True); sys.exit(6)", mutates=True)
    outcome = ops.runner.run(command, on_line=lambda line: full(ops.journal))
    assert (outcome.exit_code, outcome.stdout) == (6, "go\n")
    assert ops.runner.run(python("exit(5)")).exit_code == 5
    assert len(ops.reported) == 1
    assert "No space left on device" in ops.reported[0]


def full(journal: Journal) -> None:
    """From now on the journal is on a disk that takes nothing more."""
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, journal._descriptor)
    os.close(device)


# --- totals, threads, interruption -----------------------------------------------------------------------------------

BUSY = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_the_cpu_seconds_of_a_child_and_of_what_it_waited_for_are_counted(ops: RealRunner) -> None:
    outcome = ops.runner.run(
        python("import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", BUSY)
    )
    assert 0.2 <= outcome.cpu_seconds < 5


PATIENT = """
import signal, sys, time
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.append(number))
print("ready", flush=True)
while not heard: time.sleep(0.005)
print("signal", *heard, flush=True)
end = time.monotonic() + 0.3
while time.monotonic() < end: time.sleep(0.005)
print("stopped gracefully after", len(heard), flush=True)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


def test_interrupt_sends_one_graceful_signal_to_its_own_command(ops: RealRunner) -> None:
    ready = threading.Event()

    def stop(line: str) -> None:
        if line in {"ready", "signal 2"}:
            ops.runner.interrupt()

    with ThreadPoolExecutor() as pool:
        command = python("print('here', flush=True)\nimport time; time.sleep(1)")
        beside = pool.submit(ops.runner.run, command, on_line=lambda line: ready.set())
        assert ready.wait(20)
        outcome = ops.runner.run(python(PATIENT, mutates=True), on_line=stop)
        assert beside.result().ok
    assert outcome.stdout == "ready\nsignal 2\nstopped gracefully after 1\n"
    assert outcome.interrupted
    assert not outcome.ok
    assert outcome.exit_code == 0
    # It was our own decision: the run goes on, for instance with a look at what was left.
    assert not ops.runner.interrupted
    assert ops.runner.run(Command(argv=("true",))).ok


def test_interrupt_from_elsewhere_reaches_every_running_command(ops: RealRunner) -> None:
    ready = threading.Semaphore(0)
    command = python(PATIENT, "3", mutates=True)
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(ops.runner.run, command, on_line=lambda line: ready.release()) for _ in range(2)]
        assert ready.acquire(timeout=20) and ready.acquire(timeout=20)
        ops.runner.interrupt()
        ops.runner.interrupt()
    ended = [(outcome.exit_code, outcome.stdout) for outcome in (each.result() for each in running)]
    assert ended == [(3, "ready\nsignal 2\nstopped gracefully after 1\n")] * 2


def test_an_interrupted_command_is_not_approved(make: Callable[..., RealRunner]) -> None:
    ops = make(show=lambda _, text: ops.runner.interrupt() if "ready" in text else None)
    with pytest.raises(NotApproved, match="the child"):
        ops.runner.check(python(PATIENT, mutates=True))


def test_a_read_that_ignores_the_signal_is_ended_after_a_while(ops: RealRunner) -> None:
    code = """
    import signal, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(60)
    """
    outcome = ops.runner.run(python(code), on_line=lambda line: ops.runner.interrupt())
    assert outcome.exit_code == -signal.SIGTERM
    assert outcome.interrupted


def test_a_signal_while_nothing_runs_does_what_it_always_did(ops: RealRunner) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(KeyboardInterrupt):
            signal_myself(number)
    assert ops.runner.interrupted
    with pytest.raises(NotApproved, match="true"):
        ops.runner.run(Command(argv=("true",)))
    assert ops.runner.run(Command(argv=("true",)), after_interrupt=True).ok


def signal_myself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    until(lambda: False)


def test_a_signal_while_the_start_is_put_on_record_prevents_it(ops: RealRunner, tmp_path: Path) -> None:
    mark = tmp_path / "changed"
    signal_when_written(ops, "start")
    with pytest.raises(NotApproved, match="touch"):
        ops.runner.run(Command(argv=("touch", str(mark)), mutates=True))
    assert not mark.exists()


def test_a_signal_after_the_end_loses_nothing(ops: RealRunner) -> None:
    signal_when_written(ops, "command")
    outcome = ops.runner.run(python("exit(3)", mutates=True))
    assert (outcome.exit_code, outcome.interrupted) == (3, False)
    assert ops.records()[0]["exit_code"] == 3
    assert ops.runner.interrupted


def signal_when_written(ops: RealRunner, kind: str) -> None:
    """Ctrl-C comes just when the runner writes a record of this kind."""
    write = ops.journal.write

    def interrupted(written: str, **fields: object) -> None:
        if written == kind:
            os.kill(os.getpid(), signal.SIGINT)
        write(written, **fields)

    ops.journal.write = interrupted


def test_handlers_are_put_back(make: Callable[..., RealRunner]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ops = make()
    assert signal.getsignal(signal.SIGINT) != before[0]
    ops.runner.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_an_ignored_signal_stays_ignored(make: Callable[..., RealRunner]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ops = make()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        outcome = ops.runner.run(
            python(PATIENT, mutates=True), on_line=lambda line: ops.runner.interrupt() if line == "ready" else None
        )
        assert outcome.stdout == "ready\nsignal 15\nstopped gracefully after 1\n"
        ops.runner.close()
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_is_left_open(ops: RealRunner) -> None:
    ops.runner.run(Command(argv=("true",), mutates=True))
    before = sorted(Path("/proc/self/fd").iterdir())
    children = {child.pid for child in psutil.Process().children()}
    for _ in range(5):
        ops.runner.run(Command(argv=("cat",), stdin=b"x", mutates=True))
        ops.runner.run(Command(argv=("false",)))
        with contextlib.suppress(OpsError):
            ops.runner.run(Command(argv=("no-such-tool",)))
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert {child.pid for child in psutil.Process().children()} == children


def test_what_a_login_asks_for_is_shown_at_once_and_masked(make: Callable[..., RealRunner]) -> None:
    ops = make(show=None)
    code = f"import sys; print('open the page {SECRET}', file=sys.stderr, flush=True); print('answer')"
    outcome = ops.runner.run(python(code, shows_stderr=True))
    assert outcome.stdout == "answer\n"
    ops.runner.run(python("import sys; print('words of another command', file=sys.stderr)"))
    assert ops.reported == ["open the page [secret]"]


def test_a_login_that_is_tried_again_is_shown_once_and_without_the_tools_log(make: Callable[..., RealRunner]) -> None:
    ops = make(show=None)
    log = 'E1130 22:34:06.147885   23006 memcache.go:265] "Unhandled Error" err="exit code 3"'
    code = f"import sys; sys.stderr.write(('run tsh login\\n' + {log!r} + '\\n') * 3 + 'cannot connect\\n')"
    outcome = ops.runner.run(python(code, shows_stderr=True))
    assert ops.reported == ["run tsh login", "cannot connect"]
    assert outcome.stderr.count(log) == 3, "the journal has all of it"
