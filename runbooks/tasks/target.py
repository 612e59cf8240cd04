"""Where the next run goes, and which cluster a target is pinned to."""

from __future__ import annotations

from typing import Any

from invoke import task


@task
def show(c: Any) -> None:
    """Show where the next run goes: stack, backend, cluster, tools. Changes nothing."""
    from runbooks.checks import machine
    from runbooks.core.errors import OpsError
    from runbooks.run import load_chosen_target, open_run
    from runbooks.services import SERVICES
    from runbooks.stacks.guard import find_pulumi

    with open_run(c, "target.show") as run:
        target = load_chosen_target(c, run)
        try:
            pulumi = find_pulumi(target)
        except OpsError as error:
            pulumi = f"{error.summary}; {error.next_step}"
        rows = [
            *machine.describe_target(target, SERVICES),
            ("cluster now", machine.describe_cluster(target, run)),
            ("pulumi", pulumi),
        ]
        run.reporter.table(f"Target {target.name}", ("what", "value"), rows)
        run.reporter.event("target", **{what.replace(" ", "_"): value for what, value in rows}, name=target.name)


@task
def pin(c: Any) -> None:
    """Record in targets.yaml which cluster the target is, after showing it and asking."""
    from runbooks.checks.machine import find_cluster
    from runbooks.core.errors import NotApproved, Usage
    from runbooks.core.files import ROOT
    from runbooks.run import load_chosen_target, open_run
    from runbooks.stacks.target import pin as write_pin

    with open_run(c, "target.pin") as run:
        target = load_chosen_target(c, run)
        if target.ephemeral:
            raise Usage("the lab pins itself when it starts", expected="a target of targets.yaml: --target NAME")
        context, uid, nodes = find_cluster(target, run)
        rows = (
            ("cluster", context.cluster_name),
            ("context", context.name),
            ("server", context.server),
            ("UID", uid),
            ("nodes", nodes),
            ("pinned so far", target.cluster_uid or "nothing"),
        )
        run.reporter.table(f"Target {target.name}", ("what", "value"), rows)
        if uid == target.cluster_uid:
            run.reporter.line("It is pinned to this cluster already; nothing changed.")
            return
        if target.is_pinned:
            question = f"It is pinned to another cluster. Type {target.name} to pin it to this one:"
            confirmed = run.reporter.ask_word(question, target.name)
        else:
            confirmed = run.reporter.ask_yes(f"Pin {target.name} to this cluster?")
        if not confirmed:
            raise NotApproved(
                "nothing was pinned: it was not confirmed on a terminal",
                expected=f"the name {target.name} typed" if target.is_pinned else "y at the question",
                next_step=f"./inv --target {target.name} target.pin",
            )
        path = write_pin(ROOT, target.name, uid)
        run.journal.write("pinned", target=target.name, cluster_uid=uid, before=target.cluster_uid)
        run.reporter.line(f"Pinned {target.name} to {uid} in {path.name}.")
