"""Opens a session on a target, and guards it: before preview and up, its context must lead to the pinned cluster.

pulumi itself previews plain resources even when the cluster does not exist, so nothing starts before this check.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runbooks.core.environment import access_variables, plugin_variables
from runbooks.core.errors import OpsError, OutOfTime, Refused, ToolFailed, Usage
from runbooks.core.files import ROOT
from runbooks.core.search_path import INSTALL, find_beside_python, find_program, user_path
from runbooks.stacks.service import Service
from runbooks.stacks.session import RunContext, Session, Tools
from runbooks.stacks.target import Target
from runbooks.tools import pulumi
from runbooks.tools.kubeconfig import KubeContext, ended_credential, read_context, write_private
from runbooks.tools.kubectl import Kubectl, KubectlFailed, Runs, Trouble, ask, dig, text_at
from runbooks.tools.pulumi_home import (
    NO_AMBIENT,
    NO_DOWNLOADS,
    create_private_home,
    has_language_host,
    user_credentials,
)


def build_session(
    target: Target, run: RunContext, services: tuple[Service, ...], closing: contextlib.ExitStack
) -> Session:
    """Build a session on a resolved target, which the caller guards; `closing` removes the files that it creates."""
    folder = run.journal.folder
    context, kubectl = closing.enter_context(open_kubectl(target, run))
    files = [
        read_secret_file(target, target.passphrase_file, "passphrase"),
        read_secret_file(target, target.token_file, "token"),
    ]
    # Before the first child is started, which could print one of them.
    run.masker.register_all([*files, *backend_passwords(target)])
    home = closing.enter_context(create_private_home(folder, os.environ))
    explicit = pulumi_environment(target, os.environ, home=home, kubeconfig=kubectl.kubeconfig, state=run.state_dir)
    env = login_variables(context) | explicit
    return Session(
        root=ROOT,
        state_dir=run.state_dir,
        target=target,
        services=services,
        runner=run.runner,
        journal=run.journal,
        masker=run.masker,
        reporter=run.reporter,
        context=context,
        kubectl=kubectl,
        tools=find_tools(target, env, run.runner),
        env=env,
    )


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


def private_kubeconfig(target: Target, folder: Path) -> tuple[KubeContext, Path]:
    """Cut the target's kubeconfig down to its one context, as `<folder>/kubeconfig` (0600).

    Raises `Refused` when file, context, cluster or user is missing or empty.
    """
    context = read_context(target.kubeconfig, target.context)
    return context, write_private(context, folder / "kubeconfig")


def login_variables(context: KubeContext) -> dict[str, str]:
    """The variables that the kubeconfig's login plug-in may need; none without a plug-in."""
    return plugin_variables(os.environ) if context.starts_plugin else {}


def find_kubectl(target: Target) -> str:
    """The lab's kubectl for the lab; else the one on PATH, else the one of this environment."""
    found = target.own_tool("kubectl") or find_program("kubectl") or find_beside_python("kubectl")
    if found is None:
        raise missing("kubectl", target)
    # Children run in other folders, where a relative entry of PATH leads elsewhere.
    return str(found.absolute())


def read_secret_file(target: Target, path: Path | None, what: str) -> str:
    """The content of a file of one secret; empty without a path. Raises `Usage` when it cannot be read."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(
            f"the {what} file {path} of target {target.name!r} cannot be read",
            expected=f"a readable text file that holds the {what}",
            next_step="./inv lab.up" if target.ephemeral else f"./inv --target {target.name} target.show",
        ) from error


SECRET_NAME = re.compile(r"pass|secret|token|key|sig", re.IGNORECASE)
"""Names of secret fields in the query of a backend's address."""


def backend_passwords(target: Target) -> list[str]:
    """The passwords in a backend's address, both as written and decoded."""
    parts = urlsplit(target.backend)
    fields = (field.partition("=") for field in parts.query.split("&"))
    written = [parts.password or "", *(value for name, _, value in fields if SECRET_NAME.search(name))]
    return [text for password in written if password for text in (password, unquote(password))]


