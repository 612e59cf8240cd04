"""How a run starts: `open_run` without a target, `open_session` on one that is checked and announced first.

The lab is started here when the target is the lab and it does not run yet.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import platform, toolchain
from runbooks import services
from runbooks.core.environment import child_environment, secret_variables
from runbooks.core.errors import NotFound, OpsError, ToolFailed, exit_code_of
from runbooks.core.files import ROOT, Unwritable, make_folder, state_dir
from runbooks.core.journal import Journal
from runbooks.core.mask import Masker
from runbooks.core.reporter import Reporter, make_reporter, reporter_in_use
from runbooks.core.runner import Runner
from runbooks.core.search_path import INSTALL, user_path
from runbooks.stacks import environments
from runbooks.stacks.guard import build_session, confirm_cluster
from runbooks.stacks.report import refuse_other_kind, write_report
from runbooks.stacks.session import RunContext, Session
from runbooks.stacks.target import LAB, LAB_UP, Target, chosen_name, lab_target_file, load_target, load_targets


@contextlib.contextmanager
def open_run(c: Any, task: str, *, show_children: bool = False) -> Iterator[RunContext]:
    """Reporter, journal and runner of a run of `task`; the secrets of the environment are registered first.

    `show_children` shows what children print while they print it. The journal ends with the run's exit code; `--report`
    is made from it.
    """
    report = str(getattr(c.config.ops, "report", ""))
    refuse_other_kind(report)
    masker = Masker(secret_variables(os.environ), public_names=public_names())
    chosen = str(c.config.ops.target or "")
    reporter = make_reporter(as_json=bool(c.config.ops.json), masker=masker, target=chosen)
    state = make_state_dir()
    journal = Journal.open(state, task, sys.argv, masker=masker)
    # `lab.env` changes PATH for the user's shell, not for our children.
    environment = child_environment({**os.environ, "PATH": user_path()})
    show = (lambda _, text: reporter.quote(text.rstrip("\n"))) if show_children else None
    exit_code, problem = 0, ""
    try:
        runner = Runner(masker=masker, journal=journal, base_env=environment, show=show, report=reporter.line)
        with contextlib.closing(reporter), reporter.titled(task), contextlib.closing(runner):
            yield RunContext(state_dir=state, masker=masker, reporter=reporter, journal=journal, runner=runner)
    except BaseException as error:
        exit_code, problem = exit_code_of(error), "\n".join(error.lines() if isinstance(error, OpsError) else ())
        raise
    finally:
        journal.finish(exit_code)
        if report:
            # A report that cannot be written does not hide how the run ended.
            with contextlib.suppress(Unwritable) if exit_code else contextlib.nullcontext():
                write_report(journal.path, Path(report).absolute(), services.SERVICES, error=masker.mask_own(problem))


@contextlib.contextmanager
def open_session(c: Any, task: str, *, cluster: bool = True, start_lab: bool = True) -> Iterator[Session]:
    """Open a run of `task` on the chosen target, announced in one line, and close it whatever happens.

    `cluster=False` skips the guard, for tasks that touch settings alone. Without `start_lab`, a lab that is not running
    is `NotFound`. Every secret known by now is registered with the masker before anything is shown.
    """
    with open_run(c, task) as run, contextlib.ExitStack() as closing:
        name = chosen_name(c.config.ops.target or None, os.environ, load_targets(ROOT))
        starts_lab = name == LAB and not platform.is_up(run.state_dir)
        if starts_lab:
            if not start_lab:
                raise NotFound("the lab is not running", expected="a running lab", next_step="./inv lab.up")
            run.reporter.announce("This works on the lab, a throw-away platform on this machine. It is started first.")
            with run.reporter.step("start the lab") as progress:
                platform.up(run.state_dir, progress.note)
        session = build_session(load_target(name, root=ROOT, state_dir=run.state_dir), run, services.SERVICES, closing)
        facts = {
            "target": session.target.name,
            "stack": session.target.stack,
            "backend": session.target.shown_backend,
            "cluster": confirm_cluster(session) if cluster else "",
            "pulumi": session.tools.pulumi_version,
        }
        # The cluster is named only if the guard confirmed it.
        shown = facts | {"cluster": facts["cluster"][:8]}
        session.reporter.line(" · ".join(f"{name} {value}" for name, value in shown.items() if value))
        session.reporter.event("target", **facts)
        session.journal.write("target", **facts)
        if starts_lab:
            environments.apply_definitions(session)  # so that stacks can bind them
        yield session


@contextlib.contextmanager
def open_lab_session(c: Any, task: str) -> Iterator[Session]:
    """Open a session on the lab, whatever target was chosen. It is neither announced nor guarded."""
    with open_run(c, task) as run, contextlib.ExitStack() as closing:
        yield build_session(load_target(LAB, root=ROOT, state_dir=run.state_dir), run, services.SERVICES, closing)


def lab_display(c: Any) -> tuple[Path, Reporter]:
    """State folder and display of a task on the lab itself, without a run: the lab's secrets stay in private files."""
    return make_state_dir(), reporter_in_use(as_json=bool(c.config.ops.json))


def add_helm(session: Session) -> Session:
    """The session with a helm: the one on PATH; the lab builds one where none does (minutes, once for a user).

    Raises `ToolFailed` with the install command when there is none.
    """
    if not session.target.ephemeral:
        if not session.tools.helm:
            raise ToolFailed("helm is not on PATH", expected="helm, which renders charts", next_step=INSTALL["helm"])
        return session
    with session.reporter.step("find helm") as progress:
        found = toolchain.resolve(progress.note, ["helm"])["helm"]
    return replace(session, tools=replace(session.tools, helm=str(found.program)))


def public_names() -> Iterator[str]:
    """The names that this repository publishes: a secret that is one of them is masked as a whole token only."""
    for service in services.SERVICES:
        yield from (service.name, service.project_name, service.namespace)


def make_state_dir() -> Path:
    """The state folder, absolute, made with mode 0700 when new. Raises `Unwritable`."""
    state = state_dir().absolute()
    make_folder(state, "the state folder")
    return state


def load_chosen_target(c: Any, run: RunContext) -> Target:
    """The target of `--target`, `OPS_TARGET` or `targets.yaml`. Raises `Usage` or `NotFound`."""
    name = chosen_name(c.config.ops.target or None, os.environ, load_targets(ROOT))
    if name == LAB and not lab_target_file(run.state_dir).exists() and platform.is_busy(run.state_dir):
        raise NotFound(
            "another command is starting the lab for the first time",
            expected="a lab that has started; lab.up waits until it has",
            next_step=LAB_UP,
        )
    return load_target(name, root=ROOT, state_dir=run.state_dir)
