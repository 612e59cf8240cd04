"""One row for each service: its stack, last update, resources, pending operations, the lock, the pods."""

from __future__ import annotations

from datetime import UTC, datetime

from runbooks.core.errors import OpsError
from runbooks.core.parallel import side_by_side
from runbooks.stacks.preparation import has_stack, row_of, sealed_state
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import locks
from runbooks.tools.kubectl import Json, condition, dig, items, metadata
from runbooks.tools.stack import Stack

COLUMNS = ("service", "stack", "last update", "resources", "pending", "lock", "pods ready")
ABSENT = "-"
UNREAD = "cannot be read"


def read_rows(session: Session, pods: Json | None) -> tuple[list[tuple[str, ...]], list[OpsError]]:
    """The cells of `COLUMNS` for each service, and why stacks could not be read; `pods` is kubectl's list, if any."""
    unread: list[OpsError] = []
    # Before the rows are read side by side: the list of stacks is asked for once.
    there = {service.name for service in session.services if has_stack(session, session.stack(service))}

    def row(service: Service) -> tuple[str, ...]:
        stack = session.stack(service)
        ready = ABSENT if pods is None else pods_ready(pods, service.namespace)
        if service.name not in there:
            return (service.name, "none", ABSENT, ABSENT, ABSENT, ABSENT, ready)
        try:
            state, lock = sealed_state(session, stack), describe_holders(session, stack) or "free"
        except OpsError as error:
            unread.append(error)
            return (service.name, stack.name, UNREAD, ABSENT, ABSENT, ABSENT, ready)
        pending = f"{len(state.pending)}: ./inv cancel.{service.name}" if state.pending else "none"
        updated, resources = format_time(state.written) or ABSENT, str(len(state.own_resources))
        return (service.name, stack.name, updated, resources, pending, lock, ready)

    return side_by_side(session.reporter, session.services, row), unread


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
    row = row_of(session, stack)
    return "an update runs" if row is not None and row.updating else ""


def format_time(written: str) -> str:
    """`2026-11-24 07:02 UTC`; empty for a stack that was never updated."""
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        return ""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if when.year > 1 else ""


def pods_ready(answer: Json, namespace: str) -> str:
    """`3 of 3`, without Pods that completed; `-` when the namespace has none."""
    pods = [pod for pod in items(answer) if metadata(pod)[0] == namespace]
    wanted = [pod for pod in pods if dig(pod, "status", "phase") != "Succeeded"]
    ready = [pod for pod in wanted if (found := condition(pod, "Ready")) and found.is_true]
    return f"{len(ready)} of {len(wanted)}" if wanted else ABSENT