def pulumi_environment(
    target: Target, environ: Mapping[str, str], *, home: Path, kubeconfig: Path, state: Path
) -> dict[str, str]:
    """Every variable that selects pulumi's backend and cluster, set explicitly for each child."""
    credentials = target.credentials_dir or user_credentials(environ)
    if environ.get("PULUMI_ACCESS_TOKEN") and not target.ephemeral and not target.has_diy_backend:
        # pulumi stores a token of the environment and changes the user's current backend, so it gets another folder.
        credentials = home
    made = {
        "PULUMI_BACKEND_URL": target.backend,
        "PULUMI_HOME": str(home),
        "PULUMI_CREDENTIALS_PATH": str(credentials.absolute()),
        "KUBECONFIG": str(kubeconfig),
        # pulumi has uv sync the environment before each program: never from the network, and never to other versions.
        "UV_FROZEN": "1",
        "UV_OFFLINE": "1",
        # They live for seconds, so they collect garbage less often (a tenth less CPU, 30 to 100 MB more for a preview).
        "GOGC": "1000",
        "GOMEMLIMIT": "512MiB",
        "PATH": user_path(environ),
    }
    if target.passphrase_file is not None:
        made["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(target.passphrase_file)
    if target.ephemeral:
        if token := read_secret_file(target, target.token_file, "token"):
            made["PULUMI_ACCESS_TOKEN"] = token
        tools = os.pathsep.join((str(state / "lab" / "bin"), made["PATH"]))
        return made | {"OPS_STATE": str(state), "PATH": tools, NO_DOWNLOADS: "true", NO_AMBIENT: "false"}
    if made["PATH"] != environ.get("PATH", os.defpath):  # `lab.env` set this for the lab in the same shell
        made[NO_DOWNLOADS] = "false"
    passed_on = ["PULUMI_ACCESS_TOKEN"] + ([] if target.passphrase_file else ["PULUMI_CONFIG_PASSPHRASE"])
    return (
        made
        | access_variables(target.backend, environ)
        | {name: environ[name] for name in passed_on if name in environ}
    )


def find_tools(target: Target, env: Mapping[str, str], runner: Runs) -> Tools:
    """The tools for a target. On the lab, its own pulumi replaces one on PATH that is too old.

    Raises `ToolFailed` when there is no pulumi that works, or only one that is too old.
    """
    program, own = find_pulumi(target), target.own_tool("pulumi")
    version = ask_version(program, env, runner)
    if own is not None and is_too_old(version):
        program, version = str(own), ask_version(str(own), env, runner)
    if is_too_old(version):
        oldest = ".".join(map(str, pulumi.FIRST_WITH_EXIT_CODES))
        raise ToolFailed(
            f"pulumi {version} at {program} is too old",
            expected=f"v{oldest} or newer, whose exit codes distinguish failures",
            next_step="./inv lab.up" if target.ephemeral else INSTALL["pulumi"],
        )
    return Tools(pulumi=program, pulumi_version=version, helm=str(find_program("helm") or ""))


def is_too_old(version: str) -> bool:
    return pulumi.read_version(version) < pulumi.FIRST_WITH_EXIT_CODES


def find_pulumi(target: Target) -> str:
    """Path of the pulumi to use: the one on PATH or, on the lab, its own if that one lacks its language host.

    Raises `ToolFailed` with the install command when there is none.
    """
    program, own = find_program("pulumi"), target.own_tool("pulumi")
    # A pulumi without its language host starts, but cannot run any program.
    if own is not None and (program is None or not has_language_host(program)):
        program = own
    if program is None:
        raise missing("pulumi", target)
    return str(program)


def missing(tool: str, target: Target) -> OpsError:
    return ToolFailed(
        f"{tool} is not on PATH, and target {target.name!r} needs it",
        expected=f"{tool} on PATH; the lab's own serves the lab alone",
        next_step="./inv lab.up" if target.ephemeral else INSTALL[tool],
    )


def ask_version(program: str, env: Mapping[str, str], runner: Runs) -> str:
    """`v3.260.0`. Raises `ToolFailed` when that pulumi does not print its version."""
    outcome = runner.run(pulumi.version(program, env))
    if not outcome.ok:
        raise ToolFailed(
            f"{program} does not print its version (exit {outcome.exit_code})",
            expected="a working pulumi",
            next_step=f"{program} version",
        )
    return "v" + ".".join(str(part) for part in pulumi.read_version(outcome.stdout))


# The cluster's identity

IDENTITY_NAMESPACE = "kube-system"
"""Its UID is as old as the cluster, and no two clusters share one."""


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
    except OutOfTime as error:
        if not context.starts_plugin:
            raise
        plugin = dig(context.user, "exec", "command")
        raise OutOfTime(
            f"{error.summary}; likely the login plug-in {plugin} of context {target.context!r} hangs",
            expected=answer,
            next_step=f"log in with {plugin} by hand, then run the same command again",
        ) from error
    except KubectlFailed as error:
        hint = {
            Trouble.UNTRUSTED: "certificate-authority-data in the kubeconfig of another cluster, or a rebuilt server",
            Trouble.UNAUTHORIZED: "expired or foreign credentials in the kubeconfig",
            Trouble.PLUGIN: "the error of the login plug-in above: an expired login, or a missing variable",
        }.get(error.trouble, "")
        if error.trouble is Trouble.PLUGIN and re.search(r"not found|no such file", error.summary):
            hint = f"its login plug-in {dig(context.user, 'exec', 'command')} is not installed here"
        elif error.trouble is Trouble.PLUGIN and "interactive mode" in error.summary:
            hint = (
                "`interactiveMode: Always` of its login plug-in, which a run cannot serve: log in first, and set Never"
            )
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
