"""The command line itself: exit codes, nearest names, options, how errors are told."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from invoke import Context, task

import tasks
from runbooks.cli import START_PAGE, OpsProgram, options_of_environment, report_errors
from runbooks.collection import build, each_service, task_rows
from runbooks.core import reporter
from runbooks.core.errors import (
    LoginMissing,
    NotApproved,
    NotFound,
    OpsError,
    OutOfTime,
    Refused,
    ToolFailed,
    UnexpectedChanges,
    Usage,
    VerificationFailed,
)
from runbooks.core.mask import Masker
from runbooks.services import SERVICES

ROOT = Path(__file__).parents[2]
RAISES: dict[str, BaseException] = {}
SEEN: list[Any] = []


@task
def fail(c: Context) -> None:
    """Raise what the test put there."""
    raise RAISES["it"]


@task
def look(c: Context, name: str = "") -> None:
    """Note the options."""
    SEEN.append((c.config.ops.target, c.config.ops.json, name))


@each_service(everything=True)
def act(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Do something to {service}.

    --yes is an option.
    """
    SEEN.append((names, yes))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    SEEN.clear()
    reporter._in_use.clear()
    monkeypatch.setenv("OPS_STATE", str(tmp_path / "state"))
    for name in ("OPS_TARGET", "OPS_JSON"):
        monkeypatch.delenv(name, raising=False)


def run(*words: str) -> int:
    alone, group = ModuleType("alone"), ModuleType("things")
    for module, members in ((alone, (fail, look)), (group, (act,))):
        for member in members:
            body = getattr(member, "body", member)
            body.__module__ = module.__name__
            vars(module)[body.__name__] = member
    fail.body, look.body = FAIL, LOOK
    namespace = build(alone=[alone], groups=[group], wrap=report_errors, options=options_of_environment())
    try:
        OpsProgram(namespace=namespace, binary="./inv", binary_names=["inv"]).run(["inv", *words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


FAIL, LOOK = fail.body, look.body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ToolFailed, 1), (Usage, 2), (LoginMissing, 3), (VerificationFailed, 4), (Refused, 5), (NotFound, 6),
        (UnexpectedChanges, 7), (NotApproved, 8), (OutOfTime, 9),
    ],
)  # fmt: skip
def test_error_has_its_exit_code_and_says_all_sides(
    error: type[OpsError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    RAISES["it"] = error("seen this", expected="that", next_step="./inv doctor")
    assert run("fail") == code
    assert capsys.readouterr().err == "error: seen this\n  expected: that\n  next: ./inv doctor\n"


def test_interrupt_is_8(capsys: pytest.CaptureFixture[str]) -> None:
    RAISES["it"] = KeyboardInterrupt()
    assert run("fail") == 8
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("number", "file", "code"),
    [
        *((number, "/state/file", 1) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)),
        *((number, "/state/file", 1) for number in (errno.EACCES, errno.EEXIST)),
        (errno.ENOSPC, None, 1),
        (errno.EPERM, None, 70),
    ],
)
def test_a_full_disk_or_a_file_of_another_user_is_no_bug(
    capsys: pytest.CaptureFixture[str], number: int, file: str | None, code: int
) -> None:
    RAISES["it"] = OSError(number, os.strerror(number), file)
    assert run("fail") == code
    told = capsys.readouterr().err
    assert code == 70 or (os.strerror(number) in told and "OPS_STATE" in told and (file or "") in told)


PRINTS = ("--list", "--list --list-format=json", "--help lab.up", "--print-completion-script=bash", "lab.status")


