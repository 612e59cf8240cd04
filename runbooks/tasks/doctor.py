"""What is missing on this machine and on the target, each with its fix. Works when everything is broken."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runbooks.core.findings import Finding
    from runbooks.stacks.service import Service
    from runbooks.stacks.session import RunContext, Session
    from runbooks.stacks.target import Target
    from runbooks.tools.plugins import Plugin

COLUMNS = ("what", "state", "found", "fix")


@task
def doctor(c: Any) -> None:
    """Check tools, logins, target, cluster, stacks and secrets; each failing row has its fix. Changes nothing."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import Verdict
    from runbooks.run import open_run

    with open_run(c, "doctor") as run:
        findings = [*_tools(run), *_target(c, run)]
        run.reporter.table("Doctor", COLUMNS, [_row(finding) for finding in findings])
        for finding in findings:
            run.reporter.event("row", what=finding.check, state=finding.state.value, found=finding.evidence)
        verdict = Verdict(findings=tuple(findings))
        run.reporter.line(verdict.summary())
        if verdict.failures:
            first = verdict.failures[0]
            raise VerificationFailed(
                f"{len(verdict.failures)} of {len(findings)} checks failed; first: {first.check}",
                expected="every row ok",
                next_step=first.next_step,
            )


def _row(finding: Finding) -> tuple[str, str, str, str]:
    found = ". ".join(part for part in (finding.evidence, finding.cause) if part)
    return finding.check, finding.state.value, found, finding.next_step


# --- this machine ------------------------------------------------------------------------------------------------


def _tools(run: RunContext) -> Iterator[Finding]:
    from runbooks.core.install import INSTALL
    from runbooks.tools.diagnosis import Tool, look, tool_is_there

    tools = (
        Tool(name="uv", version=("--version",), install="./inv installs it", why="syncs the Python environment"),
        Tool(name="git", version=("--version",), install="install git", why="rollback and pull requests need it"),
        Tool(
            name="helm",
            version=("version", "--short"),
            install=INSTALL["helm"],
            required=False,
            why="charts.* need it; the lab builds one when they are asked for",
        ),
        Tool(name="rg", version=("--version",), install="install ripgrep", required=False, why="only people use it"),
        Tool(
            name="modal",
            version=("--version",),
            install="uv sync --group modal",
            required=False,
            why="only modal.deploy needs it",
        ),
    )
    for tool in tools:
        yield look(tool.name, lambda tool=tool: tool_is_there(tool, run.runner))  # type: ignore[misc]


# --- the target --------------------------------------------------------------------------------------------------


def _target(c: Any, run: RunContext) -> Iterator[Finding]:
    """Row by row, from the file to the secrets; what a broken row makes impossible is not tried."""
    from runbooks.core.errors import NotFound, OpsError
    from runbooks.core.files import ROOT
    from runbooks.core.findings import failed, not_tried, passed
    from runbooks.stacks.target import LAB, chosen_name, load_target, load_targets

    try:
        name = chosen_name(c.config.ops.target or None, os.environ, load_targets(ROOT))
        target = load_target(name, root=ROOT, state_dir=run.state_dir)
    except NotFound as error:
        if LAB in error.summary:
            yield not_tried(
                "target", "lab, which is not running; the rows below need it", next_step="./inv lab.up", deciding=False
            )
        else:
            yield failed("target", error.summary, next_step=error.next_step)
        return
    except OpsError as error:
        yield failed("target", error.summary, cause=f"expected: {error.expected}", next_step=error.next_step)
        return
    yield passed("target", f"{target.name}: stack {target.stack} on {target.shown_backend}")
    yield from _reach(target, run)


def _reach(target: Target, run: RunContext) -> Iterator[Finding]:
    from runbooks.tools.diagnosis import look

    yield look("passphrase", lambda: passphrase_is_readable(target))
    yield look("backend", lambda: backend_is_there(target))
    yield look("pinned", lambda: is_pinned(target))
    yield look("cluster", lambda: _cluster_answers(target, run))
    yield look("kubectl", lambda: _kubectl_fits(target, run))
    yield from _pulumi_rows(target, run)


def passphrase_is_readable(target: Target) -> Finding:
    from runbooks.core.findings import failed, not_tried, passed

    path = target.passphrase_file
    if path is None:
        if not target.has_diy_backend:
            return not_tried("passphrase", "the Pulumi Cloud keeps the keys", deciding=False)
        if "PULUMI_CONFIG_PASSPHRASE" in os.environ:
            return passed("passphrase", "PULUMI_CONFIG_PASSPHRASE")
        elsewhere = key_services(target)
        if elsewhere:
            told = f"none given; only stacks whose key is not with {', '.join(elsewhere)} need one"
            return not_tried("passphrase", told, deciding=False)
        step = "add passphrase_file to the target, or export PULUMI_CONFIG_PASSPHRASE"
        return failed("passphrase", "neither passphrase_file nor PULUMI_CONFIG_PASSPHRASE", next_step=step)
    try:
        mode = path.stat().st_mode
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        step = "write the passphrase the stacks were made with into it, mode 0600"
        return failed("passphrase", f"{path} cannot be read ({type(error).__name__})", next_step=step)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return failed("passphrase", f"{path} can be read by others", next_step=f"chmod 600 {path}")
    return passed("passphrase", str(path))


