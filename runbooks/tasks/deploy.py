"""`deploy.<service>`: preview what it needs, show one plan summary, ask, apply exactly that, verify."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import YES, command_again, each_service, task_name
from runbooks.tasks.preview import OPTIONS


@each_service(everything=True, changed=True, options={"yes": YES, **OPTIONS})
def deploy(
    c: Context,
    names: tuple[str, ...],
    yes: bool = False,
    only: bool = False,
    fresh: bool = False,
    parallel: int = 0,
    since: str = "",
) -> None:
    """Bring {service} and all it needs up to date on the target: preview, approval, apply, verify.

    Example: ./inv --target home deploy.{name}
    """
    from runbooks.checks.of_service import prove
    from runbooks.run import open_session
    from runbooks.stacks import apply, preview
    from runbooks.stacks.changed import choose_changed
    from runbooks.stacks.summary import show_plan

    task = task_name("deploy", names)
    again = command_again(c, task, f"--since {since}" if since else "", "--only" if only else "")
    with open_session(c, task) as session:
        names = names or choose_changed(session, since)
        if not names:
            return
        layers = preview.choose(session, names, only=only)
        chosen = {service.name for layer in layers for service in layer}
        named = [session.service(name) for name in names if name in chosen]
        preview.announce(session, named, layers)
        plan = preview.plan_run(session, layers, fresh=fresh, parallel=parallel)
        show_plan(session, plan)
        apply.approve(session, plan, yes=yes, again=again)
        progress = apply.apply_run(session, plan, yes=yes, again=again, parallel=parallel)
        apply.name_readers(session, progress, plan, look=command_again(c, "preview.all"))
        for service in named:
            apply.show_outputs(session, service)
        prove(session, named, done=progress.done)
