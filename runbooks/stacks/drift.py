"""What differs between the cluster and what a stack's state says was applied there."""

from __future__ import annotations

from collections.abc import Sequence

from runbooks.core.errors import NotFound
from runbooks.stacks.preview import previewed
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import is_deployed
from runbooks.tools import pulumi
from runbooks.tools.failures import explain
from runbooks.tools.pulumi import Step
from runbooks.tools.stack import Stack


def deployed(session: Session, services: Sequence[Service]) -> list[Service]:
    """Those that were deployed here; the others are named. Raises `NotFound` when there are none."""
    there = [service for service in services if is_deployed(session, session.stack(service))]
    absent = [service.name for service in services if service not in there]
    if not there:
        raise NotFound(
            f"{', '.join(absent)}: not deployed on {session.target.name}, so nothing can have drifted",
            expected="a stack that was applied",
            next_step=f"./inv deploy.{absent[0]}",
        )
    if absent:
        session.reporter.line(f"Not deployed here, so not looked at: {', '.join(absent)}.")
    return there


def drifted(session: Session, stack: Stack) -> list[Step]:
    """The objects that are not what the stack's state says. Raises what pulumi's failure means."""
    outcome = session.runner.run(pulumi.refresh_preview(stack))
    if not outcome.ok:
        raise explain(outcome, stack)
    found = previewed(session, stack, outcome.stdout).changes
    return [step for step in found if not pulumi.is_bookkeeping(step.urn)]
