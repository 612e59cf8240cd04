"""The lab's platform: a real Kubernetes control plane on loopback with everything that plugs into it.

The functions take the state folder (`.ops` or `$OPS_STATE`, absolute); the lab lives in `<state>/lab`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab import toolchain
from lab.platform import control_plane, ports, processes, target
from lab.platform.control_plane import ControlPlane, Pki
from lab.platform.paths import LabPaths
from lab.platform.supervisor import Component, ComponentStatus, Record, Supervisor, hold_lock, is_locked
from lab.toolchain.build import note_use
from lab.toolchain.resolve import BUILT
from runbooks.core.environment import without_proxy_for_loopback
from runbooks.core.errors import Usage
from runbooks.core.search_path import user_path

__all__ = ["ComponentStatus", "down", "environment", "is_busy", "is_up", "reset", "status", "tools", "up"]

READY, STOPPED, CRASHED = "ready", "stopped", "crashed"
"""Values of a component's health, besides the text that its probe reports."""


def up(state_dir: Path, report: Callable[[str], None]) -> None:
    """Bring every component to ready, starting only what does not run; idempotent.

    The first time it makes keys, picks ports and builds the programs that are not there (minutes). `report` gets lines
    for the user, from this thread or another. Raises `OpsError` with the next safe command.
    """
    if sys.platform != "linux":
        raise Usage(
            f"the lab does not run on {sys.platform}",
            expected="Linux, whose pidfd and /proc the lab uses to find and end its processes",
            next_step="run it in a Linux container or virtual machine, or choose another target: ./inv --target NAME …",
        )
    # Makes certificates: every other command on the lab does without the 0.1 s that cryptography takes to load.
    from lab.platform import start

    paths = _paths(state_dir)
    with hold_lock(paths, report):
        _remove_logs_of_pulumi(paths)
        start.bring_up(paths, report)


def down(state_dir: Path, report: Callable[[str], None]) -> None:
    """Stop every process of the lab and keep its state. Does nothing if the lab does not run."""
    paths = _paths(state_dir)
    if not paths.lab.is_dir():
        return
    with hold_lock(paths, report):
        Supervisor(paths, Record.load(paths.record), report).end_all()
        _remove_logs_of_pulumi(paths)


def _remove_logs_of_pulumi(paths: LabPaths) -> None:
    """Remove the CLI's logs, which have unredacted values, also when the user starts it."""
    shutil.rmtree(paths.credentials / "logs", ignore_errors=True)


def reset(state_dir: Path, report: Callable[[str], None]) -> None:
    """Stop every process of the lab and remove its state: the cluster, databases, stacks and their secrets."""
    paths = _paths(state_dir)
    if not paths.lab.is_dir():
        return
    with hold_lock(paths, report):
        try:
            record = Record.load(paths.record)
        except Usage as unreadable:  # its processes are found by their mark all the same
            report(unreadable.summary)
            record = Record()
        Supervisor(paths, record, report).end_all()
        shutil.rmtree(paths.lab)


def status(state_dir: Path) -> list[ComponentStatus]:
    """The lab's components in the order of their start; empty when there has never been a lab."""
    paths = _paths(state_dir)
    record = Record.load(paths.record)
    return [_component_status(component, record) for component in _known_components(paths, record)]


def tools(state_dir: Path) -> list[toolchain.Found]:
    """The programs that the lab's last start found, and where each came from."""
    return target.read_tools(_paths(state_dir))


def _known_components(paths: LabPaths, record: Record) -> list[Component]:
    if not record.ports.keys() >= {*control_plane.PORTS, "postgres"} or not paths.pki.is_dir():
        return []
    return ControlPlane(paths=paths, pki=Pki(paths.pki), ports=record.ports, tools={}).components()


def _component_status(component: Component, record: Record) -> ComponentStatus:
    health = _health(component, record)
    status = ComponentStatus(
        name=component.name, ready=health == READY, health=health, version=component.version, port=component.port
    )
    started = record.components.get(component.name)
    if started is None or health == CRASHED:
        return status
    pid = started.process.pid
    return replace(status, version=started.version, pid=pid, memory=processes.memory_of_tree(pid))


def _health(component: Component, record: Record) -> str:
    """READY, STOPPED, CRASHED, or what the component's probe reports."""
    started = record.components.get(component.name)
    if started is None or not processes.is_alive(started.process):
        return STOPPED if started is None else CRASHED
    return component.probe() or READY


def is_up(state_dir: Path) -> bool:
    """Whether every component runs and answers, and `target.json` exists."""
    paths = _paths(state_dir)
    if not paths.target.exists():
        return False
    record = Record.load(paths.record)
    components = _known_components(paths, record)
    if not components or not all(_health(component, record) == READY for component in components):
        return False
    # Builds that no lab has used for a while are removed.
    for tool in target.read_tools(paths):
        if tool.origin == BUILT:
            note_use(tool.program.parent)
    return True


def is_busy(state_dir: Path) -> bool:
    """Whether another command starts, stops or removes the lab now."""
    return is_locked(_paths(state_dir))


def environment(state_dir: Path) -> dict[str, str]:
    """The variables that plain pulumi, kubectl and psql need to work on the lab. None is secret; `PATH` is complete."""
    paths = _paths(state_dir)
    record = Record.load(paths.record)
    exports = {
        "KUBECONFIG": str(paths.kubeconfig),
        "PULUMI_HOME": str(paths.credentials),
        "PULUMI_CREDENTIALS_PATH": str(paths.credentials),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "UV_FROZEN": "1",
        "OPS_STATE": str(paths.state_dir),
        "PATH": os.pathsep.join([str(paths.bin), user_path()]),
    }
    exports["LAB_FILE_BACKEND"] = f"file://{paths.backend}"
    if "cloud" in record.ports:
        exports["PULUMI_BACKEND_URL"] = target.cloud_url(record.ports["cloud"])
    if "postgres" in record.ports:
        exports |= {"PGHOST": ports.LOOPBACK, "PGPORT": str(record.ports["postgres"]), "PGUSER": "postgres"}
        exports["PGPASSFILE"] = str(paths.pgpass)
    proxied = without_proxy_for_loopback(os.environ)
    return exports | {name: proxied[name] for name in ("no_proxy", "NO_PROXY") if name in proxied}


def _paths(state_dir: Path) -> LabPaths:
    # One spelling: it is in the mark of every process, by which a later command finds them.
    return LabPaths(state_dir.resolve())
