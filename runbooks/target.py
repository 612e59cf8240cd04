"""Where the next run goes, and which cluster a target is pinned to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from runbooks.lib.guard import Cluster
    from runbooks.lib.target import Target
    from runbooks.session import Bench


@task
def show(c: Any) -> None:
    """Show where the next run goes: stack, back end, cluster, tools. Changes nothing."""
    from runbooks.session import open_bench

    with open_bench(c, "target.show") as bench:
        target = _chosen(c, bench)
        rows = [*_written(target), ("cluster now", _cluster_now(target, bench)), ("pulumi", _pulumi(target))]
        bench.reporter.table(f"Target {target.name}", ("what", "value"), rows)
        bench.reporter.event("target", **{what.replace(" ", "_"): value for what, value in rows}, name=target.name)


@task
def pin(c: Any) -> None:
    """Record in targets.yaml which cluster the target is, after showing it and asking."""
    from runbooks.lib.errors import NotApproved, Usage
    from runbooks.lib.target import pin as write_pin
    from runbooks.program import ROOT
    from runbooks.session import open_bench

    with open_bench(c, "target.pin") as bench:
        target = _chosen(c, bench)
        if target.ephemeral:
            raise Usage("the lab pins itself when it starts", expected="a target of targets.yaml: --target NAME")
        cluster, nodes = _looked_up(target, bench)
        rows = (
            ("cluster", cluster.name),
            ("context", cluster.context),
            ("server", cluster.server),
            ("UID", cluster.uid),
            ("nodes", nodes),
            ("pinned so far", target.cluster_uid or "nothing"),
        )
        bench.reporter.table(f"Target {target.name}", ("what", "value"), rows)
        if cluster.uid == target.cluster_uid:
            bench.reporter.line("It is pinned to this cluster already; nothing changed.")
            return
        if not _agreed(target, bench):
            raise NotApproved(
                "nothing was pinned: nobody said so on a terminal",
                expected=f"the name {target.name} typed" if target.is_pinned else "y at the question",
                next_step=f"./inv --target {target.name} target.pin",
            )
        path = write_pin(ROOT, target.name, cluster.uid)
        bench.journal.write("pinned", target=target.name, cluster_uid=cluster.uid, before=target.cluster_uid)
        bench.reporter.line(f"Pinned {target.name} to {cluster.uid} in {path.name}.")


def _agreed(target: Target, bench: Bench) -> bool:
    if target.is_pinned:
        question = f"It is pinned to another cluster. Type {target.name} to pin it to this one:"
        return bench.reporter.ask_word(question, target.name)
    return bench.reporter.ask_yes(f"Pin {target.name} to this cluster?")


def _chosen(c: Any, bench: Bench) -> Target:
    from runbooks.lib.target import chosen_name, load_target, load_targets
    from runbooks.program import ROOT

    name = chosen_name(c.config.ops.target or None, os.environ, load_targets(ROOT))
    return load_target(name, root=ROOT, state_dir=bench.state_dir)


def _written(target: Target) -> list[tuple[str, str]]:
    passphrase = target.passphrase_file
    said = "PULUMI_CONFIG_PASSPHRASE, or none needed" if passphrase is None else str(passphrase)
    absent = " (there is no such file)" if passphrase is not None and not passphrase.exists() else ""
    return [
        ("stack", target.stack),
        ("back end", target.shown_backend),
        ("organization", target.organization),
        ("kubeconfig", str(target.kubeconfig)),
        ("context", target.context),
        ("pinned cluster", target.cluster_uid or f"none yet: ./inv --target {target.name} target.pin"),
        ("passphrase", said + absent),
        ("throw-away", "yes" if target.ephemeral else "no"),
    ]


def _cluster_now(target: Target, bench: Bench) -> str:
    from runbooks.lib.errors import OpsError

    try:
        cluster, nodes = _looked_up(target, bench)
    except OpsError as error:
        return f"not known: {error.summary}"
    same = "the pinned one" if cluster.uid == target.cluster_uid else "NOT the pinned one"
    verdict = same if target.is_pinned else "not pinned"
    return f"{cluster.name} at {cluster.server}, UID {cluster.uid}, {verdict}; nodes {nodes}"


def _looked_up(target: Target, bench: Bench) -> tuple[Cluster, str]:
    """The cluster behind the target's context, and its nodes' names. Raises `Refused` when it gives no identity."""
    from runbooks.lib.guard import identify, private_kubeconfig
    from runbooks.lib.kubectl import ask, items, metadata
    from runbooks.session import kubectl_for

    context, path = private_kubeconfig(target, bench.journal.folder)
    try:
        bench.masker.register_all(context.secrets())
        kubectl = kubectl_for(target, context, path, bench.state_dir)
        cluster = identify(target, context, kubectl, bench.runner)
        nodes = sorted(metadata(node)[1] for node in items(ask(bench.runner, kubectl.get("nodes"))))
    finally:
        path.unlink(missing_ok=True)
    return cluster, ", ".join(nodes) or "none"


def _pulumi(target: Target) -> str:
    from runbooks.lib.errors import OpsError
    from runbooks.lib.toolbox import find_pulumi

    try:
        return find_pulumi(target)
    except OpsError as error:
        return f"{error.summary}; {error.next_step}"
