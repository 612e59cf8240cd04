"""Charts, with helm: what one puts in the cluster, which hooks pulumi leaves out, whether the pins hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runbooks.core.findings import Finding
    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session
    from runbooks.tools.helm import Chart, Manifest


@task(
    positional=["service"],
    help={"service": "The service whose charts are rendered.", "text": "Print the objects themselves too."},
)
def render(c: Any, service: str, text: bool = False) -> None:
    """Show what a service's charts put in the cluster, and the hooks that pulumi leaves out. Changes nothing."""
    from runbooks.core.errors import NotFound
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks import chart_rendering

    wanted = find_service(service)
    with open_session(c, "charts.render") as opened:
        session = with_helm(opened)
        charts = chart_rendering.charts_of(session, wanted)
        if not charts:
            raise NotFound(
                f"{wanted.name} uses no chart", expected="a service whose program asks for one", next_step="./inv graph"
            )
        for chart in charts:
            report_chart(session, chart, chart_rendering.render(session, chart), text=text)


def with_helm(session: Session) -> Session:
    """The session with a helm: the one on PATH; the lab builds one where none does (minutes, once for a user).

    Raises `ToolFailed` with the install command when there is none.
    """
    from lab import toolchain
    from runbooks.core.errors import ToolFailed
    from runbooks.core.search_path import INSTALL

    if not session.target.ephemeral:
        if not session.tools.helm:
            raise ToolFailed("helm is not on PATH", expected="helm, which renders charts", next_step=INSTALL["helm"])
        return session
    with session.reporter.step("find helm") as progress:
        found = toolchain.resolve(progress.note, ["helm"])["helm"]
    return replace(session, tools=replace(session.tools, helm=str(found.program)))


def report_chart(session: Session, chart: Chart, manifests: Sequence[Manifest], *, text: bool) -> None:
    """One table of what is there, and one line for each hook that is not."""
    there = [manifest for manifest in manifests if not manifest.hooks]
    rows = [(manifest.kind, manifest.name, manifest.namespace or "-", manifest.source) for manifest in there]
    title = f"{chart.release}: chart {chart.name} {chart.version}".rstrip()
    session.reporter.table(title, ("kind", "name", "namespace", "template"), rows)
    for manifest in manifests:
        if manifest.hooks:
            session.reporter.line(f"left out by pulumi: {manifest.description}")
        session.reporter.event(
            "object", chart=chart.name, type=manifest.kind, name=manifest.name, hooks=list(manifest.hooks)
        )
    for manifest in there if text else ():
        session.reporter.quote(f"---\n{manifest.text}")


@task
def check(c: Any) -> None:
    """Check every chart: its pin exists, it fits the cluster, the hooks that pulumi drops by name. Changes nothing."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import Verdict
    from runbooks.core.parallel import side_by_side
    from runbooks.run import open_session
    from runbooks.services import SERVICES

    with open_session(c, "charts.check") as opened:
        session = with_helm(opened)
        with session.reporter.step("look at every chart"):
            looked = side_by_side(session.reporter, SERVICES, lambda service: look_at(session, service))
        findings = [finding for each in looked for finding in each]
        for finding in findings:
            session.reporter.finding(finding)
        verdict = Verdict(findings=tuple(findings))
        session.reporter.line(verdict.summary())
        if verdict.failures:
            problem = verdict.failures[0]
            raise VerificationFailed(
                f"{len(verdict.failures)} checks of charts failed; first: {problem.subject}: {problem.check}",
                expected="pins that exist and fit the cluster",
                next_step=problem.next_step or "correct charts.yaml",
            )


def look_at(session: Session, service: Service) -> list[Finding]:
    from runbooks.stacks import chart_rendering

    found = []
    for chart in chart_rendering.charts_of(session, service, published=True):
        about = f"{service.name}: {chart.name} {chart.version}".rstrip()
        found += [replace(finding, subject=about) for finding in chart_rendering.check(session, service, chart)]
    return found
