"""Parts beyond the control plane. A new one is one entry in `parts`."""

from __future__ import annotations

import sys

from lab.platform.api import Endpoint
from lab.platform.control_plane import ControlPlane
from lab.platform.parts import Part
from lab.platform.paths import ROOT
from lab.toolchain import version_of

PORTS = ("operators", "cloud")
CLOUD = ROOT / "lab" / "cloud"
OPERATORS = ROOT / "lab" / "operators" / "__main__.py"


def parts(plane: ControlPlane) -> list[Part]:
    return [_cloud(plane), *([_operators(plane)] if OPERATORS.exists() else [])]


def _cloud(plane: ControlPlane) -> Part:
    """In place of the Pulumi Cloud: stacks and ESC environments."""
    port = plane.ports["cloud"]
    health = Endpoint(port=port)
    return Part(
        name="cloud",
        argv=(
            *(sys.executable, "-m", "lab.cloud", "--folder", str(plane.paths.cloud), "--port", str(port)),
            *("--evaluator", plane.program("esc-evaluator")),
        ),
        env={"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
        reads=tuple(sorted(CLOUD.glob("*.py"))),
        port=port,
        version=version_of("esc-evaluator"),
        probe=lambda: health.trouble("/healthz"),
    )


def _operators(plane: ControlPlane) -> Part:
    """The controllers that do what the absent pods would; they start the Postgres servers."""
    port = plane.ports["operators"]
    health = Endpoint(port=port)
    return Part(
        name="operators",
        argv=(sys.executable, "-m", "lab.operators", "--lab-dir", str(plane.paths.lab)),
        env={
            "PYTHONPATH": str(ROOT),
            # The working folder (the lab's state) has a folder called pulumi: it must not be importable.
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "OPS_STATE": str(plane.paths.state_dir),
            "KUBECONFIG": str(plane.paths.kubeconfig),
            "LAB_HEALTH_PORT": str(port),
            "LAB_POSTGRES_PORT": str(plane.ports["postgres"]),
        },
        reads=tuple(sorted(OPERATORS.parent.glob("*.py"))),
        port=port,
        needs=("kube-apiserver",),
        # Postgres gets the time for a fast shutdown.
        stop_within=20.0,
        probe=lambda: health.trouble("/healthz"),
    )
