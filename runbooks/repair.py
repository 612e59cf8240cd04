"""`repair.<service>`: what others changed in the cluster is put back, shown and approved like any change."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service()
def repair(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Put back in the cluster what the program of {service} says: differences, approval, apply, verify.

    --yes approves changes that are not destructive where nobody can be asked.
    """
    from runbooks import applying, drift, planning, repairing
    from runbooks.lib.graph import by_name
    from runbooks.lib.plan import RunPlan
    from runbooks.services import SERVICES
    from runbooks.session import open_session
    from runbooks.verify import verify_service

    service = by_name(SERVICES)[names[0]]
    task = f"repair.{service.name}"
    again = planning.command_again(c, task)
    with open_session(c, task) as session:
        session.reporter.announce(
            f"Repairing {service.name}: I compare the cluster with what was applied, put back what others changed, "
            "then apply what the program says beyond that and prove that it works."
        )
        drift.deployed(session, [service])
        repaired = repairing.put_back_all(session, service, yes=yes, again=again)
        run = RunPlan(layers=((repaired.plan,),), target=session.target.name)
        applying.show_digest(session, run)
        applying.approve(session, run, yes=yes, again=again)
        progressed = applying.apply_run(session, run, yes=yes, again=again)
        repairing.refuse_beyond(service, repaired.beyond)
        done = [service.name] if repaired.put_back else progressed.done
        applying.prove(session, [service], verify_service, done=done)
