"""`stack.init`: the only task that creates stacks on real targets, so that a typo cannot create one."""

from __future__ import annotations

from typing import Any

from invoke import task


@task(help={"service": "The service whose stack to create."})
def init(c: Any, service: str) -> None:
    """Create the service's stack on the target, after showing backend and names and asking.

    Example: ./inv --target home stack.init postgres
    """
    from runbooks.core.reporter import require_yes
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks.preparation import has_stack, prepare, run_pulumi
    from runbooks.tools import pulumi
    from runbooks.tools.stack_config import preserve

    wanted = find_service(service)
    with open_session(c, "stack.init", cluster=False) as session:
        stack = session.stack(wanted)
        if has_stack(session, stack):
            session.reporter.line(f"{stack.reference} exists already; nothing changed.")
            return
        if session.target.ephemeral:
            prepare(session, wanted)
            session.reporter.line(f"Created {stack.reference} in the lab, with generated secrets.")
            return
        rows = (
            ("backend", session.target.shown_backend),
            ("organization", stack.organization),
            ("project", stack.project),
            ("stack", stack.name),
            ("settings", str(stack.settings_file)),
        )
        session.reporter.table(f"New stack for {wanted.name}", ("what", "value"), rows)
        refusal = "nothing was created: it was not approved on a terminal"
        again = f"./inv --target {session.target.name} stack.init {wanted.name}"
        question = f"Create {stack.reference}?"
        require_yes(session.reporter, question, refusal=refusal, again=again, expected="y at the question")
        with preserve(stack.settings_file):
            run_pulumi(session, pulumi.stack_init(stack), stack)
        session.reporter.line(f"Created {stack.reference}.")
        for setting in wanted.secrets:
            generate = " --generate" if setting.generated else ""
            session.reporter.line(
                f"next: ./inv --target {session.target.name} secrets.set {wanted.name} {setting.key}{generate}"
            )
