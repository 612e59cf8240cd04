"""`cancel.<service>`: find who holds the stack, remove the lock of a dead run, settle its pending operations.

`pulumi cancel` on a file backend deletes the lock while the other run continues, so it is called only when that
process is known to be gone, or after a user who was shown the holder typed the service's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import command_again, each_service

if TYPE_CHECKING:
    from runbooks.stacks.session import Session
    from runbooks.tools.locks import Held
    from runbooks.tools.stack import Stack


@each_service()
def cancel(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Remove what a dead run left on the stack of {service}, lock and pending operations; refuses while it lives.

    --yes takes the objects that the run created into the state where there is no terminal to ask on.
    """
    from runbooks.core.errors import Refused
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks import pending, states
    from runbooks.stacks.holders import holders_of
    from runbooks.tools import pulumi
    from runbooks.tools.failures import explain

    service = find_service(names[0])
    with open_session(c, f"cancel.{service.name}", cluster=False) as session:
        stack = session.stack(service)
        session.reporter.announce(f"Finding out who holds the stack of {service.name}, before anything is removed.")
        held = holders_of(session, stack)
        if held is not None and not held:
            session.reporter.line(f"the stack of {service.name} is not locked")
        elif may_be_removed(session, stack, held):
            # Between the question and its answer another run may have taken the stack.
            known = {entry.lock.identity for entry in held or ()}
            if any(entry.lock.identity not in known for entry in holders_of(session, stack) or ()):
                raise Refused(
                    f"another run took the stack of {service.name} just now",
                    expected="the lock that was shown",
                    next_step=f"./inv cancel.{service.name}",
                )
            outcome = session.runner.run(pulumi.cancel(stack))
            if not outcome.ok:
                raise explain(outcome, stack)
            session.reporter.line(f"the lock of {service.name} is removed")
        if states.has_stack(session, stack):
            pending.settle(session, stack, yes=yes, again=command_again(c, f"cancel.{service.name}"))
        else:
            session.reporter.line(f"there is no stack {stack.reference} yet")


def may_be_removed(session: Session, stack: Stack, held: list[Held] | None) -> bool:
    """True when every holder is gone, or a user who was shown the others typed the name.

    `None` for `held`: the backend does not show who holds it. Raises `Refused` while a holder lives, `NotApproved` when
    the name was not typed.
    """
    from runbooks.core.errors import NotApproved, Refused
    from runbooks.tools.locks import Holder

    for entry in held or ():
        session.reporter.line(f"held by {entry.describe()}")
    alive = [entry for entry in held or () if entry.holder is Holder.ALIVE]
    if alive:
        raise Refused(
            f"the stack of {stack.service} is held by a run that is alive: {alive[0].describe()}",
            expected="a holder that is gone; removing the lock would not stop it, and two runs would write one state",
            next_step=f"wait for it, or stop it with one signal: kill -INT {alive[0].lock.pid}",
        )
    if held is not None and all(entry.holder is Holder.GONE for entry in held):
        return True
    session.reporter.line(
        "whether that run is alive cannot be seen from here; if it is, its changes and the next run's will mix"
    )
    question = f"Type {stack.service} to remove the lock all the same:"
    if session.reporter.ask_word(question, stack.service):
        return True
    raise NotApproved(
        f"the lock of {stack.service} was left alone",
        expected="the service's name, typed on a terminal, once the other run is known to be over",
        next_step=f"ask its owner, then ./inv cancel.{stack.service}",
    )
