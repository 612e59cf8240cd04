"""`drift.<service>`: compare what a stack made with the cluster, and change nothing."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service, task_name

WORDS = {"update": "changed", "delete": "gone", "create": "not in the state"}


@each_service(everything=True)
def drift(c: Context, names: tuple[str, ...]) -> None:
    """Compare what {service} made with what is really there; exit 7 when they differ. Changes nothing."""
    from runbooks.core.errors import UnexpectedChanges
    from runbooks.core.parallel import side_by_side
    from runbooks.run import open_session
    from runbooks.stacks import preview
    from runbooks.stacks.preparation import prepare
    from runbooks.stacks.repair import find_deployed, find_drift
    from runbooks.stacks.summary import property_lines

    task = task_name("drift", names)
    with open_session(c, task) as session:
        services = find_deployed(session, [session.service(name) for name in names])
        with session.reporter.step(preview.title("look for drift of", services)):
            found = side_by_side(
                session.reporter, services, lambda service: find_drift(session, prepare(session, service))
            )
        for service, steps in zip(services, found, strict=True):
            differ = "1 object differs" if len(steps) == 1 else f"{len(steps)} objects differ"
            session.reporter.line(f"{service.name}: {differ if steps else 'as applied'}")
            for step in steps:
                session.reporter.quote(f"  {WORDS.get(step.op, step.op)}: {step.type} {step.name}")
                for line in property_lines(step, session.masker.mask) if step.op == "update" else ():
                    session.reporter.quote(f"      {line}")
            objects = [{"op": step.op, "type": step.type, "name": step.name} for step in steps]
            session.reporter.event("drift", service=service.name, objects=objects)
            session.journal.write("drift", service=service.name, objects=objects)
        differing = [service.name for service, steps in zip(services, found, strict=True) if steps]
        if differing:
            raise UnexpectedChanges(
                f"{', '.join(differing)}: the cluster is not as it was applied",
                expected="every object as it was applied",
                next_step="; ".join(f"./inv repair.{name}" for name in differing)
                + " (names the field manager of each change, asks, then restores what was applied)",
            )
