"""Helm charts by name: the version that `charts.yaml` pins, or the folder or mirror in the setting `charts:source`.

chart("cloudnative-pg", release="cnpg", namespace="cnpg-system", values={…}, opts=…)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi_kubernetes.helm.v4 import Chart, RepositoryOptsArgs

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "charts.yaml"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One entry of `charts.yaml`: a chart's version and where it is published (one of the two is empty)."""

    name: str
    version: str
    repository: str = ""
    oci: str = ""


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where helm finds a chart: a name within `repository`, or a complete OCI reference or path.

    A chart in a folder has no version here: the folder determines it.
    """

    chart: str
    version: str | None = None
    repository: str | None = None


def chart(
    name: str,
    *,
    release: str,
    namespace: str,
    values: Mapping[str, Any],
    without: Sequence[str] = (),
    opts: pulumi.ResourceOptions | None = None,
) -> Chart:
    """Install the chart `name` as `release`; the names of its objects may depend on the release.

    `namespace` and `values` must be known at preview time, else pulumi cannot preview the chart's objects: pass
    plain values and order with `depends_on`. Never put secrets into `values`; pass the name of a Secret.
    `without` lists default values of the chart to remove, as `part.key`: the SDK drops a None within `values`.
    """
    found = locate(read_pin(name), pulumi.Config("charts").get("source"))
    return Chart(
        release,
        chart=found.chart,
        version=found.version,
        repository_opts=RepositoryOptsArgs(repo=found.repository) if found.repository else None,
        namespace=namespace,
        values=dict(values),
        value_yaml_files=[pulumi.StringAsset(_nulls(path)) for path in without] or None,
        opts=opts,
    )


def _nulls(path: str) -> str:
    """Return YAML that deletes the value at `path`."""
    nested: Any = None
    for key in reversed(path.split(".")):
        nested = {key: nested}
    return yaml.safe_dump(nested)


def read_pin(name: str, path: Path = PINS) -> Pin:
    """Read the entry of `charts.yaml` for `name`. Raises `pulumi.RunError` if it is missing or incomplete."""
    pins = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if name not in pins:
        present = ", ".join(sorted(pins)) or "none"
        raise pulumi.RunError(
            f"{path.name} has no chart {name}; it has {present}. Add its repository and version there."
        )
    entry = pins[name]
    if not _is_complete(entry):
        found = f"has {', '.join(sorted(entry))}" if isinstance(entry, dict) else "is not a map"
        expected = "expected version and either repository or oci, both strings"
        raise pulumi.RunError(f"{path.name}: {name} {found}; {expected}")
    return Pin(name=name, **entry)


def _is_complete(entry: object) -> bool:
    """Whether the entry has the right keys, all of them strings: YAML would read an unquoted 1.10 as 1.1."""
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return False
    return set(entry) in ({"version", "repository"}, {"version", "oci"})


def locate(pin: Pin, source: str | None) -> Location:
    """Locate the chart: its published address, or `source`.

    `source` is a folder, absolute or relative to the repository's root, or the `https://` or `oci://` URL of a mirror.
    Raises `pulumi.RunError` if it is a folder without that chart.
    """
    if not source:
        return Location(chart=pin.oci or pin.name, version=pin.version, repository=pin.repository or None)
    if source.startswith("oci://"):
        return Location(chart=f"{source.rstrip('/')}/{pin.name}", version=pin.version)
    if source.startswith(("https://", "http://")):
        return Location(chart=pin.name, version=pin.version, repository=source)
    return Location(chart=str(_folder(pin, source)))


def _folder(pin: Pin, source: str) -> Path:
    folder = ROOT / source / pin.name
    if not (folder / "Chart.yaml").is_file():
        present = sorted(found.parent.name for found in (ROOT / source).glob("*/Chart.yaml"))
        origin = pin.oci or f"{pin.name} --repo {pin.repository}"
        raise pulumi.RunError(
            f"charts:source is {source!r}, and that folder does not have the chart {pin.name}\n"
            f"  found     {', '.join(present) or 'no chart'}\n"
            f"  expected  {folder / 'Chart.yaml'}\n"
            f"  next      helm pull {origin} --version {pin.version} --untar -d {ROOT / source}\n"
            f"  or        pulumi config rm charts:source   (takes the published chart)"
        )
    return folder
