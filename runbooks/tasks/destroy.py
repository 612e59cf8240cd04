"""`destroy.<service>`: only ever by name, never as part of another task, and not while other services need it."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import command_again, each_service


@each_service(options={"diff": "Show every property of what is deleted."})
def destroy(c: Context, names: tuple[str, ...], diff: bool = False) -> None:
    """Delete everything of {service} from the target, after its name was typed. Refuses while consumers exist.

    Example: ./inv destroy.{name} --diff
    """
    from runbooks.checks.of_service import refuse_while_controlling, refuse_while_needed
    from runbooks.run import open_session
    from runbooks.stacks import apply
    from runbooks.stacks.apply import Approved, Watch, run_watched
    from runbooks.stacks.destroy import plan_end, refuse_if_changed, refuse_while_pending, report_stuck_namespaces
    from runbooks.stacks.guard import confirm_cluster
    from runbooks.stacks.plan import RunPlan
    from runbooks.stacks.summary import show_plan
    from runbooks.tools import pulumi

    task = f"destroy.{names[0]}"
    again = command_again(c, task)
    with open_session(c, task) as session:
        service = session.service(names[0])
        session.reporter.announce(
            f"Destroying {service.name} deletes what its stack made. I preview it first; a real target needs approval."
        )
        refuse_while_needed(session, service)
        refuse_while_controlling(session, service)
        with session.reporter.step(f"preview destroy of {service.name}"):
            plan = plan_end(session, service)
        run = RunPlan(layers=((plan,),), target=session.target.name)
        show_plan(session, run, diff=diff, names_only=not diff)
        refuse_while_pending(session, plan.stack, again=again)
        if not plan.has_changes:
            session.reporter.line(f"{service.name} has nothing to destroy")
            return
        apply.approve(session, run, yes=False, again=again)
        refuse_if_changed(session, service, plan, again=again)
        confirm_cluster(session)
        with session.reporter.step(f"destroy {service.name}") as progress:
            watch = Watch(approved=Approved.of(plan), stop=session.runner.interrupt, progress=progress.note)
            with report_stuck_namespaces(session, plan):
                run_watched(session, plan.stack, pulumi.destroy(plan.stack), watch)
        session.reporter.line(f"{service.name}: destroyed, {len(watch.changed)} objects; its stack and config remain")
