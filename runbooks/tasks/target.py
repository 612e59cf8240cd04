"""Where the next run goes, and which cluster a target is pinned to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from runbooks.stacks.guard import Cluster
    from runbooks.stacks.session import RunContext
    from runbooks.stacks.target import Target


@task
def show(c: Any) -> None:
    """Show where the next run goes: stack, backend, cluster, tools. Changes nothing."""
    from runbooks.run import open_run

    with open_run(c, "target.show") as run:
        target = _chosen(c, run)
        rows = [*_written(target), ("cluster now", _cluster_now(target, run)), ("pulumi", _pulumi(target))]
        run.reporter.table(f"Target {target.name}", ("what", "value"), rows)
        run.reporter.event("target", **{what.replace(" ", "_"): value for what, value in rows}, name=target.name)


@task
def pin(c: Any) -> None:
    """Record in targets.yaml which cluster the target is, after showing it and asking."""
    from runbooks.core.errors import NotApproved, Usage
    from runbooks.core.files import ROOT
    from runbooks.run import open_run
    from runbooks.stacks.target import pin as write_pin

    with open_run(c, "target.pin") as run:
        target = _chosen(c, run)
        if target.ephemeral:
            raise Usage("the lab pins itself when it starts", expected="a target of targets.yaml: --target NAME")
        cluster, nodes = _looked_up(target, run)
        rows = (
            ("cluster", cluster.name),
            ("context", cluster.context),
            ("server", cluster.server),
            ("UID", cluster.uid),
            ("nodes", nodes),
            ("pinned so far", target.cluster_uid or "nothing"),
        )
        run.reporter.table(f"Target {target.name}", ("what", "value"), rows)
        if cluster.uid == target.cluster_uid:
            run.reporter.line("It is pinned to this cluster already; nothing changed.")
            return
        if not _agreed(target, run):
            raise NotApproved(
                "nothing was pinned: nobody said so on a terminal",
                expected=f"the name {target.name} typed" if target.is_pinned else "y at the question",
                next_step=f"./inv --target {target.name} target.pin",
            )
        path = write_pin(ROOT, target.name, cluster.uid)
        run.journal.write("pinned", target=target.name, cluster_uid=cluster.uid, before=target.cluster_uid)
        run.reporter.line(f"Pinned {target.name} to {cluster.uid} in {path.name}.")


def _agreed(target: Target, run: RunContext) -> bool:
    if target.is_pinned:
        question = f"It is pinned to another cluster. Type {target.name} to pin it to this one:"
        return run.reporter.ask_word(question, target.name)
    return run.reporter.ask_yes(f"Pin {target.name} to this cluster?")


def _chosen(c: Any, run: RunContext) -> Target:
    from runbooks.core.files import ROOT
    from runbooks.stacks.target import chosen_name, load_target, load_targets

    name = chosen_name(c.config.ops.target or None, os.environ, load_targets(ROOT))
    return load_target(name, root=ROOT, state_dir=run.state_dir)


def _written(target: Target) -> list[tuple[str, str]]:
    passphrase = target.passphrase_file
    said = "PULUMI_CONFIG_PASSPHRASE, or none needed" if passphrase is None else str(passphrase)
    absent = " (there is no such file)" if passphrase is not None and not passphrase.exists() else ""
    return [
        ("stack", target.stack),
        ("backend", target.shown_backend),
        ("organization", target.organization),
        ("kubeconfig", str(target.kubeconfig)),
        ("context", target.context),
        ("pinned cluster", target.cluster_uid or f"none yet: ./inv --target {target.name} target.pin"),
        ("passphrase", said + absent),
        ("throw-away", "yes" if target.ephemeral else "no"),
    ]


def _cluster_now(target: Target, run: RunContext) -> str:
    from runbooks.core.errors import OpsError

    try:
        cluster, nodes = _looked_up(target, run)
    except OpsError as error:
        return f"not known: {error.summary}"
    same = "the pinned one" if cluster.uid == target.cluster_uid else "NOT the pinned one"
    verdict = same if target.is_pinned else "not pinned"
    return f"{cluster.name} at {cluster.server}, UID {cluster.uid}, {verdict}; nodes {nodes}"


def _looked_up(target: Target, run: RunContext) -> tuple[Cluster, str]:
    """The cluster behind the target's context, and its nodes' names. Raises `Refused` when it gives no identity."""
    from runbooks.run import kubectl_for
    from runbooks.stacks.guard import identify, private_kubeconfig
    from runbooks.tools.kubectl import ask, items, metadata

    context, path = private_kubeconfig(target, run.journal.folder)
    try:
        run.masker.register_all(context.secrets())
        kubectl = kubectl_for(target, context, path, run.state_dir)
        cluster = identify(target, context, kubectl, run.runner)
        nodes = sorted(metadata(node)[1] for node in items(ask(run.runner, kubectl.get("nodes"))))
    finally:
        path.unlink(missing_ok=True)
    return cluster, ", ".join(nodes) or "none"


def _pulumi(target: Target) -> str:
    from runbooks.core.errors import OpsError
    from runbooks.stacks.toolbox import find_pulumi

    try:
        return find_pulumi(target)
    except OpsError as error:
        return f"{error.summary}; {error.next_step}"
