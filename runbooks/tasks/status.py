"""One table of all services: what is deployed, since when, what is pending, the lock, the pods."""

from __future__ import annotations

from typing import Any

from invoke import task


@task
def status(c: Any) -> None:
    """Show every service on the target: stack, last update, resources, pending operations, lock, pods."""
    from runbooks.core.errors import Refused
    from runbooks.core.parallel import raise_first
    from runbooks.run import open_session
    from runbooks.stacks.guard import confirm_cluster
    from runbooks.stacks.status import COLUMNS, read_rows
    from runbooks.tools.kubectl import ask

    with open_session(c, "status", cluster=False, start_lab=False) as session:
        pods, cluster = None, "cluster not confirmed"
        try:
            cluster = f"cluster {confirm_cluster(session)[:8]}"
            pods = ask(session.runner, session.kubectl.get("pods", everywhere=True))
        except Refused as error:
            session.reporter.advice(error.beside("The pods are not shown.\n  "))
        rows, unread = read_rows(session, pods)
        session.reporter.table(f"Services on {session.target.name}, {cluster}", COLUMNS, rows)
        for values in rows:
            session.reporter.event("service", **dict(zip(COLUMNS, values, strict=True)))
        raise_first(session.reporter, unread)
