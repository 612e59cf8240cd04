"""`drift.<service>`: did somebody change what a stack made, behind pulumi's back? Looked at, never corrected here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import each_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session
    from runbooks.tools.pulumi import Step

WORDS = {"update": "changed", "delete": "gone", "create": "not in the state"}


@each_service(everything=True)
def drift(c: Context, names: tuple[str, ...]) -> None:
    """Compare what {service} made with what is really there; exit 7 when they differ. Changes nothing."""
    from runbooks.core.errors import UnexpectedChanges
    from runbooks.run import open_session
    from runbooks.stacks import preview
    from runbooks.stacks.drift import deployed, drifted
    from runbooks.stacks.preparation import prepare

    task = preview.task_name("drift", names)
    with open_session(c, task) as session:
        wanted = deployed(session, [session.service(name) for name in names])
        with session.reporter.step(preview.title("look for drift of", wanted)):
            found = preview.side_by_side(session, wanted, lambda service: drifted(session, prepare(session, service)))
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


def tell(session: Session, service: Service, steps: Sequence[Step]) -> None:
    from runbooks.stacks.diff import property_lines

    differ = "1 object differs" if len(steps) == 1 else f"{len(steps)} objects differ"
    session.reporter.line(f"{service.name}: {differ if steps else 'as applied'}")
    for step in steps:
        session.reporter.quote(f"  {WORDS.get(step.op, step.op)}: {step.type} {step.name}")
        for line in property_lines(step) if step.op == "update" else ():
            session.reporter.quote(f"      {line}")
    objects = [{"op": step.op, "type": step.type, "name": step.name} for step in steps]
    session.reporter.event("drift", service=service.name, objects=objects)
    session.journal.write("drift", service=service.name, objects=len(steps))
