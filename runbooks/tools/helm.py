"""helm: command lines and readers of its answers. They only read: charts reach a cluster through Pulumi."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import ToolFailed

READ_TIMEOUT = 60.0
PULL_TIMEOUT = 90.0


@dataclass(frozen=True, kw_only=True)
class Release:
    """One helm release of `helm list`."""

    name: str
    namespace: str
    status: str

    @property
    def is_stuck(self) -> bool:
        """Whether an interruption left it in `pending-*`; `pulumi cancel` does not help there."""
        return self.status.startswith("pending")


def list_releases(program: str, kubeconfig: Path) -> Command:
    """Lists every installed or stuck release of every namespace. `helm.v4.Chart` makes none."""
    # The states are named one by one: helm 3 lists stuck ones with `--all` only, which helm 4 no longer knows.
    states = ("--deployed", "--failed", "--pending", "--uninstalling")
    argv = (program, "list", "--all-namespaces", *states, "--output=json", f"--kubeconfig={kubeconfig}")
    return Command(argv=argv, title="list the helm releases", timeout=READ_TIMEOUT)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart as a program asks for it."""

    release: str
    chart: str
    """A name within `repository`, a complete OCI reference, or a folder."""
    namespace: str
    version: str = ""
    """Empty for a chart in a folder."""
    repository: str = ""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    skip_crds: bool = False

    @property
    def name(self) -> str:
        return self.chart.rstrip("/").rpartition("/")[2]

    @property
    def origin(self) -> str:
        """Where it is published, for display."""
        return f"{self.chart} of {self.repository}" if self.repository else self.chart

    @property
    def where(self) -> tuple[str, ...]:
        """Arguments that select the chart."""
        version = ("--version", self.version) if self.version else ()
        repository = ("--repo", self.repository) if self.repository else ()
        return (self.chart, *version, *repository)


def show_chart(program: str, chart: Chart) -> Command:
    """Prints the chart's Chart.yaml, which shows whether this version is published."""
    argv = (program, "show", "chart", *chart.where)
    return Command(argv=argv, title=f"look for chart {chart.name} {chart.version}".rstrip(), timeout=PULL_TIMEOUT)


def template(program: str, chart: Chart, *, kube_version: str = "") -> Command:
    """Renders it as pulumi does, but with its hooks; values are passed on standard input.

    helm refuses here a chart that does not fit `kube_version`.
    """
    options = [f"--namespace={chart.namespace}", "--values=-", "--skip-crds" if chart.skip_crds else "--include-crds"]
    options += [f"--kube-version={kube_version}"] if kube_version else []
    argv = (program, "template", chart.release, *chart.where, *options)
    stdin = json.dumps(plain_values(chart.values)).encode()
    return Command(argv=argv, title=f"render chart {chart.name}", stdin=stdin, timeout=PULL_TIMEOUT)


def plain_values(value: Any) -> Any:
    """Turn whole floats back into integers: pulumi's protocol has only floats."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One object that a chart renders."""

    kind: str
    name: str
    namespace: str = ""
    source: str = ""
    """The template it comes from."""
    hooks: tuple[str, ...] = ()
    """The hooks at which helm runs it. pulumi's Chart drops an object with any of them."""
    text: str = field(default="", repr=False)

    @property
    def description(self) -> str:
        """`Job x (pre-install, pre-upgrade)`."""
        return f"{self.kind} {self.name}" + (f" ({', '.join(self.hooks)})" if self.hooks else "")


SOURCE = re.compile(r"^# Source: (?P<path>.+)$", re.MULTILINE)
HOOK = "helm.sh/hook"


def read_manifests(text: str) -> tuple[Manifest, ...]:
    """The objects of `helm template`, in its order. Raises `ToolFailed` for invalid YAML.

    Scalars are read as texts: no more is needed of an object, and a chart may contain scalars that PyYAML cannot
    convert, like the bare `=` in the definitions of kube-prometheus-stack.
    """
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        return tuple(
            _manifest(document, part)
            for part in re.split(r"^---\s*$", text, flags=re.MULTILINE)
            for document in yaml.load_all(part, Loader=loader)
            if isinstance(document, dict) and document.get("kind")
        )
    except yaml.YAMLError as error:
        raise ToolFailed("helm rendered invalid YAML", expected="Kubernetes objects") from error


def _manifest(document: Mapping[str, Any], text: str) -> Manifest:
    metadata = document.get("metadata") or {}
    hooks = str((metadata.get("annotations") or {}).get(HOOK) or "")
    source = SOURCE.search(text)
    return Manifest(
        kind=str(document["kind"]),
        name=str(metadata.get("name") or ""),
        namespace=str(metadata.get("namespace") or ""),
        source=source["path"] if source else "",
        hooks=tuple(part.strip() for part in hooks.split(",") if part.strip()),
        text=text.strip("\n"),
    )


class Published(Enum):
    """Whether a chart is published."""

    THERE = "there"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    """Network, proxy or login failed, so nothing is known about the chart."""


UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection re(?:fused|set)|i/o timeout|deadline exceeded|TLS handshake|network is unreach"
    r"|proxyconnect|certificate signed by unknown|unexpected EOF|: EOF|50[234] |denied|unauthorized|[fF]orbidden|429"
)


def read_published(outcome: Outcome) -> Published:
    if outcome.ok:
        return Published.THERE
    return Published.UNREACHABLE if UNREACHABLE.search(outcome.stderr) else Published.ABSENT


NOT_FOR_CLUSTER = re.compile(
    r"chart requires kubeVersion: (?P<wanted>.*?) which is incompatible with Kubernetes (?P<is>\S+)"
)


def read_misfit(outcome: Outcome) -> str:
    """The Kubernetes version that the chart requires; empty if this cluster fits."""
    found = NOT_FOR_CLUSTER.search(outcome.stderr)
    return f"it requires Kubernetes {found['wanted']}, the cluster has {found['is']}" if found else ""


def read_releases(outcome: Outcome) -> list[Release]:
    """Raises `ToolFailed` if helm failed or printed anything but a list of releases."""
    if not outcome.ok:
        raise ToolFailed(f"{outcome.command.title}: exit {outcome.exit_code}")
    try:
        entries = json.loads(outcome.stdout or "[]") or []
        names = ("name", "namespace", "status")
        return [Release(**{name: str(entry[name]) for name in names}) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolFailed(f"{outcome.command.title}: the answer is not a list of releases") from error
