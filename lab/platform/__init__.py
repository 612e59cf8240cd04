"""The lab's platform: a real Kubernetes control plane on loopback with everything that plugs into it.

The functions take the state folder (`.ops` or `$OPS_STATE`, absolute); the lab lives in `<state>/lab`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import toolchain
from lab.platform import additions, control_plane, keys, ports, processes, target
from lab.platform.control_plane import ControlPlane
from lab.platform.parts import Part, PartStatus
from lab.platform.paths import LabPaths
from lab.platform.record import Record
from lab.platform.supervisor import Supervisor, locked
from runbooks.core.environment import without_proxy_for_loopback
from runbooks.core.errors import Usage
from runbooks.core.search_path import persons_path

__all__ = ["PartStatus", "databases", "down", "environment", "is_up", "reset", "status", "tools", "up"]

POSTGRES_PORT = 5432
"""Taken when it is free at the lab's first start."""
READY, STARTING, STOPPED, CRASHED = "ready", "starting", "stopped", "crashed"
"""What a part's health may be, besides what its probe complains of."""


def up(state_dir: Path, report: Callable[[str], None]) -> None:
    """Brings every part to ready, starting only what does not run; idempotent.

    The first time it makes keys, picks ports and, where a program is nowhere, builds it (minutes). `report` gets lines
    for a person, from this thread or another. Raises `OpsError` with the next safe command.
    """
    from lab.platform import cluster

    paths = _paths(state_dir)
    with locked(paths, report):
        paths.prepare()
        _remove_logs_of_pulumi(paths)
        record = Record.load(paths.record)
        found = target.find_tools(report)
        tools = {tool.name: tool.program for tool in found}
        _pick_ports(record)
        record.save(paths.record)
        plane = ControlPlane(paths=paths, pki=keys.ensure(paths.pki), ports=record.ports, tools=tools)
        cluster.write_kubeconfigs(plane)
        uid = _bring_up(Supervisor(paths, record, report), plane)
        target.ensure_passphrase(paths)
        target.ensure_login(paths, target.cloud_url(record.ports["cloud"]))
        target.link_tools(paths, found)
        target.write_launcher(paths, tools["pulumi"], target.cloud_url(record.ports["cloud"]))
        target.write(
            paths,
            cluster_uid=uid,
            postgres_port=record.ports["postgres"],
            cloud_port=record.ports["cloud"],
            found=found,
        )


def _pick_ports(record: Record) -> None:
    for name in (*control_plane.PORTS, *additions.PORTS):
        if name not in record.ports:
            record.ports[name] = ports.pick(record.ports.values())
    if "postgres" not in record.ports:
        record.ports["postgres"] = ports.pick(record.ports.values(), preferred=POSTGRES_PORT)


def _bring_up(supervisor: Supervisor, plane: ControlPlane) -> str:
    from lab.platform import cluster
    from lab.platform.api import Cluster

    _refuse_foreign_postgres(plane)
    api = Cluster(plane.api)
    storage, server, *controllers = plane.parts()
    supervisor.bring_up([storage, server])
    uid = cluster.lay_out(api)
    supervisor.bring_up([*controllers, *additions.parts(plane)])
    cluster.await_default_account(api)
    return uid


def _refuse_foreign_postgres(plane: ControlPlane) -> None:
    """The database's port may be in use by the lab's own server only, also while no part of the lab needs it yet."""
    port = plane.ports["postgres"]
    own = {process.pid for process in processes.of_lab(plane.paths.lab)}
    if ports.holder(port) not in own:
        ports.refuse_taken("postgres", port)


def down(state_dir: Path, report: Callable[[str], None]) -> None:
    """Ends every process of the lab, and keeps its state; nothing to do is fine."""
    paths = _paths(state_dir)
    if not paths.lab.is_dir():
        return
    with locked(paths, report):
        Supervisor(paths, Record.load(paths.record), report).end_all()
        _remove_logs_of_pulumi(paths)


def _remove_logs_of_pulumi(paths: LabPaths) -> None:
    """What a person's own commands left: the CLI writes unredacted values into its logs."""
    shutil.rmtree(paths.credentials / "logs", ignore_errors=True)


