"""Which pulumi, kubectl and helm a run uses, and the secrets that the environment itself holds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.lib import pulumi
from runbooks.lib.environment import secret_variables
from runbooks.lib.errors import OpsError, ToolFailed
from runbooks.lib.install import INSTALL
from runbooks.lib.kubectl import Runs
from runbooks.lib.target import Target

__all__ = ["Tools", "ask_version", "find_kubectl", "find_pulumi", "find_tools", "missing", "secret_variables"]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Absolute paths of the tools of a run."""

    pulumi: str
    pulumi_version: str
    is_stand_in: bool
    """The lab's own pulumi; never on a real target."""
    kubectl: str
    helm: str = ""
    """Empty when there is none; only some tasks need it."""


def find_tools(target: Target, program: str, *, is_stand_in: bool, version: str) -> Tools:
    """The tools for a target, `program` being its pulumi; the lab has its own kubectl and helm.

    Raises `ToolFailed` with the install command when there is no kubectl.
    """
    return Tools(
        pulumi=program,
        pulumi_version=version,
        is_stand_in=is_stand_in,
        kubectl=find_kubectl(target),
        helm=str(target.tools.get("helm") or shutil.which("helm") or ""),
    )


def find_pulumi(target: Target, root: Path) -> tuple[str, bool]:
    """Path of the pulumi to use and whether it is the lab's stand-in, which serves the lab alone."""
    on_path = real_pulumi(root)
    if on_path:
        return on_path, False
    stand_in = target.tools.get("pulumi") or root / "lab" / "bin" / "pulumi"
    if target.ephemeral and stand_in.exists():
        return str(stand_in), True
    raise missing("pulumi", target)


def real_pulumi(root: Path) -> str:
    """The first pulumi on PATH that is not the lab's stand-in; empty when there is none."""
    return real_tool("pulumi", root)


def real_tool(name: str, root: Path) -> str:
    """The first program of that name on PATH that is not one of the lab's stand-ins; empty when there is none."""
    for folder in os.get_exec_path():
        found = shutil.which(name, path=folder)
        if found and not _is_stand_in(Path(found).resolve(), root):
            return str(Path(found).absolute())
    return ""


def _is_stand_in(program: Path, root: Path) -> bool:
    """Of this checkout, or of another one whose `lab.env` a shell still has."""
    lab = program.parent.parent
    return program.is_relative_to((root / "lab").resolve()) or (lab.name == "lab" and (lab / "engine").is_dir())


def find_kubectl(target: Target) -> str:
    """The lab's kubectl for the lab; else the one on PATH, else the one of this environment."""
    beside_python = Path(sys.executable).with_name("kubectl")
    found = (
        target.tools.get("kubectl") or shutil.which("kubectl") or (beside_python if beside_python.exists() else None)
    )
    if found is None:
        raise missing("kubectl", target)
    return str(Path(found).absolute())


def missing(tool: str, target: Target) -> OpsError:
    where = "it is needed on every real target; the lab's stand-in serves the lab alone" if tool == "pulumi" else ""
    return ToolFailed(
        f"{tool} is not on PATH, and target {target.name!r} needs it",
        expected=where or f"{tool} on PATH",
        next_step=INSTALL[tool],
    )


def ask_version(program: str, env: Mapping[str, str], runner: Runs) -> str:
    """`v3.260.0`. Raises `ToolFailed` when that pulumi cannot even tell its version."""
    outcome = runner.run(pulumi.version(program, env))
    if not outcome.ok:
        raise ToolFailed(
            f"{program} does not tell its version (exit {outcome.exit_code})",
            expected="a working pulumi",
            next_step=f"{program} version",
        )
    return "v" + ".".join(str(part) for part in pulumi.read_version(outcome.stdout))
