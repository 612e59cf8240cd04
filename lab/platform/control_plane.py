"""Declares the lab's processes: Kubernetes' real servers with KWOK as their nodes, the cloud, the operators.

It also knows how to reach them: the files of their keys, and the probe of a server's health.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.platform.paths import LabPaths
from lab.platform.ports import LOOPBACK
from lab.platform.supervisor import Component
from lab.toolchain import version_of
from runbooks.core.files import ROOT

PORTS = (
    "etcd",
    "etcd-peer",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "operators",
    "cloud",
)
CONFIG_OF_KWOK = Path(__file__).with_name("kwok.yaml")
SERVICE_RANGE = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"
ADMISSION_OFF = (
    # No pod runs, so nothing can answer a webhook.
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionWebhook",
    # Would taint every node until the node lifecycle controller, which the lab does not run, frees it.
    "TaintNodesByCondition",
)

CONTROLLERS = """
    clusterrole-aggregation cronjob daemonset deployment disruption endpoints endpointslice endpointslice-mirroring
    garbage-collector job namespace persistentvolume-binder persistentvolume-protection
    persistentvolumeclaim-protection pod-garbage-collector replicaset replicationcontroller resourcequota
    root-ca-certificate-publisher serviceaccount serviceaccount-token statefulset ttl-after-finished
"""
"""The needed controllers. Left out: nodes' health and addresses, certificates, autoscaling, attaching of volumes."""

LEAN = {"GOGC": "50", "GOMAXPROCS": str(min(4, os.cpu_count() or 1))}
"""Go's collector runs twice as often: about a third less memory for a few per cent of CPU."""


