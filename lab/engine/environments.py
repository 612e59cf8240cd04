"""The ESC environments of a stack: opened, and turned into settings and environment variables.

The settings file wins over them, they win over a project's defaults. Texts keep their secretness, secret numbers and
booleans lose it. Source: pulumi pkg/workspace/config.go, esc environment.go.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.engine.cloud_client import CloudError
from lab.engine.failures import CommandFailed
from lab.engine.project import Setting, as_text, full_key, read_setting
from lab.esc.client import EscClient, imports
from lab.esc.diagnostics import short

UNKNOWN_TEXT = "[unknown]"
FAILED = "getting stack configuration: opening environment: "


@dataclass(frozen=True)
class Environment:
    """``values``: keys of ``pulumiConfig`` to ESC values (``value``, ``secret``, ``unknown``)."""

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_texts: tuple[str, ...] = field(default=(), repr=False)
    """Of variables and files: hidden in what is shown."""

    def settings(self, project: str, encrypt: Callable[[str], str]) -> dict[str, Setting]:
        """By full key. Secret texts are encrypted, as everywhere in a run's settings."""
        return {full_key(key, project): _setting(value, encrypt) for key, value in self.values.items()}


def open_environments(client: EscClient, environments: Any) -> Environment:
    """Raises ``CommandFailed``; diagnostics have been printed then."""
    try:
        return read_environment(client.open_definition(imports(environments)))
    except CloudError as error:
        diagnostics = error.body.get("diagnostics")
        if not diagnostics:
            raise CommandFailed(f"{FAILED}{error}") from error
        print(short(diagnostics), end="", file=sys.stderr)
        raise CommandFailed(f"{FAILED}too many errors") from error


def check_environments(client: EscClient, environments: Any) -> Environment:
    """Without opening: what providers would give is unknown."""
    try:
        return read_environment(client.check(imports(environments)))
    except CloudError as error:
        diagnostics = error.body.get("diagnostics") or ()
        told = "".join(f"Diags: {one.get('summary', '')}\n" for one in diagnostics)
        raise CommandFailed(f"{error}\n{told}") from error


def read_environment(opened: Mapping[str, Any]) -> Environment:
    properties = opened.get("properties") or {}
    variables, secret_variables = _texts(properties.get("environmentVariables"), _SCALARS)
    files, secret_files = _texts(properties.get("files"), str)
    settings = (properties.get("pulumiConfig") or {}).get("value")
    return Environment(
        settings if isinstance(settings, dict) else {}, variables, files, (*secret_variables, *secret_files)
    )


_SCALARS = str | bool | int | float | None


def _texts(section: Any, kinds: Any) -> tuple[dict[str, str], list[str]]:
    """The values of a section that are of these kinds, as texts, and those of them that are secret."""
    found, hidden = {}, []
    entries = (section or {}).get("value")
    for key, value in (entries if isinstance(entries, dict) else {}).items():
        if value.get("unknown") or not isinstance(value.get("value"), kinds):
            continue
        found[key] = as_text(value.get("value"))
        if value.get("secret") or section.get("secret"):
            hidden.append(found[key])
    return found, hidden


def _setting(value: Mapping[str, Any], encrypt: Callable[[str], str]) -> Setting:
    if value.get("unknown"):
        return Setting(UNKNOWN_TEXT, secret=bool(value.get("secret")), raw=UNKNOWN_TEXT)
    content = value.get("value")
    if isinstance(content, dict | list):
        return read_setting(_raw(value, encrypt, is_secret=False))
    if isinstance(content, str) and value.get("secret"):
        return read_setting({"secure": encrypt(content)})
    if isinstance(content, float) and content.is_integer():
        # A number without a fraction is an integer to the real CLI.
        content = int(content)
    return Setting(as_text(content), raw=content)


def _raw(value: Mapping[str, Any], encrypt: Callable[[str], str], *, is_secret: bool) -> Any:
    """A list or map as a settings file would have it."""
    is_secret = is_secret or bool(value.get("secret"))
    content = value.get("value")
    if isinstance(content, dict):
        return {key: _raw(item, encrypt, is_secret=is_secret) for key, item in content.items()}
    if isinstance(content, list):
        return [_raw(item, encrypt, is_secret=is_secret) for item in content]
    if isinstance(content, str) and is_secret:
        return {"secure": encrypt(content)}
    return content


class Files:
    """An environment's ``files`` on disk, readable by the owner only, for as long as a command runs."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> dict[str, str]:
        """Name of the variable to path."""
        if not self._files:
            return {}
        self._folder = tempfile.TemporaryDirectory(prefix="esc-")
        return dict(self._write(Path(self._folder.name)))

    def _write(self, folder: Path) -> Iterator[tuple[str, str]]:
        for number, (name, text) in enumerate(self._files.items()):
            path = folder / str(number)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            yield name, str(path)

    def __exit__(self, *_error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def names_of(environments: Any) -> list[str]:
    """The imported names of what a settings file has below ``environment:``."""
    entries = environments.get("imports") or () if isinstance(environments, dict) else environments or ()
    return [next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries]


def metadata(environments: Any) -> str:
    """``stack.environments`` of an update."""
    return json.dumps([{"id": name} for name in names_of(environments)], separators=(",", ":"))
