"""helm: argv builders and parsers. Reads only; charts reach a cluster through Pulumi."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runbooks.lib.command import Command, Outcome
from runbooks.lib.errors import ToolFailed

READ_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Release:
    """One helm release, as `helm list` tells it."""

    name: str
    namespace: str
    status: str
    chart: str

    @property
    def is_stuck(self) -> bool:
        """Left in `pending-*` by an interruption; `pulumi cancel` does not help there."""
        return self.status.startswith("pending")


@dataclass(frozen=True, kw_only=True)
class Helm:
    """Builds helm commands against one kubeconfig."""

    program: str
    kubeconfig: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def releases(self) -> Command:
        """Every release in every namespace, whatever its state. `helm.v4.Chart` makes none."""
        argv = (self.program, "list", "--all-namespaces", "--all", "--output=json", f"--kubeconfig={self.kubeconfig}")
        return Command(argv=argv, title="list the helm releases", env=self.env, timeout=READ_TIMEOUT)


def version(program: str) -> Command:
    return Command(argv=(program, "version", "--short"), title="ask helm for its version", timeout=READ_TIMEOUT)


def read_version(outcome: Outcome) -> str:
    """`v3.18.4` of `v3.18.4+gd80839c`; empty when helm said something else."""
    found = re.search(r"v\d+\.\d+\.\d+[\w.-]*", outcome.stdout) if outcome.ok else None
    return found[0] if found else ""


def read_releases(outcome: Outcome) -> list[Release]:
    """Raises `ToolFailed` when helm failed or answered with something that is no list of releases."""
    if not outcome.ok:
        raise ToolFailed(f"{outcome.command.title}: exit {outcome.exit_code}")
    try:
        entries = json.loads(outcome.stdout or "[]") or []
        return [
            Release(
                name=str(entry["name"]),
                namespace=str(entry["namespace"]),
                status=str(entry["status"]),
                chart=str(entry.get("chart", "")),
            )
            for entry in entries
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolFailed(f"{outcome.command.title}: the answer is no list of releases") from error
