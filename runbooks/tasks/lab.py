"""The rehearsal platform on this machine: start it, stop it, show it, throw it away."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbooks.core.reporter import Reporter
    from runbooks.stacks.session import Session


def _state_and_reporter(c: Any) -> tuple[Path, Reporter]:
    """State folder and display; the lab itself keeps its secrets to files that only its user reads."""
    from runbooks.core.reporter import reporter_in_use
    from runbooks.run import make_state_dir

    return make_state_dir(), reporter_in_use(as_json=bool(c.config.ops.json))


@contextlib.contextmanager
def _lab_session(c: Any, task: str) -> Iterator[Session]:
    """A session on the lab, whatever target was chosen for the other tasks."""
    from runbooks.core.files import ROOT
    from runbooks.run import build_session, open_run
    from runbooks.stacks.target import LAB, load_target

    with open_run(c, task) as run, contextlib.ExitStack() as closing:
        yield build_session(load_target(LAB, root=ROOT, state_dir=run.state_dir), run, closing)


@task
def up(c: Any) -> None:
    """Start the lab on this machine, or just what of it does not run; the first time it builds its tools."""
    from lab import platform
    from runbooks.run import apply_environments_on_lab

    state, reporter = _state_and_reporter(c)
    with reporter.step("start the lab"):
        platform.up(state, reporter.line)
    try:
        with _lab_session(c, "lab.up") as session:
            apply_environments_on_lab(session)
    finally:  # the lab itself is up, whatever is wrong with a definition
        _report_components(state, reporter)


@task
def down(c: Any) -> None:
    """Stop every process of the lab and keep its state."""
    from lab import platform

    state, reporter = _state_and_reporter(c)
    with reporter.step("stop the lab"):
        platform.down(state, reporter.line)
    reporter.line(f"No process of the lab runs; its state stays in {state / 'lab'}.")


@task
def status(c: Any) -> None:
    """Show each component of the lab: process, port, memory, health, version; and each tool: version and origin."""
    _report_components(*_state_and_reporter(c))


@task
def env(c: Any) -> None:
    """Print exports for plain pulumi, kubectl and psql: eval "$(./inv lab.env)"."""
    from lab import platform
    from runbooks.core.errors import NotFound
    from runbooks.core.parallel import side_by_side
    from runbooks.stacks.guard import confirm_cluster
    from runbooks.stacks.preparation import set_up

    state, reporter = _state_and_reporter(c)
    if not (state / "lab" / "target.json").exists():
        raise NotFound("the lab never ran here", expected="a lab", next_step="./inv lab.up")
    if platform.is_up(state):
        # Standard output belongs to the exports, which a shell evaluates.
        with contextlib.redirect_stdout(sys.stderr), _lab_session(c, "lab.env") as session:
            confirm_cluster(session)
            # What plain pulumi does not make: the lab's stacks with their config and secrets.
            side_by_side(session.reporter, session.services, lambda service: set_up(session, service))
    for name, value in platform.environment(state).items():
        reporter.line(f"export {name}={shlex.quote(value)}")
        reporter.event("variable", name=name, value=value)


@task(help={"yes": "Do not ask."})
def reset(c: Any, yes: bool = False) -> None:
    """Stop the lab and throw its state away: cluster, databases, stacks and their secrets."""
    from lab import platform
    from runbooks.core.errors import NotApproved

    state, reporter = _state_and_reporter(c)
    if not (state / "lab").exists():
        reporter.line("There is no lab here, so nothing to throw away.")
        return
    if not yes and not reporter.ask_yes(f"Throw the lab in {state / 'lab'} away, with its databases and stacks?"):
        raise NotApproved(
            "nothing was thrown away: it was not confirmed",
            expected="y at the question, or --yes",
            next_step="./inv lab.reset --yes",
        )
    with reporter.step("throw the lab away"):
        platform.reset(state, reporter.line)


COLUMNS = ("component", "pid", "port", "memory", "health", "version")
TOOL_COLUMNS = ("tool", "version", "from")


def _report_components(state: Path, reporter: Reporter) -> None:
    from lab import platform
    from lab.operators import postgres

    components = platform.status(state)
    if not components:
        reporter.line("The lab never ran here; ./inv lab.up starts it.")
        return
    components = [*components, *postgres.status(state / "lab")]
    reporter.table(
        "Lab",
        COLUMNS,
        [
            (
                one.name,
                str(one.pid or "-"),
                str(one.port or "-"),
                _megabytes(one.memory),
                one.health,
                one.version,
            )
            for one in components
        ],
    )
    tools = platform.tools(state)
    if tools:
        rows = [(tool.name, tool.short_version, tool.source) for tool in tools]
        reporter.table("Tools of the lab", TOOL_COLUMNS, rows)
    for tool in tools:
        facts = {"version": tool.version, "origin": tool.origin, "program": str(tool.program)}
        reporter.event("tool", name=tool.name, **facts)


def _megabytes(size: int | None) -> str:
    return f"{size / 1_000_000:.0f} MB" if size else "-"
