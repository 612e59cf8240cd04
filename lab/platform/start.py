"""Starts the lab: keys, ports, programs, its processes in order, a fresh cluster's objects, and the kubeconfigs."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from lab import certificates
from lab.certificates import Wanted
from lab.platform import control_plane, ports, processes, target
from lab.platform.control_plane import ControlPlane, Pki
from lab.platform.paths import CONTEXT, LabPaths, write_private
from lab.platform.supervisor import Record, Report, Supervisor
from lab.toolchain import version_of
from runbooks.core.errors import ToolFailed

POSTGRES_PORT = 5432
"""The port of Postgres if it is free at the lab's first start."""
CLUSTER = Path(__file__).with_name("cluster.yaml")
KIND: dict[str, Any] = {"duration": timedelta(days=3650), "backdated": timedelta(hours=1), "algorithm": "ECDSA"}
SERVER = Wanted(
    common_name="lab",
    dns_names=(
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ),
    addresses=("127.0.0.1", "10.96.0.1"),
    **KIND,
)
CLIENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "apiserver-etcd": ("lab:apiserver", ()),
    # Its controllers act with this one identity; a service account for each would cost seconds and memory.
    "controller-manager": ("system:kube-controller-manager", ("system:masters",)),
    "scheduler": ("system:kube-scheduler", ()),
    "kwok": ("lab:kwok", ()),
}
"""File name of each client certificate → its user and groups."""


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
        # The server starts with the first deploy: until then another new lab would find the usual port free too.
        preferred = None if processes.another_lab_runs(paths.lab) else POSTGRES_PORT
        record.ports["postgres"] = ports.pick(record.ports.values(), preferred=preferred)
    record.save(paths.record)
    plane = ControlPlane(paths=paths, pki=ensure_pki(paths.pki), ports=record.ports, tools=tools)
    write_kubeconfigs(plane)
    # The database's port may be in use by the lab's own server only, also while no component of the lab needs it yet.
    if ports.holder(record.ports["postgres"]) not in {process.pid for process in processes.of_lab(paths.lab)}:
        ports.refuse_taken("postgres", record.ports["postgres"])
    supervisor = Supervisor(paths, record, report)
    # What a fresh cluster has is there before anything acts on it.
    storage, server, *others = plane.components()
    supervisor.bring_up([storage, server])
    manifests = CLUSTER.read_text("utf-8").replace("@VERSION@", version_of("kube-apiserver"))
    _kubectl(plane, "apply", "--server-side", "--force-conflicts", "--field-manager=lab", "-f", "-", stdin=manifests)
    uid = _kubectl(plane, "get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}")
    supervisor.bring_up(others)
    # Without its service account a namespace takes no pods; the controllers make it a moment after their start.
    _kubectl(plane, "wait", "--for=create", "serviceaccount/default", "--namespace=default", "--timeout=20s")
    target.write_all(paths, cluster_uid=uid, ports=record.ports, found=found)


def ensure_pki(folder: Path) -> Pki:
    """Make the lab's PKI at the first call, all or nothing. It is kept, as kubeconfigs contain its authority."""
    if folder.is_dir():
        return Pki(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    pki = Pki(unfinished)
    # The authority's key is not kept: nothing has to be signed later, and what is not there cannot leak.
    authority = certificates.self_signed(Wanted(common_name="lab-ca", is_authority=True, **KIND))
    write_private(pki.ca, authority.certificate)
    clients = {name: Wanted(common_name=user, organizations=groups, **KIND) for name, (user, groups) in CLIENTS.items()}
    for name, wanted in {"server": SERVER, **clients}.items():
        pair = certificates.signed_by(wanted, authority)
        write_private(pki.key(name), pair.key)
        write_private(pki.certificate(name), pair.certificate)
    account = certificates.new_key("ECDSA")
    write_private(pki.key("service-account"), certificates.private_pem(account))
    write_private(pki.service_account_public_key, certificates.public_pem(account))
    write_private(pki.tokens, f'{secrets.token_urlsafe(32)},lab-admin,lab-admin,"system:masters"\n')
    unfinished.rename(folder)
    return Pki(folder)


def write_kubeconfigs(plane: ControlPlane) -> None:
    """Write the admin's kubeconfig (token) and those of clients with a certificate; again when the port changed."""
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
            expected="the lab's API server accepts the command",
            next_step="./inv lab.status, then read .ops/lab/logs/kube-apiserver.log",
        )
    return done.stdout