def key_services(target: Target) -> list[str]:
    """The key services that the target's stack settings name, such as `awskms`."""
    from runbooks.core.files import ROOT
    from runbooks.services import SERVICES
    from runbooks.tools.stack_config import secrets_provider_of

    files = (ROOT / "pulumi" / service.folder / f"Pulumi.{target.stack}.yaml" for service in SERVICES)
    named = (secrets_provider_of(file).partition("://") for file in files)
    return sorted({scheme for scheme, found, _ in named if found})


def backend_is_there(target: Target) -> Finding:
    from runbooks.core.findings import failed, not_tried, passed

    folder = target.file_backend
    if folder is None:
        return not_tried("backend", f"{target.shown_backend}: see the row login", deciding=False)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return failed("backend", f"{folder} is no folder that can be written to", next_step=f"mkdir -p {folder}")
    return passed("backend", str(folder))


def is_pinned(target: Target) -> Finding:
    from runbooks.core.findings import failed, passed

    if not target.is_pinned:
        return failed("pinned", "no cluster_uid", next_step=f"./inv --target {target.name} target.pin")
    return passed("pinned", target.cluster_uid)


def _cluster_answers(target: Target, run: RunContext) -> Finding:
    from runbooks.core.findings import failed, passed
    from runbooks.run import kubectl_for
    from runbooks.stacks.guard import identify, private_kubeconfig

    context, path = private_kubeconfig(target, run.journal.folder)
    try:
        run.masker.register_all(context.secrets())
        cluster = identify(target, context, kubectl_for(target, context, path, run.state_dir), run.runner)
    finally:
        path.unlink(missing_ok=True)
    if target.is_pinned and cluster.uid != target.cluster_uid:
        told = f"{cluster.server} is UID {cluster.uid}, not the pinned one"
        return failed("cluster", told, next_step=f"./inv --target {target.name} target.show")
    return passed("cluster", f"{cluster.name} at {cluster.server}")


def _kubectl_fits(target: Target, run: RunContext) -> Finding:
    from runbooks.core.findings import failed, passed
    from runbooks.core.install import INSTALL
    from runbooks.run import kubectl_for
    from runbooks.stacks.guard import private_kubeconfig
    from runbooks.tools.kubectl import ask, read_versions

    context, path = private_kubeconfig(target, run.journal.folder)
    try:
        kubectl = kubectl_for(target, context, path, run.state_dir)
        versions = read_versions(ask(run.runner, kubectl.version()))
    finally:
        path.unlink(missing_ok=True)
    told = f"{versions.client or '?'}, server {versions.server or '?'}, {kubectl.program}"
    if versions.skew is None or versions.skew > 1:
        return failed("kubectl", f"{told}: more than one minor version apart", next_step=INSTALL["kubectl"])
    return passed("kubectl", told)


# --- pulumi on the target ----------------------------------------------------------------------------------------


def _pulumi_rows(target: Target, run: RunContext) -> Iterator[Finding]:
    import contextlib

    from runbooks.core.errors import OpsError
    from runbooks.core.findings import failed
    from runbooks.run import build_session
    from runbooks.services import SERVICES
    from runbooks.tools.diagnosis import look

    with contextlib.ExitStack() as closing:
        try:
            session = build_session(target, run, closing)
        except OpsError as error:
            yield failed("pulumi", error.summary, cause=error.expected, next_step=error.next_step)
            return
        yield _pulumi_version(session)
        yield from _plugins(session)
        yield look("esc", lambda: _esc(session))
        yield look("login", lambda: _login(session))
        yield look("helm releases", lambda: _releases(session))
        for service in SERVICES:
            yield look(f"stack of {service.name}", lambda service=service: _stack(session, service))  # type: ignore[misc]


def _pulumi_version(session: Session) -> Finding:
    from runbooks.core.findings import failed, passed
    from runbooks.core.install import INSTALL
    from runbooks.tools.diagnosis import FIRST_WITH_EXIT_CODES, is_at_least
    from runbooks.tools.pulumi import read_version

    tools = session.tools
    told = f"{tools.pulumi_version}, {tools.pulumi}"
    if not is_at_least(read_version(tools.pulumi_version), FIRST_WITH_EXIT_CODES):
        cause = "its exit codes do not tell failures apart: 3.227 is the first whose do"
        return failed("pulumi", told, cause=cause, next_step=INSTALL["pulumi"])
    return passed("pulumi", told)


