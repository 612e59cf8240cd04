"""`check` and `test`: is this repository in order?"""

from __future__ import annotations

from invoke import Context, task


@task
def check(c: Context) -> None:
    """Check format, lint, types, import rules, shell syntax and commit messages. Changes nothing."""
