"""What a run needs of this machine and of its target: a finding for each row of `doctor`, a failure with its fix.

Also describes the target and its cluster, for `target.show` and `target.pin`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runbooks.core.command import Command
from runbooks.core.errors import NotFound, OpsError
from runbooks.core.files import ROOT
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.core.runner import Runner
from runbooks.core.search_path import INSTALL, find_beside_python, find_program
from runbooks.stacks.guard import identify, open_kubectl
from runbooks.stacks.preparation import has_stack, read_settings
from runbooks.stacks.service import Service
from runbooks.stacks.session import RunContext, Session
from runbooks.stacks.target import LAB_UP, Target
from runbooks.tools import pulumi
from runbooks.tools.helm import list_releases, read_releases
from runbooks.tools.kubeconfig import KubeContext
from runbooks.tools.kubectl import Kubectl, ask, items, metadata, read_versions
from runbooks.tools.pulumi_home import (
    LANGUAGE_HOST,
    NO_DOWNLOADS,
    Plugin,
    has_language_host,
    is_on,
    place_of,
    user_home,
    wanted_plugins,
)
from runbooks.tools.stack_config import missing_keys, secrets_provider_of


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that the toolkit may need, and how to install it."""

    name: str
    version: tuple[str, ...]
    """Arguments that make it print its version."""
    install: str
    required: bool = True
    why: str = ""


TOOLS = (
    Tool(name="uv", version=("--version",), install="./inv installs it", why="syncs the Python environment"),
    Tool(name="git", version=("--version",), install="install git", why="rollback and pull requests need it"),
    Tool(
        name="helm",
        version=("version", "--short"),
        install=INSTALL["helm"],
        required=False,
        why="charts.* need it; the lab builds one when they are asked for",
    ),
    Tool(name="rg", version=("--version",), install="install ripgrep", required=False, why="no task needs it"),
    Tool(
        name="modal",
        version=("--version",),
        install="uv sync --group modal",
        required=False,
        why="only modal.deploy needs it",
    ),
)


def tools(runner: Runner) -> Iterator[Finding]:
    for tool in TOOLS:
        yield tool_is_there(tool, runner)


def tool_is_there(tool: Tool, runner: Runner) -> Finding:
    """The tool is on PATH or in this environment, and prints a version."""
    check = tool.name
    program = find_program(tool.name) or find_beside_python(tool.name)
    if program is None:
        if tool.required:
            return failed(check, "not on PATH", cause=tool.why, next_step=tool.install)
        return not_tried(check, f"not on PATH; {tool.why}", next_step=tool.install, deciding=False)
    outcome = runner.run(
        Command(argv=(str(program), *tool.version), title=f"ask {tool.name} for its version", timeout=30.0)
    )
    # The first thing that looks like a version: 2.43.0 of `git version 2.43.0`.
    version = re.search(r"\d+\.\d+(?:\.\d+)?[\w.+-]*", outcome.stdout or outcome.stderr)
    if not outcome.ok or version is None:
        return failed(check, f"{program} does not print its version (exit {outcome.exit_code})", next_step=tool.install)
    return passed(check, f"{version[0]}, {program}")


def run_probe(check: str, probe: Callable[[], Finding]) -> Finding:
    """Run a probe and return its finding; an error becomes a failed row with its next step."""
    try:
        return probe()
    except OpsError as error:
        return row_of_error(check, error)


def row_of_error(check: str, error: OpsError) -> Finding:
    cause = f"expected: {error.expected}" if error.expected else ""
    return failed(check, error.summary, cause=cause, next_step=error.next_step)


# --- the target, from its file to its cluster --------------------------------------------------------------------


def target_rows(
    run: RunContext,
    services: Sequence[Service],
    *,
    load: Callable[[], Target],
    lab_is_up: Callable[[], bool],
    open_on: Callable[[Target], Session],
) -> Iterator[Finding]:
    """From the file to the stacks; a row whose precondition is broken is left out, or fails with the same cause.

    `load` reads the chosen target, `open_on` opens a session on it; both may raise an `OpsError`.
    """
    try:
        target = load()
    except OpsError as error:
        # Any other target that is not found may be called like the lab: `homelab`.
        if isinstance(error, NotFound) and error.next_step == LAB_UP:
            why = "lab, which is not running; the rows below need it"
            yield not_tried("target", why, next_step=LAB_UP, deciding=False)
        else:
            yield row_of_error("target", error)
        return
    if target.ephemeral and not lab_is_up():
        yield not_tried("target", "lab, which is stopped; the rows below need it", next_step=LAB_UP, deciding=False)
        return
    yield passed("target", f"{target.name}: stack {target.stack} on {target.shown_backend}")
    yield run_probe("passphrase", lambda: passphrase_is_readable(target, services))
    yield backend_is_there(target)
    if target.is_pinned:
        yield passed("pinned", target.cluster_uid)
    else:
        yield failed("pinned", "no cluster_uid", next_step=f"./inv --target {target.name} target.pin")
    with contextlib.ExitStack() as closing:
        try:
            context, kubectl = closing.enter_context(open_kubectl(target, run))
        except OpsError as error:
            yield row_of_error("cluster", error)
            return
        cluster = run_probe("cluster", lambda: cluster_answers(target, context, kubectl, run.runner))
        yield cluster
        if cluster.ok:
            yield run_probe("kubectl", lambda: kubectl_fits(kubectl, run.runner))
        else:
            yield not_tried("kubectl", "needs the cluster")
    try:
        session = open_on(target)
    except OpsError as error:
        yield row_of_error("pulumi", error)
        return
    yield from pulumi_rows(session)