def _plugins(session: Session) -> Iterator[Finding]:
    from dataclasses import replace

    from runbooks.tools.plugins import wanted_plugins
    from runbooks.tools.pulumi_home import user_home

    folder = user_home(os.environ) / "plugins"
    for plugin in wanted_plugins():
        found = plugin_is_there(plugin, folder, {**os.environ, **session.env})
        yield replace(found, next_step="./inv lab.up") if session.target.ephemeral and not found.ok else found


def plugin_is_there(plugin: Plugin, folder: Path, environ: Mapping[str, str]) -> Finding:
    """Pulumi finds the plugin; where it may download it, its absence is no failure yet."""
    from runbooks.core.findings import failed, not_tried, passed
    from runbooks.tools.plugins import NO_DOWNLOADS, is_on, place_of

    check = f"plugin {plugin.name}"
    place = place_of(plugin, folder, environ)
    if place:
        return passed(check, place)
    told = f"v{plugin.version} is neither on PATH nor in {folder}"
    if is_on(NO_DOWNLOADS, environ):
        return failed(check, told, cause=f"{NO_DOWNLOADS} keeps pulumi from downloading it", next_step=plugin.install)
    why = f"{told}; pulumi downloads it at its next run, and tries to at each one while there is no network"
    return not_tried(check, why, next_step=plugin.install, deciding=False)


def _esc(session: Session) -> Finding:
    from runbooks.core.findings import not_tried, passed
    from runbooks.stacks import environments

    if session.target.has_diy_backend:
        told = f"{session.target.shown_backend} does not support Pulumi ESC; only the Pulumi Cloud does"
        return not_tried("esc", told, deciding=False)
    found = environments.esc_of(session)
    return passed("esc", f"{found.program} env, which takes its place" if found.is_pulumi else found.program)


def _login(session: Session) -> Finding:
    from runbooks.core.findings import failed, passed
    from runbooks.tools import pulumi

    outcome = session.runner.run(pulumi.whoami(session.tools.pulumi, session.env))
    if not outcome.ok:
        lines = [line for line in outcome.shown_stderr.splitlines() if line.strip()]
        step = f"pulumi login {session.target.shown_backend}, or export PULUMI_ACCESS_TOKEN"
        return failed("login", lines[-1] if lines else f"exit {outcome.exit_code}", next_step=step)
    login = pulumi.read_login(outcome.stdout)
    return passed("login", f"{login.user} at {login.url or session.target.shown_backend}")


def _releases(session: Session) -> Finding:
    """A release stuck in `pending-*` blocks whoever installs it next, and `pulumi cancel` does not help there."""
    from runbooks.core.findings import failed, not_tried, passed
    from runbooks.tools.helm import Helm, read_releases

    if not session.tools.helm:
        return not_tried("helm releases", "no helm", deciding=False)
    helm = Helm(program=session.tools.helm, kubeconfig=session.kubeconfig)
    releases = read_releases(session.runner.run(helm.releases()))
    stuck = [release for release in releases if release.is_stuck]
    if stuck:
        told = ", ".join(f"{release.namespace}/{release.name} is {release.status}" for release in stuck)
        cause = "an interrupted installation"
        step = f"helm -n {stuck[0].namespace} history {stuck[0].name}, then helm rollback to its last good revision"
        return failed("helm releases", told, cause=cause, next_step=step)
    return passed("helm releases", f"{len(releases)}, none stuck")


def _stack(session: Session, service: Service) -> Finding:
    """The stack exists and its required secrets are set; the lab makes both by itself."""
    from runbooks.core.findings import failed, not_tried, passed
    from runbooks.stacks.guard import read_settings
    from runbooks.stacks.states import has_stack
    from runbooks.tools.stack_config import missing_keys

    check = f"stack of {service.name}"
    target = f"./inv --target {session.target.name}"
    stack = session.stack(service)
    if not has_stack(session, stack):
        if session.target.ephemeral:
            return not_tried(check, "none yet; the next preview or deploy makes it", deciding=False)
        return failed(check, f"no stack {stack.reference}", next_step=f"{target} stack.init {service.name}")
    file = read_settings(session, stack)
    missing = missing_keys(file, service.project_name, (setting.key for setting in service.secrets))
    if missing and not file.environment:
        key = missing[0].removeprefix(f"{service.project_name}:")
        return failed(
            check, f"no value for {', '.join(missing)}", next_step=f"{target} secrets.set {service.name} {key}"
        )
    return passed(check, stack.reference)
