"""Chooses the pulumi, kubectl and helm of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runbooks.core.errors import OpsError, ToolFailed
from runbooks.core.search_path import INSTALL, find_beside_python, find_program
from runbooks.stacks.target import Target
from runbooks.tools import pulumi
from runbooks.tools.kubectl import Runs
from runbooks.tools.pulumi_home import has_language_host


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Absolute paths of the tools of a run."""

    pulumi: str
    pulumi_version: str
    helm: str = ""
    """Empty when there is none; only some tasks need it."""


def find_tools(target: Target, env: Mapping[str, str], runner: Runs) -> Tools:
    """The tools for a target. On the lab, its own pulumi replaces one on PATH that is too old.

    Raises `ToolFailed` when there is no pulumi that works, or only one that is too old.
    """
    program, own = find_pulumi(target), target.own_tool("pulumi")
    version = ask_version(program, env, runner)
    if own is not None and is_too_old(version):
        program, version = str(own), ask_version(str(own), env, runner)
    if is_too_old(version):
        oldest = ".".join(map(str, pulumi.FIRST_WITH_EXIT_CODES))
        raise ToolFailed(
            f"pulumi {version} at {program} is too old",
            expected=f"v{oldest} or newer, whose exit codes distinguish failures",
            next_step="./inv lab.up" if target.ephemeral else INSTALL["pulumi"],
        )
    return Tools(pulumi=program, pulumi_version=version, helm=str(find_program("helm") or ""))


def is_too_old(version: str) -> bool:
    return pulumi.read_version(version) < pulumi.FIRST_WITH_EXIT_CODES


def find_pulumi(target: Target) -> str:
    """Path of the pulumi to use: the one on PATH or, on the lab, its own if that one lacks its language host.

    Raises `ToolFailed` with the install command when there is none.
    """
    program, own = find_program("pulumi"), target.own_tool("pulumi")
    # A pulumi without its language host starts, but cannot run any program.
    if own is not None and (program is None or not has_language_host(program)):
        program = own
    if program is None:
        raise missing("pulumi", target)
    return str(program)


def find_kubectl(target: Target) -> str:
    """The lab's kubectl for the lab; else the one on PATH, else the one of this environment."""
    found = target.own_tool("kubectl") or find_program("kubectl") or find_beside_python("kubectl")
    if found is None:
        raise missing("kubectl", target)
    # Children run in other folders, where a relative entry of PATH leads elsewhere.
    return str(found.absolute())


def missing(tool: str, target: Target) -> OpsError:
    return ToolFailed(
        f"{tool} is not on PATH, and target {target.name!r} needs it",
        expected=f"{tool} on PATH; the lab's own serves the lab alone",
        next_step="./inv lab.up" if target.ephemeral else INSTALL[tool],
    )


def ask_version(program: str, env: Mapping[str, str], runner: Runs) -> str:
    """`v3.260.0`. Raises `ToolFailed` when that pulumi does not print its version."""
    outcome = runner.run(pulumi.version(program, env))
    if not outcome.ok:
        raise ToolFailed(
            f"{program} does not print its version (exit {outcome.exit_code})",
            expected="a working pulumi",
            next_step=f"{program} version",
        )
    return "v" + ".".join(str(part) for part in pulumi.read_version(outcome.stdout))
