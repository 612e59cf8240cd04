"""stack.init: the only way a stack comes into being, and never without a yes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runbooks.core.errors import NotApproved, NotFound, OpsError, ToolFailed, Usage
from runbooks.tasks import stack
from tests.fixtures import REAL_ROOT, Repo


def run(repo: Repo, service: str = "postgres") -> None:
    stack.init.body(repo.c, service)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    answers: list[bool] = []
    monkeypatch.setattr("runbooks.core.reporter.Reporter.ask_yes", lambda *_: answers.pop(0))
    return answers


def inits(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("pulumi") if "stack init" in argv]


def test_it_shows_backend_and_names_asks_and_creates(
    repo: Repo, says: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    says.append(True)
    repo.answer("pulumi", ["stack", "init"], (0, "", "Created stack 'mx'\n"))
    run(repo)
    folder = repo.root / "pulumi" / "data" / "databases" / "postgres"
    assert inits(repo) == [f"-C {folder} stack init mx --non-interactive"]
    output = capsys.readouterr().out
    for part in (f"file://{repo.backend}", "organization/postgresql/mx", str(folder / "Pulumi.mx.yaml")):
        assert part in output
    assert "next: ./inv --target home secrets.set postgres superuser_password --generate" in output


def test_no_yes_no_stack(repo: Repo, says: list[bool]) -> None:
    says.append(False)
    with pytest.raises(NotApproved):
        run(repo)
    assert inits(repo) == []


def test_without_a_terminal_no_stack(repo: Repo) -> None:
    with pytest.raises(NotApproved):
        run(repo)
    assert inits(repo) == []


def test_a_stack_that_exists_stays(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.has_stacks("postgresql")
    run(repo)
    assert inits(repo) == []
    assert "exists already" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "error"), [("postgers", NotFound), ("-x", Usage), ("", Usage)])
def test_names_that_are_no_service(repo: Repo, name: str, error: type[OpsError]) -> None:
    with pytest.raises(error) as caught:
        run(repo, name)
    assert repo.calls("pulumi") == []
    if error is NotFound:
        assert "postgres" in caught.value.expected


def test_a_failure_of_pulumi_is_told(repo: Repo, says: list[bool]) -> None:
    says.append(True)
    repo.answer("pulumi", ["stack", "init"], (1, "", "error: disk quota exceeded\n"))
    with pytest.raises(ToolFailed, match="disk quota"):
        run(repo)


@pytest.mark.parametrize(
    ("words", "code", "output"),
    [
        (("stack.init", "-x"), 2, "starts with a dash"),
        (("stack.init", "postgers"), 6, "postgres"),
        (("secrets.set", "postgers", "x"), 6, "postgres"),
        (("secrets.set", "postgres", "superuser_pasword"), 6, "superuser_password"),
        (("verify.postgers",), 6, "verify.postgres"),
        (("--target", "nowhere", "target.show"), 6, "lab"),
        (("--target", "", "target.show"), 2, "without a name"),
        (("--target", "-x", "target.show"), 2, "-x"),
    ],
)
def test_names_on_the_real_command_line(tmp_path: Path, words: tuple[str, ...], code: int, output: str) -> None:
    done = subprocess.run(
        [sys.executable, REAL_ROOT / "tasks.py", *words],
        env={**os.environ, "OPS_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert output in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lab").exists()
