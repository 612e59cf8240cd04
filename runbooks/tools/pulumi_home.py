"""The PULUMI_HOME of a run, and the provider plugins that pulumi finds.

Each run has its own home, because the CLI writes unredacted values into its `logs/`; it is removed when the run ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.files import write_new, writing
from runbooks.core.processes import list_processes, process_is_alive
from runbooks.core.search_path import find_program, is_lab

NAME = "pulumi-home"
ENVIRONMENT_FILES = "files"
"""The folder of a run for the `files` of an opened environment, in plaintext while a command needs them."""
NO_DOWNLOADS = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
"""Environment variable: pulumi uses only plugins that are installed."""
NO_AMBIENT = "PULUMI_IGNORE_AMBIENT_PLUGINS"
"""Environment variable: pulumi does not look for plugins on PATH."""
LANGUAGE_HOST = "pulumi-language-python"


@contextlib.contextmanager
def create_private_home(run_folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """`<run_folder>/pulumi-home` (0700) with a link to the user's plugins, removed afterwards.

    The leftovers of killed runs are removed first. Raises `Unwritable`.
    """
    remove_leftovers(run_folder.parent, keep=run_folder)
    home = run_folder / NAME
    try:
        with writing("pulumi's folder of this run", home):
            home.mkdir(mode=0o700)
            write_new(home / "pid", str(os.getpid()), "pulumi's folder of this run")
            (home / "plugins").symlink_to(plugin_folder(environ), target_is_directory=True)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)  # removes the link to the plugins, and does not follow it


def user_home(environ: Mapping[str, str]) -> Path:
    """The user's own PULUMI_HOME, absolute: pulumi is started in other folders than this process."""
    return _own(environ, "PULUMI_HOME") or (Path.home() / ".pulumi").absolute()


def user_credentials(environ: Mapping[str, str]) -> Path:
    """The folder with the user's own logins."""
    return _own(environ, "PULUMI_CREDENTIALS_PATH") or user_home(environ)


def _own(environ: Mapping[str, str], variable: str) -> Path | None:
    """The folder that a variable names, unless `lab.env` set it."""
    folder = Path(environ[variable]).absolute() if environ.get(variable) else None
    return None if folder is None or is_lab(folder.parent) else folder


def plugin_folder(environ: Mapping[str, str]) -> Path:
    """Where the user's pulumi keeps its plugins, made when it is missing. Raises `Unwritable` when it cannot be."""
    plugins = user_home(environ) / "plugins"
    with writing("the folder for pulumi's plugins", plugins, next_step="set PULUMI_HOME (or HOME) to another folder"):
        plugins.mkdir(parents=True, exist_ok=True)
    return plugins


def remove_leftovers(runs: Path, *, keep: Path) -> None:
    """Remove the homes, kubeconfigs and environments' files of runs without a process."""
    for home in runs.glob(f"*/{NAME}"):
        if home.parent != keep and not is_in_use(home):
            for folder in (home, home.parent / ENVIRONMENT_FILES):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # then writing this run's files fails next, with its own error
                (home.parent / "kubeconfig").unlink(missing_ok=True)


def is_in_use(home: Path) -> bool:
    """Whether a process of this user works with that home: the run that created it, or a pulumi it left behind."""
    with contextlib.suppress(OSError, ValueError):
        if process_is_alive(int((home / "pid").read_text(encoding="ascii"))):
            return True
    return any((process["environ"] or {}).get("PULUMI_HOME") == str(home) for process in list_processes("environ"))


# Plugins


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A resource plugin in the version of an installed SDK."""

    name: str
    version: str
    """Without a leading v."""

    @property
    def install(self) -> str:
        """The command that downloads it."""
        return f"pulumi plugin install resource {self.name} v{self.version}"

    @property
    def program(self) -> str:
        return f"pulumi-resource-{self.name}"


def wanted_plugins(packages: Path | None = None) -> list[Plugin]:
    """The plugins of the SDKs in this Python environment, by name.

    pulumi requires all of them in every project: it reads the `pulumi-plugin.json` of installed packages, not the
    imports of a program.
    """
    folder = packages or Path(sysconfig.get_path("purelib"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/pulumi-plugin.json")]
    plugins = (Plugin(name=entry["name"], version=entry["version"]) for entry in found if entry.get("resource"))
    return sorted(plugins, key=lambda plugin: plugin.name)


def place_of(plugin: Plugin, folder: Path, environ: Mapping[str, str]) -> str:
    """Where pulumi finds the plugin in that environment: on PATH in any version, else installed. Empty if nowhere.

    Source: pulumi sdk/go/common/workspace/plugins.go (getPluginInfoAndPath).
    """
    on_path = None if is_on(NO_AMBIENT, environ) else shutil.which(plugin.program, path=environ.get("PATH"))
    return on_path or str(find_installed(plugin, folder) or "")


def find_installed(plugin: Plugin, folder: Path) -> Path | None:
    """The plugin folder's copy of exactly this version. A `.partial` file beside it marks an incomplete download."""
    own = folder / f"resource-{plugin.name}-v{plugin.version}"
    is_complete = (own / plugin.program).is_file() and not own.with_name(f"{own.name}.partial").exists()
    return own if is_complete else None


def is_on(variable: str, environ: Mapping[str, str]) -> bool:
    """Whether pulumi reads an environment variable as true. Source: sdk/go/common/util/cmdutil (IsTruthy)."""
    return environ.get(variable, "").lower() in {"1", "true"}


def has_language_host(program: Path) -> bool:
    """Whether a pulumi can run Python programs: its language host is beside it, on PATH or in the plugin folder."""
    return (
        program.resolve().with_name(LANGUAGE_HOST).is_file()
        or find_program(LANGUAGE_HOST) is not None
        or any((user_home(os.environ) / "plugins").glob(f"language-python-v*/{LANGUAGE_HOST}"))
    )
