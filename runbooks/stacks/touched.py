"""Which services and which settings a set of changed files touches. Files are read; nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.core.errors import OpsError
from runbooks.core.yaml_file import parse
from runbooks.stacks.service import Service
from runbooks.tools.git import Changed

LIB = "pulumi/lib/"
CHARTS = "charts.yaml"
LOCK = "uv.lock"
PROJECT_FILE = "Pulumi.yaml"
ENVIRONMENT = re.compile(r"environments/(.+)\.ya?ml")
STACK_SETTINGS = re.compile(r"pulumi/.+/Pulumi\.[^/]+\.yaml")
OTHER_SETTINGS = re.compile(r"targets\.yaml|charts\.yaml|environments/.+\.ya?ml")
"""With keys; what has none (`pyproject.toml`, `uv.lock`) is named as a file."""
PACKAGES = frozenset({"pyproject.toml", LOCK})
IMPORT = re.compile(r"^\s*(?:from|import)\s+lib\.(\w+)", re.MULTILINE)
CHART = re.compile(r"\bchart\(\s*\"([^\"]+)\"")


@dataclass(frozen=True, kw_only=True)
class Touched:
    """A service that a change touches, and by which files."""

    service: Service
    files: tuple[str, ...]
    """Below the root, in the order they were given: its own, and what it shares with others."""
    is_new: bool
    """The base has no such project."""


def touched_services(
    root: Path, services: Sequence[Service], changed: Sequence[Changed], *, charts: Iterable[str] = ()
) -> list[Touched]:
    """Every service that one of the files belongs to or that uses it, in the order of `services`.

    `charts` are those whose pins in `charts.yaml` differ.
    """
    found, pins = [], frozenset(charts)
    for service in services:
        files = tuple(each.path for each in changed if _touches(root, service, each.path, pins))
        made = Changed(status="A", path=f"pulumi/{service.folder}/{PROJECT_FILE}")
        if files:
            found.append(Touched(service=service, files=files, is_new=made in changed))
    return found


def _touches(root: Path, service: Service, path: str, charts: frozenset[str]) -> bool:
    if path.startswith(f"pulumi/{service.folder}/") or path == LOCK:
        return True
    if path.startswith(LIB):
        return Path(path).stem in helpers_of(root, service)
    if path == CHARTS:
        return not charts.isdisjoint(charts_of(root, service))
    environment = ENVIRONMENT.fullmatch(path)
    return environment is not None and environment[1] == service.environment


def helpers_of(root: Path, service: Service) -> set[str]:
    """The modules of `pulumi/lib` that its program imports, directly or not."""
    found: set[str] = set()
    waiting = _imports(root / "pulumi" / service.folder, "*.py")
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting |= _imports(root / LIB, f"{name}.py")
    return found


def _imports(folder: Path, pattern: str) -> set[str]:
    return {name for path in folder.glob(pattern) for name in IMPORT.findall(path.read_text(encoding="utf-8"))}


def charts_of(root: Path, service: Service) -> set[str]:
    """The charts its program asks for, by their names in `charts.yaml`."""
    folder = root / "pulumi" / service.folder
    return {name for path in folder.glob("*.py") for name in CHART.findall(path.read_text(encoding="utf-8"))}


def gone_projects(changed: Iterable[Changed]) -> list[str]:
    """Folders whose project is deleted."""
    suffix = f"/{PROJECT_FILE}"
    return [each.path.removesuffix(suffix) for each in changed if each.status == "D" and each.path.endswith(suffix)]


# Settings


def has_keys(path: str) -> bool:
    return bool(STACK_SETTINGS.fullmatch(path) or OTHER_SETTINGS.fullmatch(path))


def is_settings(path: str) -> bool:
    return has_keys(path) or path in PACKAGES


def changed_keys(path: str, before: bytes, after: bytes) -> list[str]:
    """`key added`, `key changed`, `key removed` of each setting that differs; never a value.

    An empty text holds none. Raises `Usage` for one that is not YAML.
    """
    old, new = (dict(_leaves(parse(Path(path), raw))) for raw in (before, after))
    words = {
        key: "added" if key not in old else "removed" if key not in new else "changed"
        for key in [*new, *(key for key in old if key not in new)]
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    }
    return [f"{key.removeprefix('config.')} {word}" for key, word in words.items()]


def told_keys(path: str, before: bytes, after: bytes) -> tuple[str, ...]:
    """The same, with a word for a file in which no setting differs and for one that cannot be read."""
    alike = "new, without a setting" if not before else "comments or order only" if after else "removed, had no setting"
    try:
        return tuple(changed_keys(path, before, after)) or (alike,)
    except OpsError:
        return ("it is not YAML, so its keys are not known",)


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is no mapping; a secret and a list count as a whole, `{}` is nothing."""
    if not isinstance(document, Mapping) or set(document) == {"secure"}:
        if path:
            yield path, document
        return
    for key, value in document.items():
        below = f"{path}.{key}".removeprefix(".")
        yield from _leaves(value, below)
