"""`rollback.<service> --to REF`: the project as it was at an older commit, previewed, approved and applied."""

from __future__ import annotations

from dataclasses import replace

from invoke import Context

from runbooks.collection import YES, command_again, each_service


@each_service(options={"to": "The commit, as git names it.", "yes": YES})
def rollback(c: Context, names: tuple[str, ...], to: str = "", yes: bool = False) -> None:
    """Apply the program and settings of {service} as they were at an older commit: preview, approval, apply, verify.

    Example: ./inv rollback.{name} --to HEAD~1
    """
    from runbooks.checks.of_service import prove
    from runbooks.core.errors import Usage
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks import apply, preview
    from runbooks.stacks.older_commit import check_out, find_commit
    from runbooks.stacks.summary import show_plan

    service = find_service(names[0])
    task = f"rollback.{service.name}"
    if not to:
        raise Usage(
            "no commit was named",
            expected=f"./inv {task} --to REF",
            next_step=f"git log --oneline -- pulumi/{service.folder} shows the commits that changed it",
        )
    again = command_again(c, task, "--to", to)
    with open_session(c, task) as session:
        commit = find_commit(session, service, to)
        with check_out(session, commit) as root:
            # The same run on other files: programs, stack configs and pins are those of the older commit.
            older = replace(session, root=root, prepared={})
            layers = [(service,)]
            session.reporter.plan([*preview.titles(layers, "preview"), *preview.titles(layers, "apply")])
            plan = preview.plan_run(older, layers)
            show_plan(older, plan, diff=True)
            apply.approve(older, plan, yes=yes, again=again)
            progress = apply.apply_run(older, plan, yes=yes, again=again)
            apply.show_outputs(older, service)
            prove(older, [service], done=progress.done)
        session.reporter.line(f"{service.name} is at {commit[:12]}; deploy.{service.name} applies the current files")
