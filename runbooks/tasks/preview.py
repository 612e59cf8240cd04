"""`preview.<service>`: everything `deploy` does before the approval, and nothing after it."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import command_again, each_service, task_name

OPTIONS = {
    "only": "Leave out what it needs.",
    "fresh": "Also preview what has not changed since it was last previewed or applied.",
    "parallel": "How many stacks are worked on at once; 0 stands for as many as fit.",
    "since": "A commit or branch; without it, what differs from what was last applied has changed.",
}
"""The options of every task that previews what it will apply."""
DIFF = {"diff": "Show every property.", "expect_no_changes": "Exit with 7 when something would change."}


@each_service(everything=True, changed=True, options=OPTIONS | DIFF)
def preview(
    c: Context,
    names: tuple[str, ...],
    diff: bool = False,
    expect_no_changes: bool = False,
    only: bool = False,
    fresh: bool = False,
    parallel: int = 0,
    since: str = "",
) -> None:
    """Show what deploying {service} and all it needs would change. Changes nothing.

    Example: ./inv preview.{name} --diff
    """
    from runbooks.core.errors import UnexpectedChanges
    from runbooks.run import open_session
    from runbooks.stacks import preview
    from runbooks.stacks.changed import choose_changed
    from runbooks.stacks.summary import show_plan

    task = task_name("preview", names)
    with open_session(c, task) as session:
        names = names or choose_changed(session, since)
        if not names:
            return
        layers = preview.choose(session, names, only=only)
        session.reporter.plan(preview.titles(layers, "preview"))
        plan = preview.plan_run(session, layers, keep_going=True, fresh=fresh, parallel=parallel)
        if plan.stacks:
            show_plan(session, plan, diff=diff)
        preview.raise_worst(session, plan.failures)
        changing = [stack.service for stack in plan.stacks if stack.has_changes]
        if expect_no_changes and changing:
            raise UnexpectedChanges(
                f"{', '.join(changing)} would change",
                expected="no change",
                next_step=command_again(c, task, "--diff"),
            )
        if changing:
            options = (f"--since {since}" if since else "", "--only" if only else "")
            again = command_again(c, task.replace("preview", "deploy", 1), *options)
            session.reporter.line(f"next: {again} applies this, after your approval")
