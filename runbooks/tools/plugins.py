"""Provider plugins: which ones the programs' SDKs ask for, and whether pulumi would have to download them."""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.search_path import find_program

NO_DOWNLOADS = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
"""Switch of the environment: pulumi goes on with the plugins that are there, and asks for one only where it is used."""
LANGUAGE_HOST = "pulumi-language-python"
NO_AMBIENT = "PULUMI_IGNORE_AMBIENT_PLUGINS"
"""Switch of the environment: pulumi does not look for plugins on PATH."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A resource plugin in the version that belongs to an installed SDK."""

    name: str
    version: str
    """Without a leading v."""

    @property
    def install(self) -> str:
        """The command that downloads it, on a machine that has the network."""
        return f"pulumi plugin install resource {self.name} v{self.version}"

    @property
    def program(self) -> str:
        return f"pulumi-resource-{self.name}"


def wanted_plugins(packages: Path | None = None) -> list[Plugin]:
    """The plugins of the SDKs in this Python environment, by name.

    pulumi asks for all of them in every project: it looks at what is installed (`pulumi-plugin.json`), not at what a
    program imports.
    """
    folder = packages or Path(sysconfig.get_path("purelib"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/pulumi-plugin.json")]
    plugins = (Plugin(name=entry["name"], version=entry["version"]) for entry in found if entry.get("resource"))
    return sorted(plugins, key=lambda plugin: plugin.name)


def place_of(plugin: Plugin, folder: Path, environ: Mapping[str, str]) -> str:
    """Where a pulumi with that environment finds it: on PATH in any version, else installed; empty when nowhere.

    Source: pulumi sdk/go/common/workspace/plugins.go (getPluginInfoAndPath).
    """
    on_path = None if is_on(NO_AMBIENT, environ) else shutil.which(plugin.program, path=environ.get("PATH"))
    return on_path or str(installed(plugin, folder) or "")


def installed(plugin: Plugin, folder: Path) -> Path | None:
    """Where the plugin folder has it in exactly its version; a `.partial` file beside that marks half a download."""
    kept = folder / f"resource-{plugin.name}-v{plugin.version}"
    is_whole = (kept / plugin.program).is_file() and not kept.with_name(f"{kept.name}.partial").exists()
    return kept if is_whole else None


def is_on(variable: str, environ: Mapping[str, str]) -> bool:
    """Whether pulumi takes a switch of the environment for on. Source: sdk/go/common/util/cmdutil (IsTruthy)."""
    return environ.get(variable, "").lower() in {"1", "true"}


def has_language_host(program: Path) -> bool:
    """Whether a pulumi can run Python programs: its language host is beside it or on PATH."""
    return program.resolve().with_name(LANGUAGE_HOST).is_file() or find_program(LANGUAGE_HOST) is not None
