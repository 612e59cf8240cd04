"""`cancel.<service>`: find who holds the stack, remove the lock of a dead run, settle its pending operations."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import command_again, each_service


@each_service(
    options={"yes": "Take the objects that the run created into the state, where there is no terminal to ask on."}
)
def cancel(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Remove lock and pending operations that a dead run left on the stack of {service}; refuses while the run lives.

    Example: ./inv cancel.{name} --yes
    """
    from runbooks.run import open_session
    from runbooks.stacks.cancel import remove_lock, settle
    from runbooks.stacks.preparation import has_stack

    task = f"cancel.{names[0]}"
    with open_session(c, task, cluster=False) as session:
        session.reporter.announce(f"Finding out who holds the stack of {names[0]}, before anything is removed.")
        stack = session.stack(session.service(names[0]))
        remove_lock(session, stack)
        if has_stack(session, stack):
            settle(session, stack, yes=yes, again=command_again(c, task))
        else:
            session.reporter.line(f"there is no stack {stack.reference} yet")