class Pki:
    """Files of keys and certificates: `<name>.crt` and `<name>.key` in one folder (0700), which `start.py` makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.crt"
        self.service_account_public_key = folder / "service-account.pub"
        # Static tokens of the API server (CSV: token, user, uid, groups).
        self.tokens = folder / "tokens.csv"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def kubeconfig(self, client: str) -> Path:
        """The kubeconfig of a client that has a certificate."""
        return self.folder / f"{client}.kubeconfig"

    def admin_token(self) -> str:
        return self.tokens.read_text("ascii").split(",", 1)[0]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server of the lab, and how clients authenticate to it."""

    port: int
    ca: Path | None = None
    """The lab's authority; None for plain HTTP."""
    client: tuple[Path, Path] | None = None
    """Certificate and key."""
    token: str = ""

    def trouble(self, path: str, timeout: float = 3.0) -> str:
        """Probe the server. Empty if `path` answers 200, else the other answer or error."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection = self._connection(timeout)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            lines = answer.read().decode("utf-8", "replace").splitlines()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on port {self.port} ({type(error).__name__})"
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.OK:
            return ""
        # `/readyz` lists its checks; a failed one begins with `[-]`.
        failed = [line for line in lines if line.startswith("[-]")]
        return f"{path} answers {answer.status}: {(failed or lines or ['no text'])[0][:200]}"

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.ca is None:
            return http.client.HTTPConnection(LOOPBACK, self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.client is not None:
            context.load_cert_chain(*self.client)
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=timeout, context=context)


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """The paths, keys, ports and programs that the declarations of components need."""

    paths: LabPaths
    pki: Pki
    ports: Mapping[str, int]
    tools: Mapping[str, Path]

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self.ports['kube-apiserver']}"

    def program(self, name: str) -> str:
        """Absolute path of a server, or its bare name if nothing will be started (`lab.status`)."""
        return str(self.tools.get(name, name))

    def components(self) -> list[Component]:
        """The components in the order of their start."""
        more = _flags(
            controllers=",".join(f"{name}-controller" for name in CONTROLLERS.split()),
            root_ca_file=self.pki.ca,
            service_account_private_key_file=self.pki.key("service-account"),
        )
        clients = [_client(self, "controller-manager", "/healthz", *more), _client(self, "scheduler", "/readyz")]
        return [_etcd(self), _api_server(self), *clients, _kwok(self), _cloud(self), _operators(self)]


def _flags(**flags: object) -> tuple[str, ...]:
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())


def _go_server(
    plane: ControlPlane, name: str, flags: tuple[str, ...], health: Endpoint, probed: str, **more: Any
) -> Component:
    return Component(
        name=name,
        argv=(plane.program(name), *flags),
        port=health.port,
        version=version_of(name),
        probe=lambda: health.trouble(probed),
        **{"env": LEAN, **more},
    )


def _etcd(plane: ControlPlane) -> Component:
    pki, port, peer = plane.pki, plane.ports["etcd"], plane.ports["etcd-peer"]
    client_url, peer_url = f"https://{LOOPBACK}:{port}", f"https://{LOOPBACK}:{peer}"
    flags = _flags(
        name="lab",
        data_dir=plane.paths.etcd_data,
        listen_client_urls=client_url,
        advertise_client_urls=client_url,
        listen_peer_urls=peer_url,
        initial_advertise_peer_urls=peer_url,
        initial_cluster=f"lab={peer_url}",
        client_cert_auth="true",
        trusted_ca_file=pki.ca,
        cert_file=pki.certificate("server"),
        key_file=pki.key("server"),
        peer_client_cert_auth="true",
        peer_trusted_ca_file=pki.ca,
        peer_cert_file=pki.certificate("server"),
        peer_key_file=pki.key("server"),
        snapshot_count=5000,  # so many entries of its log stay in memory
        log_level="warn",
    )
    login = (pki.certificate("apiserver-etcd"), pki.key("apiserver-etcd"))
    return _go_server(plane, "etcd", flags, Endpoint(port=port, ca=pki.ca, client=login), "/health", more_ports=(peer,))


def _api_server(plane: ControlPlane) -> Component:
    pki, port = plane.pki, plane.ports["kube-apiserver"]
    flags = _flags(
        bind_address=LOOPBACK,
        advertise_address=LOOPBACK,
        secure_port=port,
        endpoint_reconciler_type="none",  # endpoints may not be on loopback
        tls_cert_file=pki.certificate("server"),
        tls_private_key_file=pki.key("server"),
        client_ca_file=pki.ca,
        token_auth_file=pki.tokens,
        anonymous_auth="false",
        authorization_mode="RBAC",
        disable_admission_plugins=",".join(ADMISSION_OFF),
        etcd_servers=f"https://{LOOPBACK}:{plane.ports['etcd']}",
        etcd_cafile=pki.ca,
        etcd_certfile=pki.certificate("apiserver-etcd"),
        etcd_keyfile=pki.key("apiserver-etcd"),
        service_account_issuer=ISSUER,
        service_account_key_file=pki.service_account_public_key,
        service_account_signing_key_file=pki.key("service-account"),
        service_cluster_ip_range=SERVICE_RANGE,
        allow_privileged="true",  # as the proxies of Tailscale
        enable_priority_and_fairness="false",  # of no use to one user
        profiling="false",
    )
    health = Endpoint(port=port, ca=pki.ca, token=pki.admin_token())
    return _go_server(plane, "kube-apiserver", flags, health, "/readyz", needs=("etcd",), stop_within=15.0)


def _client(plane: ControlPlane, name: str, probed: str, *more: str) -> Component:
    """A component of Kubernetes that is a client of the API server. Its own port serves only its health."""
    pki, program = plane.pki, f"kube-{name}"
    port = plane.ports[program]
    flags = _flags(
        bind_address=LOOPBACK,
        secure_port=port,
        tls_cert_file=pki.certificate("server"),
        tls_private_key_file=pki.key("server"),
        kubeconfig=pki.kubeconfig(name),
        leader_elect="false",  # there is one of each
        kube_api_qps=200,  # a first deployment makes hundreds of objects at once
        kube_api_burst=400,
        profiling="false",
    )
    health = Endpoint(port=port, ca=pki.ca)
    return _go_server(plane, program, (*flags, *more), health, probed, needs=("kube-apiserver",))


def _kwok(plane: ControlPlane) -> Component:
    port = plane.ports["kwok"]
    flags = _flags(
        kubeconfig=plane.pki.kubeconfig("kwok"),
        config=CONFIG_OF_KWOK,
        server_address=f"{LOOPBACK}:{port}",
        tls_cert_file=plane.pki.certificate("server"),
        tls_private_key_file=plane.pki.key("server"),
    )
    # It would read the user's own ~/.kwok/kwok.yaml otherwise.
    more: Any = {"env": LEAN | {"KWOK_WORKDIR": str(plane.paths.lab / "kwok")}, "reads": (CONFIG_OF_KWOK,)}
    health = Endpoint(port=port, ca=plane.pki.ca)
    return _go_server(plane, "kwok", flags, health, "/healthz", needs=("kube-apiserver",), **more)


OF_PYTHON = {
    "PYTHONPATH": str(ROOT),
    # The working folder (the lab's state) has a folder called pulumi: it must not be importable.
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
}


def _cloud(plane: ControlPlane) -> Component:
    """The lab's cloud, which replaces the Pulumi Cloud: stacks and ESC environments."""
    port = plane.ports["cloud"]
    health = Endpoint(port=port)
    return Component(
        name="cloud",
        argv=(
            *(sys.executable, "-m", "lab.cloud", "--folder", str(plane.paths.cloud), "--port", str(port)),
            *("--evaluator", plane.program("esc-evaluator")),
        ),
        env=OF_PYTHON,
        reads=tuple(sorted((ROOT / "lab" / "cloud").glob("*.py"))),
        port=port,
        version=version_of("esc-evaluator"),
        probe=lambda: health.trouble("/healthz"),
    )


def _operators(plane: ControlPlane) -> Component:
    """The controllers that do what the absent pods would; they start the Postgres servers."""
    port = plane.ports["operators"]
    health = Endpoint(port=port)
    return Component(
        name="operators",
        argv=(sys.executable, "-m", "lab.operators", "--lab-dir", str(plane.paths.lab)),
        env=OF_PYTHON
        | {
            "OPS_STATE": str(plane.paths.state_dir),
            "KUBECONFIG": str(plane.paths.kubeconfig),
            "LAB_HEALTH_PORT": str(port),
            "LAB_POSTGRES_PORT": str(plane.ports["postgres"]),
        },
        reads=tuple(sorted((ROOT / "lab" / "operators").glob("*.py"))),
        port=port,
        needs=("kube-apiserver",),
        # Postgres gets the time for a fast shutdown.
        stop_within=20.0,
        probe=lambda: health.trouble("/healthz"),
    )
