"""`deploy.<service>`: preview what it needs, show one plan summary, ask, apply exactly that, verify."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service(everything=True)
def deploy(c: Context, names: tuple[str, ...], yes: bool = False, only: bool = False) -> None:
    """Bring {service} and all it needs up to date on the target: preview, approval, apply, verify.

    --yes approves changes that are not destructive where nobody can be asked. --only leaves out what it needs.
    """
    from runbooks.run import open_session
    from runbooks.stacks import apply, preview
    from runbooks.tasks.verify import verify_service

    task = preview.task_name("deploy", names)
    again = preview.command_again(c, task, "--only" if only else "")
    with open_session(c, task) as session:
        layers = preview.without_esc(session, names, preview.chosen(session, names, only=only))
        there = {service.name for layer in layers for service in layer}
        asked = [session.service(name) for name in names if name in there]
        preview.announce(session, asked, layers)
        plan = preview.plan_run(session, layers)
        apply.show_plan(session, plan)
        apply.approve(session, plan, yes=yes, again=again)
        progressed = apply.apply_run(session, plan, yes=yes, again=again)
        for service in asked:
            apply.show_outputs(session, service)
        apply.prove(session, asked, verify_service, done=progressed.done)