def reset(state_dir: Path, report: Callable[[str], None]) -> None:
    """Ends every process of the lab and removes its state: the cluster, databases, stacks and their secrets."""
    paths = _paths(state_dir)
    if not paths.lab.is_dir():
        return
    with locked(paths, report):
        try:
            record = Record.load(paths.record)
        except Usage as unreadable:
            report(unreadable.summary)
            record = Record()
        Supervisor(paths, record, report).end_all()
        shutil.rmtree(paths.lab)


def status(state_dir: Path) -> list[PartStatus]:
    """The lab's parts in the order of their start; empty when there has never been a lab."""
    paths = _paths(state_dir)
    record = Record.load(paths.record)
    return [_part_status(part, record) for part in _known_parts(paths, record)]


def tools(state_dir: Path) -> list[toolchain.Found]:
    """The programs that the lab's last start found, and where each came from."""
    return target.read_tools(_paths(state_dir))


def databases(state_dir: Path) -> list[PartStatus]:
    """The Postgres servers that run now, one for each CNPG Cluster. They are the controllers' to start and to end."""
    from lab.operators import postgres  # brings psycopg along, which nothing else here needs

    return [
        PartStatus(
            name=f"postgres {'/'.join(server.data.parent.parts[-2:])}",
            ready=server.ready,
            health=READY if server.ready else STARTING,
            version=f"v{(server.data / 'PG_VERSION').read_text(encoding='utf-8').strip()}",
            pid=server.pid,
            port=server.port,
            memory=processes.memory_of_tree(server.pid),
        )
        for server in postgres.servers(_paths(state_dir).lab)
    ]


def _known_parts(paths: LabPaths, record: Record) -> Sequence[Part]:
    ports_known = record.ports.keys() >= {*control_plane.PORTS, *additions.PORTS, "postgres"}
    if not ports_known or not paths.pki.is_dir():
        return ()
    plane = ControlPlane(paths=paths, pki=keys.Pki(paths.pki), ports=record.ports, tools={})
    return (*plane.parts(), *additions.parts(plane))


def _part_status(part: Part, record: Record) -> PartStatus:
    health = _health(part, record)
    started = record.parts.get(part.name)
    if started is None or health == CRASHED:
        return PartStatus(name=part.name, ready=False, health=health, version=part.version, port=part.port)
    return PartStatus(
        name=part.name,
        ready=health == READY,
        health=health,
        version=started.version,
        pid=started.process.pid,
        port=part.port,
        memory=processes.memory_of_tree(started.process.pid),
    )


def _health(part: Part, record: Record) -> str:
    """READY, STOPPED, CRASHED, or what the part's probe complains of."""
    started = record.parts.get(part.name)
    if started is None or not processes.is_alive(started.process):
        return STOPPED if started is None else CRASHED
    return part.probe() or READY


def is_up(state_dir: Path) -> bool:
    """Every part runs and answers, and `target.json` tells how to get in."""
    paths = _paths(state_dir)
    if not paths.target.exists():
        return False
    record = Record.load(paths.record)
    parts = _known_parts(paths, record)
    return bool(parts) and all(_health(part, record) == READY for part in parts)


def environment(state_dir: Path) -> dict[str, str]:
    """What raw pulumi, kubectl and psql need to work on the lab; `PATH` is complete, no value is a secret."""
    paths = _paths(state_dir)
    record = Record.load(paths.record)
    exports = {
        "KUBECONFIG": str(paths.kubeconfig),
        "PULUMI_HOME": str(paths.credentials),
        "PULUMI_CREDENTIALS_PATH": str(paths.credentials),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "UV_FROZEN": "1",
        "OPS_STATE": str(paths.state_dir),
        "PATH": os.pathsep.join([str(paths.bin), persons_path()]),
    }
    exports["LAB_FILE_BACKEND"] = target.file_backend(paths)
    if "cloud" in record.ports:
        exports["PULUMI_BACKEND_URL"] = target.cloud_url(record.ports["cloud"])
    if "postgres" in record.ports:
        exports |= {"PGHOST": ports.LOOPBACK, "PGPORT": str(record.ports["postgres"]), "PGUSER": "postgres"}
    proxied = without_proxy_for_loopback(os.environ)
    return exports | {name: proxied[name] for name in ("no_proxy", "NO_PROXY") if name in proxied}


def _paths(state_dir: Path) -> LabPaths:
    # One spelling: it is in the mark of every process, by which a later command knows them.
    return LabPaths(state_dir.resolve())
