"""Finds the programs of the user, without those that labs put on PATH, and has the commands that install them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

INSTALL = {
    "pulumi": "install it: curl -fsSL https://get.pulumi.com | sh, or brew install pulumi/tap/pulumi",
    "kubectl": "install it: https://kubernetes.io/docs/tasks/tools/, or brew install kubectl",
    "helm": "install it: https://helm.sh/docs/intro/install/, or brew install helm",
    "esc": "install it: https://www.pulumi.com/docs/esc/cli/, or brew install pulumi/tap/esc",
    "uv": "install it: https://docs.astral.sh/uv/getting-started/installation/, or brew install uv",
}


def find_program(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The absolute path of the user's own program of that name. A link that leads into a lab never counts."""
    for folder in _folders(environ):
        found = shutil.which(name, path=folder or os.curdir)
        if found and not _leads_into_lab(Path(found)):
            return Path(found).absolute()
    return None


def find_beside_python(name: str) -> Path | None:
    """The program of that name in this Python environment, whether it is on PATH or not."""
    program = Path(sys.executable).with_name(name).absolute()
    return program if program.exists() else None


def user_path(environ: Mapping[str, str] = os.environ) -> str:
    """PATH without the folders of labs, of this checkout or another one (`lab.env` puts them first)."""
    return os.pathsep.join(folder for folder in _folders(environ) if not has_labs_programs(Path(folder)))


def _folders(environ: Mapping[str, str]) -> list[str]:
    return environ.get("PATH", os.defpath).split(os.pathsep)


def cache_folder() -> Path:
    """`homelab-ops` in the user's cache folder (XDG). Its `bin` has the programs that labs built."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "homelab-ops"


def is_lab(folder: Path) -> bool:
    """Whether a folder is a lab's, `<state>/lab`, or was until `lab.reset`."""
    # The first mark is there before anything else of a lab, and stays.
    marks = (folder.parent / "lab.lock", folder / "lab.json", folder / "target.json")
    return folder.name == "lab" and any(map(os.path.exists, marks))


def has_labs_programs(folder: Path) -> bool:
    """Whether a folder is the `bin` of a lab, or one that programs of a lab were built into.

    Only its place counts, as its content may be anything, also a link that leads nowhere.
    """
    places = (folder.absolute(), Path(os.path.realpath(folder)))  # `Path.resolve` raises where links go in a circle
    built = os.path.realpath(cache_folder() / "bin")
    return any((place.name == "bin" and is_lab(place.parent)) or place.is_relative_to(built) for place in places)


def _leads_into_lab(program: Path) -> bool:
    """Whether the program, or one of the links that it is reached by, is in a lab's folder."""
    while not has_labs_programs(program.parent):
        if not program.is_symlink():
            return False
        program = program.parent / program.readlink()
    return True
