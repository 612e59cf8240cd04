"""Charts, with helm: what one puts in the cluster, which hooks pulumi leaves out, whether the pins hold."""

from __future__ import annotations

from typing import Any

from invoke import task


@task(
    positional=["service"],
    help={"service": "The service whose charts are rendered.", "text": "Print the objects themselves too."},
)
def render(c: Any, service: str, text: bool = False) -> None:
    """Show what a service's charts put in the cluster, and the hooks that pulumi leaves out. Changes nothing.

    Example: ./inv charts.render tailscale --text
    """
    from runbooks.core.errors import NotFound
    from runbooks.run import add_helm, open_session
    from runbooks.services import find_service
    from runbooks.stacks import chart_rendering

    wanted = find_service(service)
    with open_session(c, "charts.render") as opened:
        session = add_helm(opened)
        charts = chart_rendering.charts_of(session, wanted)
        if not charts:
            raise NotFound(
                f"{wanted.name} uses no chart", expected="a service whose program asks for one", next_step="./inv graph"
            )
        for chart in charts:
            chart_rendering.report(session, chart, text=text)


@task
def check(c: Any) -> None:
    """Check that every chart's pin exists and fits the cluster, and name hooks that pulumi drops. Changes nothing."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import Verdict
    from runbooks.core.parallel import side_by_side
    from runbooks.run import add_helm, open_session
    from runbooks.stacks import chart_rendering

    with open_session(c, "charts.check") as opened:
        session = add_helm(opened)
        with session.reporter.step("look at every chart"):
            looked = side_by_side(
                session.reporter, session.services, lambda service: chart_rendering.check(session, service)
            )
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
