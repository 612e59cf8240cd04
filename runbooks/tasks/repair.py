"""`repair.<service>`: put back what others changed in the cluster, shown and approved like any change."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import YES, command_again, each_service, task_name


@each_service(options={"yes": YES})
def repair(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Put back what others changed of {service} in the cluster: differences, approval, apply, verify.

    Example: ./inv repair.{name} --yes
    """
    from runbooks.checks.of_service import prove
    from runbooks.run import open_session
    from runbooks.stacks import apply, repair
    from runbooks.stacks.plan import RunPlan
    from runbooks.stacks.repair import find_deployed
    from runbooks.stacks.summary import show_plan

    task = task_name("repair", names)
    again = command_again(c, task)
    with open_session(c, task) as session:
        service = session.service(names[0])
        session.reporter.announce(
            f"Repairing {service.name}: I compare the cluster with what was applied, put back what others changed, "
            "then apply what else the program changes and prove that it works."
        )
        find_deployed(session, [service])
        repaired = repair.put_back_all(session, service, yes=yes, again=again)
        run = RunPlan(layers=((repaired.plan,),), target=session.target.name)
        show_plan(session, run)
        apply.approve(session, run, yes=yes, again=again)
        progress = apply.apply_run(session, run, yes=yes, again=again)
        repair.refuse_beyond(service, repaired.beyond)
        done = [service.name] if repaired.put_back else progress.done
        prove(session, [service], done=done)