def passphrase_is_readable(target: Target, services: Sequence[Service]) -> Finding:
    """The passphrase can be read, if a stack needs one. Those whose key is in a service such as `awskms` need none."""
    files = (ROOT / "pulumi" / service.folder / f"Pulumi.{target.stack}.yaml" for service in services)
    with_scheme = (secrets_provider_of(file).partition("://") for file in files)
    key_services = sorted({scheme for scheme, found, _ in with_scheme if found})
    path = target.passphrase_file
    if path is None:
        if not target.has_diy_backend:
            return not_tried("passphrase", "the Pulumi Cloud keeps the keys", deciding=False)
        if "PULUMI_CONFIG_PASSPHRASE" in os.environ:
            return passed("passphrase", "PULUMI_CONFIG_PASSPHRASE")
        if key_services:
            why = f"none given; only stacks whose key is not in {', '.join(key_services)} need one"
            return not_tried("passphrase", why, deciding=False)
        step = "add passphrase_file to the target, or export PULUMI_CONFIG_PASSPHRASE"
        return failed("passphrase", "neither passphrase_file nor PULUMI_CONFIG_PASSPHRASE", next_step=step)
    try:
        mode = path.stat().st_mode
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        step = "write the passphrase of the stacks into it, mode 0600"
        return failed("passphrase", f"{path} cannot be read ({type(error).__name__})", next_step=step)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return failed("passphrase", f"{path} can be read by others", next_step=f"chmod 600 {path}")
    return passed("passphrase", str(path))


def backend_is_there(target: Target) -> Finding:
    folder = target.file_backend
    if folder is None:
        return not_tried("backend", f"{target.shown_backend}: see the row login", deciding=False)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return failed("backend", f"{folder} is not a folder that can be written to", next_step=f"mkdir -p {folder}")
    return passed("backend", str(folder))


def cluster_answers(target: Target, context: KubeContext, kubectl: Kubectl, runner: Runner) -> Finding:
    uid = identify(target, context, kubectl, runner)
    if target.is_pinned and uid != target.cluster_uid:
        evidence = f"{context.server} is UID {uid}, not the pinned one"
        return failed("cluster", evidence, next_step=f"./inv --target {target.name} target.show")
    return passed("cluster", f"{context.cluster_name} at {context.server}")


def kubectl_fits(kubectl: Kubectl, runner: Runner) -> Finding:
    versions = read_versions(ask(runner, kubectl.version()))
    evidence = f"{versions.client or '?'}, server {versions.server or '?'}, {kubectl.program}"
    if versions.skew is None or versions.skew > 1:
        # Kubernetes supports a kubectl within one minor version of the API server.
        return failed("kubectl", f"{evidence}: more than one minor version apart", next_step=INSTALL["kubectl"])
    return passed("kubectl", evidence)


def describe_target(target: Target, services: Sequence[Service]) -> list[tuple[str, str]]:
    """The facts of the target's entry, as rows (what, value) of a table."""
    return [
        ("stack", target.stack),
        ("backend", target.shown_backend),
        ("organization", target.organization),
        ("kubeconfig", str(target.kubeconfig)),
        ("context", target.context),
        ("pinned cluster", target.cluster_uid or f"none yet: ./inv --target {target.name} target.pin"),
        ("passphrase", run_probe("passphrase", lambda: passphrase_is_readable(target, services)).evidence),
        ("throw-away", "yes" if target.ephemeral else "no"),
    ]


def describe_cluster(target: Target, run: RunContext) -> str:
    """The cluster behind the target's context, and whether it is the pinned one.

    It is asked once, as each question starts the kubeconfig's login plug-in.
    """
    try:
        with open_kubectl(target, run) as (context, kubectl):
            uid = identify(target, context, kubectl, run.runner)
    except OpsError as error:
        return f"not known: {error.summary}"
    same = "the pinned one" if uid == target.cluster_uid else "NOT the pinned one"
    return f"{context.cluster_name} at {context.server}, UID {uid}, {same if target.is_pinned else 'not pinned'}"


def find_cluster(target: Target, run: RunContext) -> tuple[KubeContext, str, str]:
    """The target's context, the UID of the cluster behind it, and its nodes. Raises `Refused` without a UID."""
    with open_kubectl(target, run) as (context, kubectl):
        uid = identify(target, context, kubectl, run.runner)
        nodes = sorted(metadata(node)[1] for node in items(ask(run.runner, kubectl.get("nodes"))))
    return context, uid, ", ".join(nodes) or "none"


