"""Renders a service's charts: the program names charts and values, helm renders them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import OutOfTime, ToolFailed, Usage
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.core.runner import last_lines
from runbooks.stacks.fingerprint import charts_folder
from runbooks.stacks.preparation import config_file_of
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import helm
from runbooks.tools.helm import Chart, Published
from runbooks.tools.kubectl import ask, read_versions
from runbooks.tools.pulumi import as_text
from runbooks.tools.stack_config import StackFile, full_key

PIN_EXISTS = "its pin in charts.yaml is published"
FITS = "it renders for the cluster's version"
HOOKS = "the hooks that pulumi leaves out are known"
SOURCE = "charts:source"
USES_CHARTS = "lib.charts"
PLACEHOLDER = "0123456789abcdef" * 4
"""Replaces every secret. Charts get names of Secrets, never values, so no rendered object holds it."""
PROGRAM_TIMEOUT = 120.0


def charts_of(session: Session, service: Service, *, published: bool = False) -> list[Chart]:
    """The charts of the service's program, with its settings on this target.

    `published` takes the source in charts.yaml, whatever `charts:source` is. Raises `Usage` with the program's own
    error when its settings are not valid.
    """
    folder = session.root / "pulumi" / service.folder
    if not any(USES_CHARTS in path.read_text(encoding="utf-8") for path in folder.glob("*.py")):
        return []
    path = config_file_of(session, service)
    config = settings_for(service, StackFile.read(path))
    if published:
        config.pop(SOURCE, None)
    given = {
        "config": config,
        "secrets": sorted(key for key, value in config.items() if value == PLACEHOLDER),
        "outputs": outputs_for(service),
    }
    script = session.root / "scripts" / "chart_inputs.py"
    command = Command(
        argv=(sys.executable, str(script), str(folder)),
        title=f"ask the program of {service.name} for its charts",
        stdin=json.dumps(given).encode(),
        env={"PULUMI_BACKEND_URL": session.target.backend},
        timeout=PROGRAM_TIMEOUT,
    )
    outcome = session.runner.run(command)
    if not outcome.ok:
        raise Usage(
            f"the program of {service.name} does not name its charts:\n  " + "\n  ".join(last_lines(outcome)),
            expected="settings that its program accepts",
            next_step=f"./inv preview.{service.name} --only",
        )
    return [Chart(**entry) for entry in json.loads(outcome.stdout)]


def settings_for(service: Service, file: StackFile) -> dict[str, str]:
    """The stack config as a program gets it, with placeholders for secrets and for what is missing."""
    project = partial(full_key, service.project_name)
    settings = {project(key): "placeholder.example.com" for key in service.required}
    settings |= {project(setting.key): PLACEHOLDER for setting in service.secrets}
    if service.reference:
        settings[project(service.reference.setting)] = "organization/producer/stack"
    for key, value in file.config.items():
        is_secret = isinstance(value, Mapping) and "secure" in value
        settings[str(key)] = PLACEHOLDER if is_secret else as_text(value)
    return settings


def outputs_for(service: Service) -> list[str]:
    return [name for names in service.reference.outputs for name in names.split("|")] if service.reference else []


def report(session: Session, chart: Chart, *, text: bool) -> None:
    """Render the chart. Print one table of its objects, and one line for each hook that pulumi leaves out.

    Raises `ToolFailed` with helm's own error.
    """
    outcome = run_helm(session, chart)
    if not outcome.ok:
        raise ToolFailed(
            f"helm could not render {chart.name}:\n  " + "\n  ".join(last_lines(outcome)),
            expected="the chart at its source in charts.yaml or charts:source, and values that it accepts",
            next_step="./inv charts.check",
        )
    manifests = helm.read_manifests(outcome.stdout)
    there = [manifest for manifest in manifests if not manifest.hooks]
    rows = [(manifest.kind, manifest.name, manifest.namespace or "-", manifest.source) for manifest in there]
    title = f"{chart.release}: chart {chart.name} {chart.version}".rstrip()
    session.reporter.table(title, ("kind", "name", "namespace", "template"), rows)
    for each in manifests:
        if each.hooks:
            session.reporter.line(f"left out by pulumi: {each.description}")
        session.reporter.event("object", chart=chart.name, type=each.kind, name=each.name, hooks=list(each.hooks))
    for manifest in there if text else ():
        session.reporter.quote(f"---\n{manifest.text}")


def run_helm(session: Session, chart: Chart) -> Outcome:
    versions = read_versions(ask(session.runner, session.kubectl.version()))
    return session.runner.run(helm.template(session.tools.helm, chart, kube_version=versions.server))


# Checks


def check(session: Session, service: Service) -> list[Finding]:
    """The findings of all charts of the service, as charts.yaml pins them."""
    found = []
    for chart in charts_of(session, service, published=True):
        about = f"{service.name}: {chart.name} {chart.version}".rstrip()
        found += [replace(finding, subject=about) for finding in check_chart(session, service, chart)]
    return found


def check_chart(session: Session, service: Service, chart: Chart) -> list[Finding]:
    """Check that the pin exists and the chart fits the cluster, and name the hooks that pulumi will drop."""
    pin = pin_exists(session, chart)
    usable = chart if pin.ok else local_copy(session, service, chart)
    if usable is None:
        why = "the chart is not available here"
        return [pin, not_tried(FITS, why, deciding=False), not_tried(HOOKS, why, deciding=False)]
    outcome = run_helm(session, usable)
    if misfit := helm.read_misfit(outcome):
        step = f"pin a version of {chart.name} for this cluster in charts.yaml, or upgrade the cluster"
        return [pin, failed(FITS, misfit, next_step=step)]
    if not outcome.ok:
        return [pin, failed(FITS, _first_line(outcome), next_step=f"./inv charts.render {service.name}")]
    manifests = helm.read_manifests(outcome.stdout)
    source = "" if usable is chart else f", from {usable.chart}"
    dropped = ", ".join(manifest.description for manifest in manifests if manifest.hooks) or "no hooks"
    # pulumi runs no hooks, which is harmless unless a chart relies on one: so this check does not decide.
    return [pin, passed(FITS, f"{len(manifests)} objects{source}"), passed(HOOKS, dropped, deciding=False)]


def pin_exists(session: Session, chart: Chart) -> Finding:
    try:
        outcome = session.runner.run(helm.show_chart(session.tools.helm, chart))
    except OutOfTime:
        return not_tried(PIN_EXISTS, f"{chart.origin} did not answer in time", deciding=False)
    match helm.read_published(outcome):
        case Published.THERE:
            return passed(PIN_EXISTS, f"{chart.version} at {chart.repository or chart.chart}")
        case Published.UNREACHABLE:
            return not_tried(PIN_EXISTS, f"{chart.origin} cannot be reached from here", deciding=False)
    step = f"correct the version or place of {chart.name} in charts.yaml"
    return failed(PIN_EXISTS, _first_line(outcome), next_step=step)


def _first_line(outcome: Outcome) -> str:
    return (last_lines(outcome) or ["helm printed nothing"])[0]


def local_copy(session: Session, service: Service, chart: Chart) -> Chart | None:
    """The chart's copy in the stack's `charts:source`, if that is a folder."""
    source = charts_folder(session, session.stack(service))
    if source is None or not (source / chart.name / "Chart.yaml").is_file():
        return None
    return replace(chart, chart=str(source / chart.name), version="", repository="")
