"""How the lab starts: keys, ports, programs, its processes in order, what a fresh cluster has, and the way in."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from lab.platform import control_plane, pki, ports, processes, target
from lab.platform.control_plane import ControlPlane
from lab.platform.paths import CONTEXT, LabPaths, write_private
from lab.platform.supervisor import Record, Report, Supervisor
from lab.toolchain import version_of
from runbooks.core.errors import ToolFailed

POSTGRES_PORT = 5432
"""Taken when it is free at the lab's first start."""
CLUSTER = Path(__file__).with_name("cluster.yaml")


def bring_up(paths: LabPaths, report: Report) -> None:
    """Bring every component to ready, starting only what does not run. The caller holds the lab's lock."""
    paths.prepare()
    record = Record.load(paths.record)
    found = target.find_tools(report)
    tools = {tool.name: tool.program for tool in found}
    for name in control_plane.PORTS:
        if name not in record.ports:
            record.ports[name] = ports.pick(record.ports.values())
    if "postgres" not in record.ports:
        record.ports["postgres"] = ports.pick(record.ports.values(), preferred=POSTGRES_PORT)
    record.save(paths.record)
    plane = ControlPlane(paths=paths, pki=pki.ensure(paths.pki), ports=record.ports, tools=tools)
    write_kubeconfigs(plane)
    # The database's port may be in use by the lab's own server only, also while no component of the lab needs it yet.
    if ports.holder(record.ports["postgres"]) not in {process.pid for process in processes.of_lab(paths.lab)}:
        ports.refuse_taken("postgres", record.ports["postgres"])
    supervisor = Supervisor(paths, record, report)
    storage, server, *others = plane.components()
    supervisor.bring_up([storage, server])
    manifests = CLUSTER.read_text("utf-8").replace("@VERSION@", version_of("kube-apiserver"))
    _kubectl(plane, "apply", "--server-side", "--force-conflicts", "--field-manager=lab", "-f", "-", stdin=manifests)
    uid = _kubectl(plane, "get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}")
    supervisor.bring_up(others)
    # Without its service account a namespace takes no pods; the controllers make it a moment after their start.
    _kubectl(plane, "wait", "--for=create", "serviceaccount/default", "--namespace=default", "--timeout=20s")
    target.write_all(paths, cluster_uid=uid, ports=record.ports, found=found)


def write_kubeconfigs(plane: ControlPlane) -> None:
    """The admin's (token) and those of the clients that have a certificate. Rewritten when the port changed."""
    _write(plane, plane.paths.kubeconfig, {"token": plane.pki.admin_token()}, user="lab-admin")
    for client in ("controller-manager", "scheduler", "kwok"):
        files = {"client-certificate": plane.pki.certificate(client), "client-key": plane.pki.key(client)}
        _write(plane, plane.pki.kubeconfig(client), {name: str(path) for name, path in files.items()}, user=client)


def _write(plane: ControlPlane, path: Path, credentials: Mapping[str, str], user: str) -> None:
    authority = base64.b64encode(plane.pki.ca.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": plane.server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": dict(credentials)}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "current-context": CONTEXT,
    }
    text = yaml.safe_dump(content, sort_keys=False)
    if not path.exists() or path.read_text("utf-8") != text:
        write_private(path, text)


def _kubectl(plane: ControlPlane, *words: str, stdin: str = "") -> str:
    """What `kubectl WORDS` prints, as the lab's admin. Raises `ToolFailed`."""
    # Its cache is readable to others whatever the umask, so none stays; and none of the user's own defaults applies.
    with tempfile.TemporaryDirectory(dir=plane.paths.lab) as cache:
        done = subprocess.run(
            [plane.program("kubectl"), f"--kubeconfig={plane.paths.kubeconfig}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"KUBECACHEDIR": cache, "KUBERC": "off"},
        )
    if done.returncode:
        raise ToolFailed(
            f"kubectl {words[0]} failed on the lab: {done.stderr.strip()[-300:]}",
            expected="the lab's API server and controllers do it",
            next_step="./inv lab.status, then read .ops/lab/logs/kube-apiserver.log",
        )
    return done.stdout
