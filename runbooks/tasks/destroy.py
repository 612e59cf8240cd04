"""`destroy.<service>`: only ever by name, never as part of another task, and not while other services need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import command_again, each_service

if TYPE_CHECKING:
    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session
    from runbooks.tools.stack import Stack


@each_service()
def destroy(c: Context, names: tuple[str, ...]) -> None:
    """Delete everything of {service} from the target, after its name was typed. Refuses while consumers exist."""
    from runbooks.run import open_session
    from runbooks.stacks import apply, preview
    from runbooks.stacks.guard import confirm_cluster
    from runbooks.stacks.plan import RunPlan
    from runbooks.stacks.summary import show_plan
    from runbooks.stacks.terminating import report_stuck_namespaces
    from runbooks.stacks.watch import Approved, Watch, run_watched
    from runbooks.tools import pulumi

    task = f"destroy.{names[0]}"
    again = command_again(c, task)
    with open_session(c, task) as session:
        service = session.service(names[0])
        session.reporter.announce(
            f"Destroying {service.name} deletes everything its stack made. I preview it and ask first."
        )
        refuse_while_needed(session, service)
        refuse_while_controlling(session, service)
        with session.reporter.step(f"preview the end of {service.name}"):
            plan = preview.plan_end(session, service)
        run = RunPlan(layers=((plan,),), target=session.target.name)
        show_plan(session, run)
        refuse_while_pending(session, plan.stack, again=again)
        if not plan.has_changes:
            session.reporter.line(f"{service.name} has nothing to destroy")
            return
        apply.approve(session, run, yes=False, again=again)
        apply.refuse_if_changed(session, service, plan, again=again)
        confirm_cluster(session)
        with session.reporter.step(f"destroy {service.name}") as progress:
            watch = Watch(approved=Approved.of(plan), stop=session.runner.interrupt, progress=progress.note)
            with report_stuck_namespaces(session, plan):
                run_watched(session, plan.stack, pulumi.destroy(plan.stack), watch)
        session.reporter.line(f"{service.name}: destroyed, {len(watch.done)} objects; its stack and config remain")


def refuse_while_pending(session: Session, stack: Stack, *, again: str) -> None:
    """Raise `Refused` while the state may lack objects that an interrupted update created: they would stay."""
    from runbooks.core.errors import Refused
    from runbooks.stacks import states

    count = sum(kind == "creating" for kind, _ in states.state_of(session, stack).pending)
    if count:
        raise Refused(
            f"an interrupted update of {stack.service} left {count} creations of unknown result",
            expected="a state that has every object of the stack, so that all of them are deleted",
            next_step=f"./inv cancel.{stack.service} settles them, then {again}",
        )


def refuse_while_needed(session: Session, service: Service) -> None:
    """Raise `Refused` while a service that needs this one still has something deployed."""
    from runbooks.core.errors import Refused
    from runbooks.stacks import states
    from runbooks.stacks.service import consumers

    standing = []
    for consumer in consumers(service.name, session.services):
        stack = session.stack(consumer)
        if states.has_stack(session, stack) and states.state_of(session, stack).own_resources:
            standing.append(consumer.name)
    if standing:
        verbs = "is still deployed and needs" if len(standing) == 1 else "are still deployed and need"
        raise Refused(
            f"{', '.join(standing)} {verbs} {service.name}",
            expected="consumers to be destroyed before what they need, exposed objects before their controllers",
            next_step=f"./inv destroy.{standing[-1]}",
        )


def refuse_while_controlling(session: Session, service: Service) -> None:
    """Raise `Refused` while the cluster holds objects, of any owner, that only this service's controller cleans up."""
    from runbooks.checks.cluster import cluster_of
    from runbooks.checks.of_service import controlled_by
    from runbooks.core.errors import Refused

    standing = controlled_by(service.name, cluster_of(session))
    if standing:
        raise Refused(
            f"{len(standing)} objects in the cluster still need the controller of {service.name}: "
            f"{', '.join(standing[:5])}{', …' if len(standing) > 5 else ''}",
            expected="exposed objects and clusters to be removed before their controller",
            next_step="remove them by the stack or manifest that made them, then repeat the command",
        )
