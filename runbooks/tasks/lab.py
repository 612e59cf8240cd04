"""The rehearsal platform on this machine: start it, stop it, show it, throw it away."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import Any

from invoke import task


@task
def up(c: Any) -> None:
    """Start the lab on this machine, or only the components that have stopped; the first time it builds its tools."""
    from lab import platform
    from lab.platform.report import report_components
    from runbooks.run import lab_display, open_lab_session
    from runbooks.stacks.environments import apply_definitions

    state, reporter = lab_display(c)
    with reporter.titled("lab.up"), reporter.step("start the lab"):
        platform.up(state, reporter.line)
    try:
        with open_lab_session(c, "lab.up") as session:
            apply_definitions(session)
    finally:  # the lab itself is up, even if a definition is wrong
        report_components(state, reporter)


@task
def down(c: Any) -> None:
    """Stop every process of the lab and keep its state."""
    from lab import platform
    from runbooks.run import lab_display

    state, reporter = lab_display(c)
    with reporter.step("stop the lab"):
        platform.down(state, reporter.line)
    reporter.line(f"No process of the lab runs; its state stays in {state / 'lab'}.")


@task
def status(c: Any) -> None:
    """Show each component of the lab: process, port, memory, health, version; and each tool: version and origin."""
    from lab.platform.report import report_components
    from runbooks.run import lab_display

    report_components(*lab_display(c))


@task
def env(c: Any) -> None:
    """Print exports for plain pulumi, kubectl and psql: eval "$(./inv lab.env)"."""
    from lab import platform
    from runbooks.core.errors import NotFound
    from runbooks.core.parallel import side_by_side
    from runbooks.run import lab_display, open_lab_session
    from runbooks.stacks.guard import confirm_cluster
    from runbooks.stacks.preparation import set_up

    state, reporter = lab_display(c)
    if not (state / "lab" / "target.json").exists():
        raise NotFound("there is no lab here", expected="a lab", next_step="./inv lab.up")
    if platform.is_up(state):
        # Standard output belongs to the exports, which a shell evaluates.
        with contextlib.redirect_stdout(sys.stderr), open_lab_session(c, "lab.env") as session:
            confirm_cluster(session)
            # Plain pulumi does not make the lab's stacks with their config and secrets.
            side_by_side(session.reporter, session.services, lambda service: set_up(session, service))
    for name, value in platform.environment(state).items():
        reporter.line(f"export {name}={shlex.quote(value)}")
        reporter.event("variable", name=name, value=value)


@task(help={"yes": "Do not ask."})
def reset(c: Any, yes: bool = False) -> None:
    """Stop the lab and throw its state away: cluster, databases, stacks and their secrets.

    Example: ./inv lab.reset --yes
    """
    from lab import platform
    from runbooks.core.reporter import require_yes
    from runbooks.run import lab_display

    state, reporter = lab_display(c)
    if not (state / "lab").exists():
        reporter.line("There is no lab here, so there is nothing to remove.")
        return
    if not yes:
        question = f"Throw the lab in {state / 'lab'} away, with its databases and stacks?"
        refusal = "nothing was removed: it was not confirmed"
        require_yes(reporter, question, refusal=refusal, again="./inv lab.reset --yes")
    with reporter.step("throw the lab away"):
        platform.reset(state, reporter.line)
