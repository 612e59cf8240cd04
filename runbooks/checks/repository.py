"""The repository's own checks and tests, started as child processes; their output is shown while they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import ToolFailed, Usage
from runbooks.core.files import ROOT
from runbooks.core.parallel import processors, side_by_side
from runbooks.core.search_path import find_program
from runbooks.stacks.session import RunContext

BIN = Path(sys.executable).parent
SHELL_SCRIPTS = ("inv", ".githooks/commit-msg", "lab/platform/pulumi.sh")
COMMITS = "commit messages"
CHANGELOG = "the changelog"
SCHEMAS = {
    "github-workflows": (".github/workflows/ci.yml", ".github/workflows/preview.yml"),
    "github-issue-forms": (".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/feature.yml"),
    "github-issue-config": (".github/ISSUE_TEMPLATE/config.yml",),
    "renovate": ("renovate.json",),
}
"""Schema that comes with check-jsonschema → the files that it is for."""
BASH_SCRIPTS = (".ci/run",)
PASSED_ON = ("OPS_", "PYTHON", "HYPOTHESIS_", "PYTEST_", "GO", "CGO_", "PIP_", "UV_", "XDG_")
"""Name prefixes of variables that checks and tests get from our environment, beyond the allow-list."""


def tool(name: str, *arguments: str, title: str, mutates: bool = False) -> Command:
    """A tool of this environment, started in the repository's root."""
    passed_on = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
    return Command(argv=(str(BIN / name), *arguments), cwd=ROOT, title=title, mutates=mutates, env=passed_on)


def checks(*, fix: bool) -> list[Command]:
    """Every check in the order of its cost; `gofmt` where there is one."""
    ruff = [("format",), ("check", "--fix")] if fix else [("format", "--check"), ("check",)]
    commands = [
        *(Command(argv=("sh", "-n", name), cwd=ROOT, title=f"shell syntax of {name}") for name in SHELL_SCRIPTS),
        *(Command(argv=("bash", "-n", name), cwd=ROOT, title=f"shell syntax of {name}") for name in BASH_SCRIPTS),
        *(tool("ruff", *words, "--quiet", title=f"ruff {' '.join(words)}", mutates=fix) for words in ruff),
    ]
    # Only users who change the lab's Go programs need gofmt.
    if gofmt := find_program("gofmt"):
        words = (str(gofmt), "-w" if fix else "-d", "lab/toolchain")
        commands.append(Command(argv=words, cwd=ROOT, title="gofmt", mutates=fix))
    commands += [
        tool("check-jsonschema", "--quiet", "--builtin-schema", f"vendor.{name}", *files, title=f"schema of {name}")
        for name, files in SCHEMAS.items()
    ]
    targets = ("--schemafile", "docs/targets.schema.json", "targets.yaml")
    commands.append(tool("check-jsonschema", "--quiet", *targets, title="schema of targets"))
    scripts = {
        "tables and versions": "write_tables.py",
        "the drawing of the platform": "draw_platform.py",
        "the pictures of runs": "draw_runs.py",
        CHANGELOG: "write_changelog.py",
    }
    commands += [tool("python", f"scripts/{script}", "--check", title=title) for title, script in scripts.items()]
    commits = tool("python", "scripts/check_commits.py", title=COMMITS)
    return [*commands, tool("lint-imports", title="import rules"), tool("mypy", title="types"), commits]


def check_repository(run: RunContext, *, fix: bool) -> None:
    """Run all checks, also after one that fails. Raises `ToolFailed` that names those that failed."""
    commands = checks(fix=fix)
    if not (ROOT / ".git").exists():
        run.reporter.line(f"{COMMITS} and {CHANGELOG}: not checked, this is not a git clone")
        commands = [command for command in commands if command.title not in {COMMITS, CHANGELOG}]
    run.reporter.plan([command.title for command in commands])
    failed = []
    for command in commands:
        with run.reporter.step(command.title):
            outcome = run.runner.run(command)
        if not outcome.ok:
            run.reporter.line(f"{command.title}: failed with exit {outcome.exit_code}")
            failed.append(command.title)
    if failed:
        raise ToolFailed(
            f"{len(failed)} of {len(commands)} checks failed: {', '.join(failed)}",
            expected="every check to pass",
            next_step="read their output above; ./inv check --fix corrects format and simple lint",
        )
    run.reporter.line(f"{len(commands)} checks passed")


NO_TEST_RAN = 5
"""pytest's exit code when it ran no test."""


def run_tests(run: RunContext, *, path: str, select: str, fast: bool) -> None:
    """Run pytest. Raises `ToolFailed` when a test fails, `Usage` when none ran."""
    if path.startswith("-"):
        raise Usage(f"{path!r} would be read as an option of pytest", expected="a file or folder below tests/")
    chosen = [path or "tests", *(["-k", select] if select else [])]
    run.reporter.announce("Running the tests; those that need the platform start one of their own.")
    rounds = pytest_commands(chosen, fast=fast, all_of_them=not path)
    judge_tests([outcome for each in rounds for outcome in side_by_side(run.reporter, each, run.runner.run)])


def judge_tests(outcomes: Sequence[Outcome]) -> None:
    """Raise `ToolFailed` when a test failed, `Usage` when none ran. The lab has tests for few selections."""
    ran = [outcome for outcome in outcomes if outcome.exit_code != NO_TEST_RAN]
    if not ran:
        raise Usage("no test ran", expected="at least one test that fits", next_step="./inv test")
    broken = next((outcome for outcome in ran if not outcome.ok), None)
    if broken:
        summary = f"tests failed (pytest ended with exit {broken.exit_code})"
        raise ToolFailed(summary, next_step="./inv test -p FILE")


def pytest_commands(chosen: Sequence[str], *, fast: bool, all_of_them: bool) -> list[list[Command]]:
    """Rounds of commands that run at once: the tests without a lab on all processors, then those with one.

    A lab waits more than it works, so those of the whole platform run beside all others. pytest-xdist cannot: it stops
    its workers before they could end their labs.
    """
    if not fast and not all_of_them:
        return [[tool("pytest", *chosen, title="the tests", mutates=True)]]
    without_lab = ("-m", "not lab", "-n", str(processors()))
    fast_tests = tool("pytest", *chosen, *without_lab, title="the fast tests", mutates=True)
    on_labs = [
        tool("pytest", *chosen, "-m", marked, title=f"the tests {where}", mutates=True)
        for marked, where in (("lab and whole", "of the whole platform"), ("lab and not whole", "on other labs"))
    ]
    return [[fast_tests]] if fast else [[fast_tests], on_labs]