@pytest.mark.parametrize(
    ("output", "words", "code"),
    [
        *(("a reader that left", words, 141) for words in PRINTS[:4]),
        ("a reader that left", "lab.status", 0),
        *(("closed", words, 0) for words in PRINTS),
        *(("a full disk", words, 1) for words in PRINTS[:4]),
    ],
)
def test_output_that_cannot_be_written(tmp_path: Path, output: str, words: str, code: int) -> None:
    """A listing ends as other programs do, a run goes on; no bug log, no traceback when the interpreter ends either."""
    argv = [sys.executable, "tasks.py", *words.split()]
    if output == "closed":
        argv = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *argv]
    reader, stdout = os.pipe()
    if output == "a full disk":
        os.close(stdout)
        stdout = os.open("/dev/full", os.O_WRONLY)
    os.close(reader)
    env = os.environ | {"OPS_STATE": str(tmp_path)}
    ended = subprocess.run(argv, cwd=ROOT, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    os.close(stdout)
    assert ended.returncode == code
    if code == 1:
        assert ended.stderr.startswith("error: ") and "No space left on device" in ended.stderr
        assert len(ended.stderr.splitlines()) == 3
    else:
        assert ended.stderr == ""
    assert not (tmp_path / "logs").exists() and (code != 141 or list(tmp_path.iterdir()) == [])


def test_bug_is_70_with_a_private_masked_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reporter.make_reporter(as_json=False, masker=Masker(["canary"]))
    RAISES["it"] = RuntimeError("canary")
    assert run("fail") == 70
    (log,) = (tmp_path / "state" / "logs").iterdir()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "RuntimeError: [secret]" in log.read_text() and "canary" not in log.read_text()
    told = capsys.readouterr().err
    assert str(log) in told and "canary" not in told and "Traceback" not in told


def test_error_as_event(capsys: pytest.CaptureFixture[str]) -> None:
    RAISES["it"] = Refused("seen this", next_step="that")
    assert run("--json", "fail") == 5
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "event": "error", "summary": "seen this", "details": ["next: that"], "exit_code": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["things.postgress"], 6, "things.postgres, "),
        (["nope"], 6, "'nope'"),
        (["things.-postgres"], 6, "things.postgres"),
        (["--list", "thing"], 6, "things"),
        (["--help", "things.postgress"], 6, "things.postgres"),
        (["-things.postgres"], 2, "-things.postgres"),
        (["things.postgres", "--nope"], 2, "--nope"),
        (["things.postgres", "-x"], 2, "-x"),
        (["things.postgres", "-foo"], 2, " -foo\n"),
        (["things.postgres", "--nope=5"], 2, "./inv --help things.postgres"),
        (["things.postgres", "--yes="], 2, "--yes "),
        (["things.postgres", "--yes=true"], 2, "--yes "),
        (["--nope"], 2, "--nope"),
        (["--target"], 2, "target"),
        (["--target=", "look"], 2, "--target"),
        (["-R", "things.postgres"], 2, "preview"),
        (["--dry", "things.postgres"], 2, "preview"),
        (["look", "--name"], 2, "name"),
    ],
)
def test_wrong_command_line(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == code
    assert said in capsys.readouterr().err
    assert SEEN == []


def test_the_value_of_an_unknown_option_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("things.postgres", "--password=hunter2") == 2
    assert run("things.postgres", "-p=hunter2") == 2
    assert "hunter2" not in capsys.readouterr().err


def test_nothing_given_is_a_start_page_and_not_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out == START_PAGE
    assert run("--list") == 0
    listed = capsys.readouterr().out
    assert "things.postgres" in listed and "things.all" in listed
    assert "Do something to every service." in listed


def test_what_exists_for_each_service_is_listed_once_with_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  things.")] == ["things.all", "things.<service>"]
    (told,) = [line for line in lines if "things.<service>" in line]
    assert told.endswith("Do something to the service.")
    words = {word for line in lines for word in line.split()}
    assert {f"things.{service.name}" for service in SERVICES} <= words
    assert all(len(line) < 80 for line in lines)
    assert run("--list", "things") == 0
    assert ".postgres" in capsys.readouterr().out.split()


def test_each_service_makes_a_task_of_every_service() -> None:
    for service in SERVICES:
        assert run(f"things.{service.name}", "--yes") == 0
    assert run("things.all") == 0
    everything = tuple(service.name for service in SERVICES)
    assert SEEN[:-1] == [((service.name,), True) for service in SERVICES]
    assert SEEN[-1] == (everything, False)


@pytest.mark.parametrize("words", [["--target", "mx", "--json", "look"], ["look", "--target", "mx", "--json"]])
def test_target_and_json_stand_before_or_after_the_task(words: list[str]) -> None:
    assert run(*words) == 0
    assert SEEN == [("mx", True, "")]


def test_environment_is_read_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_TARGET", "mx")
    monkeypatch.setenv("OPS_JSON", "1")
    assert run("look") == 0
    assert run("--target", "lab", "look", "--name", "-x") == 0
    assert SEEN == [("mx", True, ""), ("lab", True, "-x")]


def process(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command line in this checkout, to its end."""
    return subprocess.run(argv, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)


def test_plain_inv_has_the_same_tasks_and_errors() -> None:
    """`inv` of an activated environment reads tasks.py; its exit codes are ours as well."""
    inv = Path(sys.executable).with_name("inv")
    listed = process(inv, "--list").stdout
    assert "deploy.postgres" in listed and "check" in listed.split()
    refused = process(inv, "test", "--path=-x")
    assert refused.returncode == 2 and "would be read as an option" in refused.stderr


def test_modules_are_compiled_once_whatever_the_environment_says() -> None:
    program = "import runbooks, sys; print(sys.dont_write_bytecode)"
    assert process(sys.executable, "-c", program, PYTHONDONTWRITEBYTECODE="1").stdout == "False\n"


def test_listing_imports_nothing_heavy() -> None:
    heavy = {"rich", "sh", "ruamel", "pulumi", "psycopg", "ahocorasick_rs", "grpc", "lab", "runbooks.stacks.session"}
    program = (
        "import runpy, sys\n"
        "sys.argv = ['inv']\n"
        "try: runpy.run_path('tasks.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    loaded = set(process(sys.executable, "-c", program).stderr.split())
    assert "runbooks.cli" in loaded and heavy.isdisjoint(loaded)


LISTED = [max(row.members or (row.name,), key=len) for row in task_rows(tasks.ns)]


@pytest.mark.parametrize("name", [name for name in LISTED if tasks.ns[name].get_arguments()])
def test_the_help_of_a_task_with_options_has_an_example_that_can_be_run(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = OpsProgram(namespace=tasks.ns, binary="./inv", binary_names=["inv", "./inv"])
    program.run(["inv", "--help", name])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) < 80
    (example,) = re.findall(r"^ +Example: \./inv (.*)$", shown, re.MULTILINE)
    program.create_config()
    program.parse_core(["inv", *shlex.split(example)])
    program.parse_collection()
    program.parse_tasks()
    assert [context.name for context in program.tasks] == [name]


def test_every_option_is_explained() -> None:
    """Asked in another process: invoke takes the texts out of a task when it reads its options."""
    program = (
        "import tasks\n"
        "for name in tasks.ns.task_names:\n"
        "    for option in tasks.ns[name].get_arguments():\n"
        "        option.help or print(name, option.name)\n"
    )
    told = process(sys.executable, "-c", program)
    assert (told.returncode, told.stdout) == (0, "")
