"""From a service to its charts' objects: the program says which chart with which values, helm renders them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import OutOfTime, ToolFailed, Usage
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.core.runner import last_lines
from runbooks.stacks import environments
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import helm
from runbooks.tools.helm import Chart, Manifest, Published
from runbooks.tools.kubectl import ask, read_versions
from runbooks.tools.stack_config import StackFile, full_key

PIN_EXISTS = "its pin in charts.yaml is published"
FITS = "it renders for the cluster's version"
HOOKS = "what pulumi leaves out of it"
SOURCE = "charts:source"
USES_CHARTS = "lib.charts"
PLACEHOLDER = "0123456789abcdef" * 4
"""Stands for every secret: charts get the names of Secrets, never values, so it is in nothing that is rendered."""
PROGRAM_TIMEOUT = 120.0


def charts_of(session: Session, service: Service, *, published: bool = False) -> list[Chart]:
    """The charts the service's program asks for, with its settings on this target.

    `published` looks at the place that charts.yaml names, whatever `charts:source` says. Raises `Usage` with what the
    program says when its settings do not do.
    """
    folder = session.root / "pulumi" / service.folder
    if not any(USES_CHARTS in path.read_text(encoding="utf-8") for path in folder.glob("*.py")):
        return []
    path = environments.settings_of(session, service)
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
            f"the program of {service.name} cannot say which charts it uses:\n  " + "\n  ".join(last_lines(outcome)),
            expected="settings that its program takes",
            next_step=f"./inv preview.{service.name} --only",
        )
    return [Chart(**entry) for entry in json.loads(outcome.stdout)]


def settings_for(service: Service, file: StackFile) -> dict[str, str]:
    """The stack's settings as a program gets them; secrets, and whatever else is missing, are stood in for."""
    project = partial(full_key, service.project_name)
    stood_in = {project(key): "placeholder.example.com" for key in service.required}
    stood_in |= {project(setting.key): PLACEHOLDER for setting in service.secrets}
    if service.reference:
        stood_in[project(service.reference.setting)] = "organization/producer/stack"
    return stood_in | {str(key): _text(value) for key, value in file.config.items()}


def _text(value: Any) -> str:
    if isinstance(value, Mapping) and "secure" in value:
        return PLACEHOLDER
    return value if isinstance(value, str) else json.dumps(value)


def outputs_for(service: Service) -> list[str]:
    return [name for names in service.reference.outputs for name in names.split("|")] if service.reference else []


def rendered(session: Session, chart: Chart) -> tuple[Manifest, ...]:
    """Every object of the chart, hooks included. Raises `ToolFailed` with what helm says."""
    outcome = render(session, chart)
    if not outcome.ok:
        raise ToolFailed(
            f"helm could not render {chart.name}:\n  " + "\n  ".join(last_lines(outcome)),
            expected="the chart where charts.yaml or charts:source says, and values it takes",
            next_step="./inv charts.check",
        )
    return helm.read_manifests(outcome.stdout)


def render(session: Session, chart: Chart) -> Outcome:
    versions = read_versions(ask(session.runner, session.kubectl.version()))
    return session.runner.run(helm.template(session.tools.helm, chart, kube_version=versions.server))


# Checks


def checked(session: Session, service: Service, chart: Chart) -> list[Finding]:
    """Whether the pin exists, whether the chart fits the cluster, and which hooks pulumi will drop."""
    pin = pin_exists(session, chart)
    usable = chart if pin.ok else local_copy(session, service, chart)
    if usable is None:
        why = "the chart is not at hand"
        return [pin, not_tried(FITS, why, deciding=False), not_tried(HOOKS, why, deciding=False)]
    outcome = render(session, usable)
    misfit = helm.read_misfit(outcome)
    if misfit:
        step = f"pin a version of {chart.name} for this cluster in charts.yaml, or upgrade the cluster"
        return [pin, failed(FITS, misfit, next_step=step)]
    if not outcome.ok:
        told = (last_lines(outcome) or ["helm said nothing"])[0]
        return [pin, failed(FITS, told, next_step=f"./inv charts.render {service.name}")]
    manifests = helm.read_manifests(outcome.stdout)
    source = "" if usable is chart else f", from {usable.chart}"
    return [pin, passed(FITS, f"{len(manifests)} objects{source}"), hooks_of(manifests)]


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
    told = (last_lines(outcome) or ["helm said nothing"])[0]
    return failed(PIN_EXISTS, told, next_step=f"correct the version or place of {chart.name} in charts.yaml")


def local_copy(session: Session, service: Service, chart: Chart) -> Chart | None:
    """The chart in the folder that the stack's `charts:source` names, where it is one."""
    source = StackFile.read(session.stack(service).settings_file).config.get(SOURCE)
    if not isinstance(source, str) or "://" in source:
        return None
    folder = Path(session.root, source, chart.name)
    return replace(chart, chart=str(folder), version="", repository="") if (folder / "Chart.yaml").is_file() else None


def hooks_of(manifests: tuple[Manifest, ...]) -> Finding:
    """pulumi runs no hooks. Nothing is wrong with that as long as nobody relies on one."""
    dropped = [manifest.told for manifest in manifests if manifest.hooks]
    return passed(HOOKS, ", ".join(dropped) or "no hooks", deciding=False)