# --- pulumi on the target ----------------------------------------------------------------------------------------


def pulumi_rows(session: Session) -> Iterator[Finding]:
    """Pulumi, its plugins and login, helm's releases, and a row for each service's stack."""
    found = session.tools
    evidence = f"{found.pulumi_version}, {found.pulumi}"
    if has_language_host(Path(found.pulumi)):
        yield passed("pulumi", evidence)
    else:
        cause = f"{LANGUAGE_HOST}, which runs the programs, is neither beside it nor on PATH nor an installed plugin"
        yield failed("pulumi", evidence, cause=cause, next_step=INSTALL["pulumi"])
    folder = user_home(os.environ) / "plugins"
    for plugin in wanted_plugins():
        row = plugin_is_there(plugin, folder, {**os.environ, **session.env})
        yield replace(row, next_step="./inv lab.up") if session.target.ephemeral and not row.ok else row
    yield run_probe("esc", lambda: esc_is_there(session))
    login = run_probe("login", lambda: is_logged_in(session))
    yield login
    yield run_probe("helm releases", lambda: no_release_is_stuck(session))
    if not login.ok:
        yield not_tried("stacks", "needs the login")
        return
    for service in session.services:
        yield run_probe(f"stack of {service.name}", lambda service=service: stack_is_complete(session, service))  # type: ignore[misc]


def plugin_is_there(plugin: Plugin, folder: Path, environ: Mapping[str, str]) -> Finding:
    """Pulumi finds the plugin. A missing plugin is not a failure when pulumi may download it."""
    check = f"plugin {plugin.name}"
    place = place_of(plugin, folder, environ)
    if place:
        return passed(check, place)
    evidence = f"v{plugin.version} is neither on PATH nor in {folder}"
    if is_on(NO_DOWNLOADS, environ):
        cause = f"{NO_DOWNLOADS} keeps pulumi from downloading it"
        return failed(check, evidence, cause=cause, next_step=plugin.install)
    why = f"{evidence}; pulumi downloads it at its next run, and tries to at each one while there is no network"
    return not_tried(check, why, next_step=plugin.install, deciding=False)


def esc_is_there(session: Session) -> Finding:
    if session.target.has_diy_backend:
        why = f"{session.target.shown_backend} does not support Pulumi ESC; only the Pulumi Cloud does"
        return not_tried("esc", why, deciding=False)
    found = session.esc
    return passed("esc", f"{found.program} env, used instead of esc" if found.is_pulumi else found.program)


def is_logged_in(session: Session) -> Finding:
    outcome = session.runner.run(pulumi.whoami(session.tools.pulumi, session.env))
    if not outcome.ok:
        lines = [line for line in outcome.shown_stderr.splitlines() if line.strip()]
        step = f"pulumi login {session.target.shown_backend}, or export PULUMI_ACCESS_TOKEN"
        return failed("login", lines[-1] if lines else f"exit {outcome.exit_code}", next_step=step)
    user, url = pulumi.read_login(outcome.stdout)
    return passed("login", f"{user} at {url or session.target.shown_backend}")


def no_release_is_stuck(session: Session) -> Finding:
    """A release stuck in `pending-*` blocks the next installation, and `pulumi cancel` does not help there."""
    if not session.tools.helm:
        return not_tried("helm releases", "no helm", deciding=False)
    releases = read_releases(session.runner.run(list_releases(session.tools.helm, session.kubectl.kubeconfig)))
    stuck = [release for release in releases if release.is_stuck]
    if stuck:
        evidence = ", ".join(f"{release.namespace}/{release.name} is {release.status}" for release in stuck)
        step = f"helm -n {stuck[0].namespace} history {stuck[0].name}, then helm rollback to its last good revision"
        return failed("helm releases", evidence, cause="an interrupted installation", next_step=step)
    return passed("helm releases", f"{len(releases)}, none stuck")


def stack_is_complete(session: Session, service: Service) -> Finding:
    """The stack exists and its required secrets are set; the lab makes both by itself."""
    check = f"stack of {service.name}"
    inv = f"./inv --target {session.target.name}"
    stack = session.stack(service)
    if not has_stack(session, stack):
        if session.target.ephemeral:
            return not_tried(check, "none yet; the next preview or deploy creates it", deciding=False)
        return failed(check, f"no stack {stack.reference}", next_step=f"{inv} stack.init {service.name}")
    file = read_settings(session, stack)
    missing = missing_keys(file, service.project_name, (setting.key for setting in service.secrets))
    if missing and not file.environment:
        key = missing[0].removeprefix(f"{service.project_name}:")
        step = f"{inv} secrets.set {service.name} {key}"
        return failed(check, f"no value for {', '.join(missing)}", next_step=step)
    return passed(check, stack.reference)
