"""`deploy.<service>`: preview what it needs, show one digest, ask, apply exactly that in order, prove that it works."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service(everything=True)
def deploy(c: Context, names: tuple[str, ...], yes: bool = False, only: bool = False) -> None:
    """Bring {service} and all it needs up to date on the target: preview, approval, apply, verify.

    --yes approves changes that are not destructive where nobody can be asked. --only leaves out what it needs.
    """
    from runbooks import applying, planning
    from runbooks.lib.graph import by_name
    from runbooks.services import SERVICES
    from runbooks.session import open_session
    from runbooks.verify import verify_service

    task = planning.task_name("deploy", names)
    layers = planning.chosen(names, only=only)
    again = planning.command_again(c, task, "--only" if only else "")
    with open_session(c, task) as session:
        layers = planning.without_esc(session, names, layers)
        there = {service.name for layer in layers for service in layer}
        asked = [by_name(SERVICES)[name] for name in names if name in there]
        planning.announce(session, asked, layers)
        plan = planning.plan_run(session, layers)
        applying.show_digest(session, plan)
        applying.approve(session, plan, yes=yes, again=again)
        progressed = applying.apply_run(session, plan, yes=yes, again=again)
        for service in asked:
            applying.show_outputs(session, service)
        applying.prove(session, asked, verify_service, done=progressed.done)
