"""`check`, `test` and what continuous integration makes of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runbooks.checks.repository import checks, judge_tests, pytest_commands
from runbooks.core.command import Command, Outcome
from runbooks.core.errors import ToolFailed, Usage
from tests.fixtures import executable

ROOT = Path(__file__).parents[3]


def test_every_rule_of_the_repository_is_checked() -> None:
    words = [" ".join((Path(command.argv[0]).name, *command.argv[1:])) for command in checks(fix=False)]
    for needed in ("sh -n inv", "bash -n .ci/run", "ruff format --check", "ruff check", "lint-imports", "mypy"):
        assert any(needed in each for each in words), needed
    for script in (
        "check_commits.py",
        "write_tables.py --check",
        "draw_platform.py --check",
        "write_changelog.py --check",
    ):
        assert any(script in each for each in words), script
    with_schema = {word for each in words if each.startswith("check-jsonschema") for word in each.split()}
    templates = [*(ROOT / ".github").rglob("*.yml"), ROOT / "renovate.json"]
    assert [path for path in templates if str(path.relative_to(ROOT)) not in with_schema] == []
    folders = [ROOT / name for name in ("lab", "runbooks", "scripts")]
    scripts = [*(path for folder in folders for path in folder.rglob("*.sh")), *(ROOT / ".githooks").iterdir()]
    assert [path for path in scripts if f"sh -n {path.relative_to(ROOT)}" not in words] == []
    assert not any(command.mutates for command in checks(fix=False))


@pytest.mark.parametrize("fix", [False, True])
def test_go_is_formatted_where_there_is_a_gofmt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fix: bool) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not any(command.title == "gofmt" for command in checks(fix=fix))
    (tmp_path / "gofmt").touch(mode=0o755)
    (only,) = (command for command in checks(fix=fix) if command.title == "gofmt")
    assert only.argv == (str(tmp_path / "gofmt"), "-w" if fix else "-d", "lab/toolchain")
    assert only.mutates is fix


@pytest.mark.parametrize(
    ("fast", "all_of_them", "markers"),
    [
        (True, True, [["not lab"]]),
        (False, True, [["not lab"], ["lab and whole", "lab and not whole"]]),
        (False, False, [[]]),
    ],
)
def test_labs_come_last(fast: bool, all_of_them: bool, markers: list[list[str]]) -> None:
    rounds = pytest_commands(["tests"], fast=fast, all_of_them=all_of_them)
    found = [[each.argv[each.argv.index("-m") + 1] for each in commands if "-m" in each.argv] for commands in rounds]
    assert found == markers


def test_fix_is_the_only_way_to_change_a_file() -> None:
    changing = [command.argv[1:3] for command in checks(fix=True) if command.mutates and command.title != "gofmt"]
    assert changing == [("format", "--quiet"), ("check", "--fix")]


@pytest.mark.parametrize(("code", "error"), [(1, ToolFailed), (2, ToolFailed), (5, Usage)])
def test_failing_and_empty_test_runs_are_errors(code: int, error: type[Exception]) -> None:
    outcome = Outcome(command=Command(argv=("pytest",)), exit_code=code, seconds=1, stdout="", stderr="")
    with pytest.raises(error):
        judge_tests([outcome])


INV = """\
echo "$1" >> calls
[ "$1" = test ] || exit ${CHECK:-0}
printf '%s\\n' "$SAID" "run recorded in .ops/runs/x"
exit ${CODE:-0}
"""


@pytest.mark.parametrize(
    ("said", "code", "check", "ends"),
    [
        ("12 passed, 1 skipped in 3.21s", 0, 0, 0),
        ("no tests ran in 0.01s", 0, 0, 1),
        ("3 skipped in 0.01s", 0, 0, 1),
        ("10 deselected in 0.1s", 0, 0, 1),
        ("1 failed, 12 passed in 3.21s", 1, 0, 1),
        ("12 passed in 3.21s", 0, 1, 1),
    ],
)
def test_continuous_integration(tmp_path: Path, said: str, code: int, check: int, ends: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/run", tmp_path / ".ci/run")
    executable(tmp_path / "inv", INV)
    environment = {"PATH": "/usr/bin:/bin", "SAID": said, "CODE": str(code), "CHECK": str(check)}
    ended = subprocess.run(
        [tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, check=False, cwd="/"
    )
    assert min(ended.returncode, 1) == ends
    if ends == 0:
        assert ended.stdout.splitlines()[-1] == said, "pytest's summary line comes last"
        assert (tmp_path / "calls").read_text() == "check\ntest\n"
