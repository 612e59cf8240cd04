"""Which run holds a stack: by the locks of a file backend, or by the update that the cloud reports."""

from __future__ import annotations

from runbooks.stacks import states
from runbooks.stacks.session import Session
from runbooks.tools import locks, pulumi
from runbooks.tools.failures import explain
from runbooks.tools.locks import Held
from runbooks.tools.stack import Stack


def holders_of(session: Session, stack: Stack, *, after_interrupt: bool = False) -> list[Held] | None:
    """The holders of the stack; `None` on a backend that does not report them (a bucket).

    Raises what pulumi's failure means.
    """
    folder = locks.lock_folder(stack, session.target.backend)
    if folder is not None:
        return [locks.look(lock) for lock in locks.locks_in(folder)]
    if session.target.has_diy_backend:
        return None
    if not states.has_stack(session, stack):
        return []
    answer = session.runner.run(pulumi.stack_show(stack), after_interrupt=after_interrupt)
    if not answer.ok:
        raise explain(answer, stack)
    update = locks.read_current_update(answer.stdout)
    if update is None:
        return []
    # Where runs from here work on the stack: its project's folder, and that of older commits that are rolled back to.
    project = stack.folder.relative_to(session.root)
    folders = {str(stack.folder), *map(str, (session.state_dir / "worktrees").glob(f"*/{project}"))}
    # Every user of the lab's cloud is on this machine.
    return locks.look_here(update, stack.name, folders, only_this_machine=session.target.ephemeral)


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
