"""The tools of a run: which pulumi, kubectl and helm, and the variables that select their backend and cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runbooks.core.environment import access_variables
from runbooks.core.errors import OpsError, ToolFailed, Usage
from runbooks.core.search_path import INSTALL, find_beside_python, find_program, user_path
from runbooks.stacks.target import Target
from runbooks.tools import pulumi
from runbooks.tools.kubectl import Runs
from runbooks.tools.pulumi_home import NO_AMBIENT, NO_DOWNLOADS, has_language_host, user_credentials

SECRET_NAME = re.compile(r"pass|secret|token|key|sig", re.IGNORECASE)
"""Names of secret fields in the query of a backend's address."""


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


def read_secret_file(target: Target, path: Path | None, what: str) -> str:
    """The content of a file of one secret; empty without a path. Raises `Usage` when it cannot be read."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(
            f"the {what} file {path} of target {target.name!r} cannot be read",
            expected=f"a readable text file that holds the {what}",
            next_step="./inv lab.up" if target.ephemeral else f"./inv --target {target.name} target.show",
        ) from error


def backend_passwords(target: Target) -> list[str]:
    """The passwords in a backend's address, both as written and decoded."""
    parts = urlsplit(target.backend)
    fields = (field.partition("=") for field in parts.query.split("&"))
    written = [parts.password or "", *(value for name, _, value in fields if SECRET_NAME.search(name))]
    return [text for password in written if password for text in (password, unquote(password))]


def pulumi_environment(
    target: Target, environ: Mapping[str, str], *, home: Path, kubeconfig: Path, state: Path
) -> dict[str, str]:
    """Every variable that selects pulumi's backend and cluster, set explicitly for each child."""
    credentials = target.credentials_dir or user_credentials(environ)
    if environ.get("PULUMI_ACCESS_TOKEN") and not target.ephemeral and not target.has_diy_backend:
        # pulumi stores a token of the environment and changes the user's current backend, so it gets another folder.
        credentials = home
    made = {
        "PULUMI_BACKEND_URL": target.backend,
        "PULUMI_HOME": str(home),
        "PULUMI_CREDENTIALS_PATH": str(credentials.absolute()),
        "KUBECONFIG": str(kubeconfig),
        # pulumi has uv sync the environment before each program: never from the network, and never to other versions.
        "UV_FROZEN": "1",
        "UV_OFFLINE": "1",
        # They live for seconds, so they collect garbage less often (a tenth less CPU, 30 to 100 MB more for a preview).
        "GOGC": "1000",
        "GOMEMLIMIT": "512MiB",
        "PATH": user_path(environ),
    }
    if target.passphrase_file is not None:
        made["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(target.passphrase_file)
    if target.ephemeral:
        if token := read_secret_file(target, target.token_file, "token"):
            made["PULUMI_ACCESS_TOKEN"] = token
        tools = os.pathsep.join((str(state / "lab" / "bin"), made["PATH"]))
        return made | {"OPS_STATE": str(state), "PATH": tools, NO_DOWNLOADS: "true", NO_AMBIENT: "false"}
    if made["PATH"] != environ.get("PATH", os.defpath):  # `lab.env` set this for the lab in the same shell
        made[NO_DOWNLOADS] = "false"
    passed_on = ["PULUMI_ACCESS_TOKEN"] + ([] if target.passphrase_file else ["PULUMI_CONFIG_PASSPHRASE"])
    return (
        made
        | access_variables(target.backend, environ)
        | {name: environ[name] for name in passed_on if name in environ}
    )
