"""`check` and `test`: run the development tools on this repository, without a target."""

from __future__ import annotations

from invoke import Context, task


@task(help={"fix": "Let ruff correct what it can."})
def check(c: Context, fix: bool = False) -> None:
    """Check format, lint, types, import rules, schemas, generated files and commits. Changes nothing unless --fix.

    Example: ./inv check --fix
    """
    from runbooks.checks.repository import check_repository
    from runbooks.run import open_run

    with open_run(c, "check", show_children=True) as run:
        check_repository(run, fix=fix)


@task(
    help={
        "select": "Only tests whose names match, as pytest's -k.",
        "path": "A file or folder below tests/.",
        "fast": "Leave out those on the lab.",
    }
)
def test(c: Context, path: str = "", select: str = "", fast: bool = False) -> None:
    """Run the tests; those on the lab start one of their own. Changes nothing here.

    Example: ./inv test --path tests/unit --select masked
    """
    from runbooks.checks.repository import run_tests
    from runbooks.run import open_run

    with open_run(c, "test", show_children=True) as run:
        run_tests(run, path=path, select=select, fast=fast)
