"""`preview.<service>`: everything `deploy` does before the approval, and nothing after it."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service(everything=True)
def preview(
    c: Context, names: tuple[str, ...], diff: bool = False, expect_no_changes: bool = False, only: bool = False
) -> None:
    """Show what deploying {service} and all it needs would change. Changes nothing.

    --diff shows every property. --expect-no-changes ends with exit 7 when something would change. --only leaves out
    what it needs.
    """
    from runbooks import applying, planning
    from runbooks.lib.errors import UnexpectedChanges
    from runbooks.session import open_session

    task = planning.task_name("preview", names)
    layers = planning.chosen(names, only=only)
    with open_session(c, task) as session:
        layers = planning.without_esc(session, names, layers)
        session.reporter.plan(planning.titles(layers, "preview"))
        plan = planning.plan_run(session, layers)
        applying.show_digest(session, plan, diff=diff)
        changing = [stack.service for stack in plan.stacks if stack.has_changes]
        if expect_no_changes and changing:
            raise UnexpectedChanges(
                f"{', '.join(changing)} would change",
                expected="no change",
                next_step=planning.command_again(c, task, "--diff"),
            )
