"""The guard: before preview and before up, it checks that the target's context leads to the pinned cluster.

pulumi itself previews plain resources even when the cluster does not exist, so nothing starts before this check.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from runbooks.core.environment import changes_pulumi_unseen, plugin_variables
from runbooks.core.errors import OpsError, Refused
from runbooks.stacks.session import RunContext, Session
from runbooks.stacks.target import Target
from runbooks.stacks.toolbox import find_kubectl
from runbooks.tools.esc import Opened
from runbooks.tools.kubeconfig import KubeContext, ended_credential, read_context, write_private
from runbooks.tools.kubectl import Kubectl, KubectlFailed, Runs, Trouble, ask, text_at
from runbooks.tools.pulumi import as_text
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile

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

_STEERING = ("kubeconfig", "context", "cluster", "clusterIdentifier")


def check_stack_settings(
    settings: Mapping[str, str | None], target: Target, *, source: str, next_step: str = ""
) -> None:
    """Refuse `kubernetes:` settings that lead to another cluster than the target's.

    `settings` maps full keys to values, `None` where the value is secret. `source` is where they are set, and
    `next_step` how they are removed there, for the message. Raises `Refused`.
    """
    forgets = settings.get("kubernetes:deleteUnreachable", "false")
    if str(forgets).lower() != "false":
        raise Refused(
            f"kubernetes:deleteUnreachable in {source} is on: pulumi would forget every object while the cluster does "
            "not answer",
            expected="no such setting: existing objects stay in the state",
            next_step=next_step or f"remove kubernetes:deleteUnreachable from {source}",
        )
    # pulumi's provider takes these before KUBECONFIG, which the run sets.
    for name in _STEERING:
        key = f"kubernetes:{name}"
        if key not in settings:
            continue
        value = settings[key]
        if value is None:
            raise _disagrees(key, "a secret value, which cannot be compared", "no such setting", source, next_step)
        wanted = _wanted(name, settings, target)
        if not _agrees(name, value, wanted):
            found = repr(value) if len(value) < 200 else "a whole kubeconfig"
            expected = repr(wanted) if wanted else "no such setting, or kubernetes:context with the target's context"
            raise _disagrees(key, found, expected, source, next_step)


def check_opened(target: Target, opened: Opened, name: str) -> None:
    """Refuse the ESC environment `name`, opened, when it points pulumi at another cluster, by variable or setting.

    Also refuses variables that silently change what pulumi does. pulumi sets them in its own process, so the allow-list
    of a run's children does not remove them. Raises `Refused`.
    """
    next_step = f"remove it from environments/{name}.yaml, then ./inv esc.apply {name}"
    # The keys of `files` are variables too: each names a temporary file.
    variables, files = opened.variables, opened.under("files")
    unseen = sorted(filter(changes_pulumi_unseen, {*variables, *files}))
    if unseen:
        raise Refused(
            f"{', '.join(unseen)} in environmentVariables of {name} would change what pulumi does without being seen",
            expected="no such variable in an environment that a stack binds",
            next_step=next_step,
        )
    if "KUBECONFIG" in {*variables, *files}:
        is_file = "KUBECONFIG" in files
        raise _disagrees(
            "KUBECONFIG",
            "a file of its own" if is_file else repr(variables["KUBECONFIG"]),
            "no KUBECONFIG: the run gives pulumi its own, with the checked context alone",
            f"{'files' if is_file else 'environmentVariables'} of {name}",
            next_step,
        )
    config: dict[str, str | None] = {}
    for value in opened.values:
        if value.path[0] == "pulumiConfig" and len(value.path) > 1 and str(value.path[1]).startswith("kubernetes:"):
            # A whole kubeconfig may be given as a map.
            text = as_text(value.value) if len(value.path) == 2 else "a map or list of values"
            config[str(value.path[1])] = None if value.secret else text
    check_stack_settings(config, target, source=f"pulumiConfig of {name}", next_step=next_step)


def _wanted(name: str, settings: Mapping[str, str | None], target: Target) -> str:
    if name == "context":
        return target.context
    if name == "clusterIdentifier":
        return target.cluster_uid
    context = read_context(target.kubeconfig, target.context)
    if name == "cluster":
        return context.cluster_name
    # With a kubeconfig alone, its current context would decide.
    return str(target.kubeconfig) if settings.get("kubernetes:context") == target.context else ""


def _agrees(name: str, value: str, wanted: str) -> bool:
    if name == "kubeconfig" and wanted and "\n" not in value:
        return os.path.realpath(Path(value).expanduser()) == os.path.realpath(wanted)
    return bool(wanted) and value == wanted


def _disagrees(key: str, found: str, expected: str, source: str, next_step: str) -> OpsError:
    return Refused(
        f"{key} in {source} is {found}, so pulumi would not go to the cluster that was checked",
        expected=expected,
        next_step=next_step or f"remove {key} from {source}",
    )


def plain_settings(config: Mapping[str, object]) -> dict[str, str | None]:
    """The `config:` of a stack in the form for `check_stack_settings`: secrets (`{secure: …}`) become `None`."""
    return {
        str(key): None if isinstance(value, Mapping) and "secure" in value else str(value)
        for key, value in config.items()
    }


def read_settings(session: Session, stack: Stack) -> StackFile:
    """Read the stack config. Raises `Refused` if it points pulumi at another cluster than the target's."""
    file = StackFile.read(stack.settings_file)
    check_stack_settings(plain_settings(file.config), session.target, source=str(stack.settings_file))
    return file
