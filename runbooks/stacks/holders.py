"""Finds the run that holds a stack, and removes its lock for `cancel`.

A file backend has locks, the cloud reports the update. `pulumi cancel` on a file backend deletes the lock while the
other run continues, so it is called only when that process is known to be gone, or after a user who was shown the
holder typed the service's name.
"""

from __future__ import annotations

from runbooks.core.errors import NotApproved, Refused
from runbooks.stacks import states
from runbooks.stacks.session import Session
from runbooks.tools import locks, pulumi
from runbooks.tools.locks import Held, Holder
from runbooks.tools.stack import Stack


def holders_of(session: Session, stack: Stack, *, after_interrupt: bool = False) -> list[Held] | None:
    """The holders of the stack; `None` on a backend that does not report them (a bucket).

    Raises the error for pulumi's failure.
    """
    folder = locks.lock_folder(stack, session.target.backend)
    if folder is not None:
        return [locks.find_holder(lock) for lock in locks.locks_in(folder)]
    if session.target.has_diy_backend:
        return None
    if not states.has_stack(session, stack):
        return []
    answer = states.run_pulumi(session, pulumi.stack_show(stack), stack, after_interrupt=after_interrupt)
    update = locks.read_current_update(answer)
    if update is None:
        return []
    # Runs of this checkout use the project's folder, or its copy in an older commit during a rollback.
    project = stack.folder.relative_to(session.root)
    folders = {str(stack.folder), *map(str, (session.state_dir / "worktrees").glob(f"*/{project}"))}
    # Every user of the lab's cloud is on this machine.
    return locks.find_holders(update, stack.name, folders, only_this_machine=session.target.ephemeral)


def refuse_held(session: Session, stack: Stack) -> None:
    """Raise `Refused` while another run holds the stack: the objects it makes are not in the state yet."""
    for held in holders_of(session, stack) or ():
        raise Refused(
            f"another run holds the stack of {stack.service}: {held.describe()}",
            expected="a stack that no other run changes; wait for that run to end",
            next_step=f"./inv cancel.{stack.service} checks whether that process is still alive",
        )


def describe_holders(session: Session, stack: Stack) -> str:
    """The stack's holders for a table's cell; empty when it is free. The cloud reports only that an update runs."""
    folder = locks.lock_folder(stack, session.target.backend)
    if folder is not None:
        return "; ".join(
            "a lock without an owner"
            if lock.is_unreadable
            else f"{lock.user}@{lock.host}, pid {lock.pid}, since {lock.since}"
            for lock in locks.locks_in(folder)
        )
    row = states.row_of(session, stack)
    return "an update runs" if row is not None and row.updating else ""


def remove_lock(session: Session, stack: Stack) -> None:
    """Remove the stack's lock. Raises `Refused`, `NotApproved`, or the error for pulumi's failure."""
    held = holders_of(session, stack)
    if held == []:
        session.reporter.line(f"the stack of {stack.service} is not locked")
        return
    approve_removal(session, stack, held)
    # Between the question and its answer another run may have taken the stack.
    known = {entry.lock.identity for entry in held or ()}
    if any(entry.lock.identity not in known for entry in holders_of(session, stack) or ()):
        raise Refused(
            f"another run took the stack of {stack.service} just now",
            expected="the lock that was shown",
            next_step=f"./inv cancel.{stack.service}",
        )
    states.run_pulumi(session, pulumi.cancel(stack), stack)
    session.reporter.line(f"the lock of {stack.service} is removed")


def approve_removal(session: Session, stack: Stack, held: list[Held] | None) -> None:
    """Return when every holder is gone, or a user who was shown the others typed the name.

    `None` for `held`: the backend does not show who holds it. Raises `Refused` while a holder lives, `NotApproved` when
    the name was not typed.
    """
    for entry in held or ():
        session.reporter.line(f"held by {entry.describe()}")
        if entry.holder is Holder.ALIVE:
            raise Refused(
                f"the stack of {stack.service} is held by a run that is alive: {entry.describe()}",
                expected="a holder that is gone; removing the lock would not stop it, and two runs would write one "
                "state",
                next_step=f"wait for it, or stop it with one signal: kill -INT {entry.lock.pid}",
            )
    if held is not None and all(entry.holder is Holder.GONE for entry in held):
        return
    session.reporter.line(
        "this machine cannot tell whether that run is alive; if it is, its changes and the next run's will mix"
    )
    if not session.reporter.ask_word(f"Type {stack.service} to remove the lock anyway:", stack.service):
        raise NotApproved(
            f"the lock of {stack.service} was left alone",
            expected="the service's name, typed on a terminal, once the other run is known to be over",
            next_step=f"ask its owner, then ./inv cancel.{stack.service}",
        )
