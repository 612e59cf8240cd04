"""The guard: before preview and before up, it checks that the target's context leads to the pinned cluster.

pulumi itself previews plain resources even when the cluster does not exist, so nothing starts before this check.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from runbooks.core.environment import plugin_variables
from runbooks.core.errors import Refused
from runbooks.stacks.session import RunContext, Session
from runbooks.stacks.target import Target
from runbooks.stacks.toolbox import find_kubectl
from runbooks.tools.kubeconfig import KubeContext, ended_credential, read_context, write_private
from runbooks.tools.kubectl import Kubectl, KubectlFailed, Runs, Trouble, ask, text_at

IDENTITY_NAMESPACE = "kube-system"
"""Its UID is as old as the cluster, and no two clusters share one."""


def private_kubeconfig(target: Target, folder: Path) -> tuple[KubeContext, Path]:
    """Cut the target's kubeconfig down to its one context, as `<folder>/kubeconfig` (0600).

    Raises `Refused` when file, context, cluster or user is missing or empty.
    """
    context = read_context(target.kubeconfig, target.context)
    return context, write_private(context, folder / "kubeconfig")


def login_variables(context: KubeContext) -> dict[str, str]:
    """The variables that the kubeconfig's login plug-in may need; none without a plug-in."""
    return plugin_variables(os.environ) if context.starts_plugin else {}


@contextlib.contextmanager
def open_kubectl(target: Target, run: RunContext) -> Iterator[tuple[KubeContext, Kubectl]]:
    """The target's context and a kubectl on it alone; its kubeconfig is removed afterwards.

    Raises `Refused` when the kubeconfig lacks something.
    """
    context, path = private_kubeconfig(target, run.journal.folder)
    # Each cluster has its own cache, as a new lab answers on the old lab's port.
    cache = run.state_dir / "cache" / f"kube-{target.cluster_uid[:8] or target.name}"
    env = login_variables(context) | {"KUBECACHEDIR": str(cache)}
    try:
        run.masker.register_all(context.secrets())
        program = find_kubectl(target)
        yield context, Kubectl(program=program, kubeconfig=path, env=env, has_plugin=context.starts_plugin)
    finally:
        path.unlink(missing_ok=True)


def confirm_cluster(session: Session) -> str:
    """Ask the run's cluster for its UID, compare it with the pinned one and return it.

    Raises `Refused` when it does not answer, was never pinned, or is another one.
    """
    target, context = session.target, session.context
    uid = identify(target, context, session.kubectl, session.runner)
    if not target.is_pinned:
        raise Refused(
            f"target {target.name!r} is not pinned: its context {target.context!r} leads to {context.server}, "
            f"cluster UID {uid}",
            expected="a recorded cluster_uid, so that a changed context cannot send a run to another cluster",
            next_step=f"./inv --target {target.name} target.pin",
        )
    if uid != target.cluster_uid:
        raise Refused(
            f"wrong cluster: context {target.context!r} leads to {context.server}, cluster UID {uid}",
            expected=f"the cluster that target {target.name!r} is pinned to, UID {target.cluster_uid}",
            next_step="./inv lab.status"
            if target.ephemeral
            else f"./inv --target {target.name} target.show; after a deliberate rebuild of the cluster, target.pin",
        )
    return uid


def identify(target: Target, context: KubeContext, kubectl: Kubectl, runner: Runs) -> str:
    """The cluster's UID, pinned or not. Raises `Refused` when the cluster does not report one."""
    answer = f"an answer from the cluster with UID {target.cluster_uid}" if target.is_pinned else "an answer"
    try:
        namespace = ask(runner, kubectl.get("namespace", IDENTITY_NAMESPACE))
    except KubectlFailed as error:
        hint = {
            Trouble.UNTRUSTED: "certificate-authority-data in the kubeconfig of another cluster, or a rebuilt server",
            Trouble.UNAUTHORIZED: "expired or foreign credentials in the kubeconfig",
            Trouble.PLUGIN: "the error of the login plug-in above: an expired login, or a missing variable",
        }.get(error.trouble, "")
        if error.trouble is Trouble.UNAUTHORIZED:
            hint = ended_credential(context, datetime.now(UTC)) or hint
        raise Refused(
            f"the cluster of target {target.name!r} cannot be identified: context {target.context!r}, "
            f"server {context.server}: {error.summary}{f'; likely {hint}' if hint else ''}",
            expected=answer,
            next_step="./inv lab.up" if target.ephemeral else f"./inv --target {target.name} doctor",
        ) from error
    # A proxy or a login page answers, too.
    uid = text_at(namespace, "metadata", "uid")
    if not uid or text_at(namespace, "metadata", "name") != IDENTITY_NAMESPACE:
        raise Refused(
            f"the server behind context {target.context!r} reports no UID for namespace {IDENTITY_NAMESPACE}",
            expected=answer,
            next_step="./inv doctor",
        )
    return uid


# Stack configs and environments that would send pulumi to another cluster
