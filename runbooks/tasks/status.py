"""One table of all services: what is deployed, since when, what is pending, the lock, the Pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session
    from runbooks.tools.kubectl import Json
    from runbooks.tools.stack import Stack

COLUMNS = ("service", "stack", "last update", "resources", "pending", "lock", "pods ready")
ABSENT = "-"
UNREAD = "cannot be read"


@task
def status(c: Any) -> None:
    """Show every service on the target: stack, last update, resources, pending operations, lock, pods."""
    from runbooks.core.errors import OpsError, Refused
    from runbooks.core.parallel import side_by_side
    from runbooks.run import open_session
    from runbooks.services import SERVICES
    from runbooks.stacks.guard import confirm_cluster
    from runbooks.stacks.states import has_stack
    from runbooks.tools.kubectl import ask

    with open_session(c, "status", cluster=False, start_lab=False) as session:
        pods: Json | None = None
        try:
            confirm_cluster(session)
            pods = ask(session.runner, session.kubectl.get("pods", everywhere=True))
        except Refused as error:
            session.reporter.advice(error.beside("The cluster is not asked.\n  "))
        unread: list[OpsError] = []
        # Before the rows are read side by side: the list of stacks is asked for once.
        there = {service.name for service in SERVICES if has_stack(session, session.stack(service))}

        def row(service: Service) -> tuple[str, ...]:
            stack = session.stack(service)
            ready = ABSENT if pods is None else pods_ready(pods, service.namespace)
            if service.name not in there:
                return (service.name, "none", ABSENT, ABSENT, ABSENT, ABSENT, ready)
            try:
                return (service.name, stack.name, *read_stack(session, stack), ready)
            except OpsError as error:
                unread.append(error)
                return (service.name, stack.name, UNREAD, ABSENT, ABSENT, ABSENT, ready)

        rows = side_by_side(session.reporter, SERVICES, row)
        session.reporter.table(f"Services on {session.target.name}", COLUMNS, rows)
        for values in rows:
            session.reporter.event("service", **dict(zip(COLUMNS, values, strict=True)))
        for other in unread[1:]:
            session.reporter.advice(other.beside("also: "))
        if unread:
            raise unread[0]


def read_stack(session: Session, stack: Stack) -> tuple[str, str, str, str]:
    """Last update, resources, pending operations and lock. Raises what pulumi's failure means."""
    from runbooks.stacks import states
    from runbooks.stacks.holders import describe_holders
    from runbooks.tools import pulumi

    answer = states.run_confidential(session, pulumi.stack_export(stack), stack)
    state = pulumi.read_export(answer)
    pending = f"{len(state.pending)}: ./inv cancel.{stack.service}" if state.pending else "none"
    updated = written_at(pulumi.read_json(answer, "pulumi stack export")) or ABSENT
    return updated, str(len(state.own_resources)), pending, describe_holders(session, stack) or "free"


def written_at(answer: Mapping[str, Any]) -> str:
    """`2026-11-24 07:02 UTC` from the manifest of an export; empty for a stack that was never updated."""
    from datetime import UTC, datetime

    time = str(((answer.get("deployment") or {}).get("manifest") or {}).get("time") or "")
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        return ""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if when.year > 1 else ""


def pods_ready(answer: Json, namespace: str) -> str:
    """`3 of 3`, without Pods that completed; `-` when the namespace has none."""
    from runbooks.tools.kubectl import condition, dig, items, metadata

    pods = [pod for pod in items(answer) if metadata(pod)[0] == namespace]
    wanted: Sequence[Json] = [pod for pod in pods if dig(pod, "status", "phase") != "Succeeded"]
    ready = [pod for pod in wanted if (found := condition(pod, "Ready")) and found.is_true]
    return f"{len(ready)} of {len(wanted)}" if wanted else ABSENT
