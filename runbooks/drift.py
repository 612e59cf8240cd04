"""`drift.<service>`: did somebody change what a stack made, behind pulumi's back? Looked at, never corrected here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import each_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runbooks.lib.pulumi import Step
    from runbooks.lib.stacks import Stack
    from runbooks.services import Service
    from runbooks.session import Session

WORDS = {"update": "changed", "delete": "gone", "create": "not in the state"}


@each_service(everything=True)
def drift(c: Context, names: tuple[str, ...]) -> None:
    """Compare what {service} made with what is really there; exit 7 when they differ. Changes nothing."""
    from runbooks import planning
    from runbooks.lib.errors import UnexpectedChanges
    from runbooks.lib.graph import by_name
    from runbooks.services import SERVICES
    from runbooks.session import open_session

    task = planning.task_name("drift", names)
    with open_session(c, task) as session:
        wanted = deployed(session, [by_name(SERVICES)[name] for name in names])
        with session.reporter.step(planning.title("look for drift of", wanted)):
            found = planning.side_by_side(session, wanted, lambda service: drifted(session, session.prepare(service)))
        differing = [service.name for service, steps in zip(wanted, found, strict=True) if steps]
        for service, steps in zip(wanted, found, strict=True):
            tell(session, service, steps)
        if differing:
            raise UnexpectedChanges(
                f"{', '.join(differing)}: what is there is not what was applied",
                expected="every object as it was applied",
                next_step="find out who changed it; then "
                + ", ".join(f"./inv repair.{name}" for name in differing)
                + " shows who holds it and puts back what was applied",
            )


def deployed(session: Session, services: Sequence[Service]) -> list[Service]:
    """Those that were deployed here; the others are named. Raises `NotFound` when there are none."""
    from runbooks.lib.errors import NotFound

    there = [service for service in services if session.is_deployed(session.stack(service))]
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
    from runbooks import planning
    from runbooks.lib import pulumi
    from runbooks.lib.failures import explain

    outcome = session.runner.run(pulumi.refresh_preview(stack))
    if not outcome.ok:
        raise explain(outcome, stack)
    found = planning.previewed(session, stack, outcome.stdout).changes
    return [step for step in found if not pulumi.is_bookkeeping(step.urn)]


def tell(session: Session, service: Service, steps: Sequence[Step]) -> None:
    from runbooks.lib.diff import property_lines

    differ = "1 object differs" if len(steps) == 1 else f"{len(steps)} objects differ"
    session.reporter.line(f"{service.name}: {differ if steps else 'as applied'}")
    for step in steps:
        session.reporter.quote(f"  {WORDS.get(step.op, step.op)}: {step.type} {step.name}")
        for line in property_lines(step) if step.op == "update" else ():
            session.reporter.quote(f"      {line}")
    objects = [{"op": step.op, "type": step.type, "name": step.name} for step in steps]
    session.reporter.event("drift", service=service.name, objects=objects)
    session.journal.write("drift", service=service.name, objects=len(steps))
