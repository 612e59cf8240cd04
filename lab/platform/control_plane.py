"""The real Kubernetes servers on loopback, and KWOK as their nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.platform.api import Endpoint
from lab.platform.keys import Pki
from lab.platform.parts import Part
from lab.platform.paths import LabPaths
from lab.platform.ports import LOOPBACK
from lab.toolchain import version_of

PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
SETTINGS_OF_KWOK = Path(__file__).with_name("kwok.yaml")
SERVICE_RANGE = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"
NODES = {"lab-1": "10.243.0.1", "lab-2": "10.243.0.2"}
"""The cluster's nodes and the addresses they claim; nothing listens there."""

ADMISSION_OFF = (
    # No pod runs, so nothing can answer a webhook.
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionWebhook",
    # Would taint every node until the node lifecycle controller, which the lab goes without, frees it.
    "TaintNodesByCondition",
)

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "replicationcontroller-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
)
"""What moves the objects of a platform. Left out: nodes' health and addresses, certificates, autoscaling, attaching."""

LEAN = {"GOGC": "50", "GOMAXPROCS": str(min(4, os.cpu_count() or 1))}
"""Go's collector runs twice as often: about a third less memory for a few per cent of CPU."""


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """Everything the declarations below need to know."""

    paths: LabPaths
    pki: Pki
    ports: Mapping[str, int]
    tools: Mapping[str, Path]

    @property
    def api(self) -> Endpoint:
        """The API server, as the lab's admin."""
        return Endpoint(port=self.ports["kube-apiserver"], ca=self.pki.ca, token=self.pki.admin_token())

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self.ports['kube-apiserver']}"

    def program(self, name: str) -> str:
        """Absolute path of a server, or its bare name where nothing is going to be started (`lab.status`)."""
        return str(self.tools.get(name, name))

    def parts(self) -> list[Part]:
        """In the order of their start."""
        return [_etcd(self), _api_server(self), _controller_manager(self), _scheduler(self), _kwok(self)]

    def kubeconfig(self, client: str) -> Path:
        """Kubeconfig of one of the clients that have a certificate."""
        return self.pki.folder / f"{client}.kubeconfig"


def _flags(**flags: object) -> tuple[str, ...]:
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())


def _etcd(plane: ControlPlane) -> Part:
    pki, port, peer = plane.pki, plane.ports["etcd"], plane.ports["etcd-peer"]
    client_url, peer_url = f"https://{LOOPBACK}:{port}", f"https://{LOOPBACK}:{peer}"
    client = Endpoint(
        port=port, ca=pki.ca, certificate=pki.certificate("apiserver-etcd"), key=pki.key("apiserver-etcd")
    )
    return Part(
        name="etcd",
        argv=(
            plane.program("etcd"),
            *_flags(
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
                snapshot_count=5000,
                log_level="warn",
            ),
        ),
        env=LEAN,
        port=port,
        more_ports=(peer,),
        version=version_of("etcd"),
        probe=lambda: client.trouble("/health"),
    )


def _api_server(plane: ControlPlane) -> Part:
    pki, port = plane.pki, plane.ports["kube-apiserver"]
    api = plane.api
    return Part(
        name="kube-apiserver",
        argv=(
            plane.program("kube-apiserver"),
            *_flags(
                bind_address=LOOPBACK,
                advertise_address=LOOPBACK,
                secure_port=port,
                endpoint_reconciler_type="none",
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
                service_account_signing_key_file=pki.service_account_key,
                service_cluster_ip_range=SERVICE_RANGE,
                allow_privileged="true",
                enable_priority_and_fairness="false",
                profiling="false",
            ),
        ),
        env=LEAN,
        port=port,
        version=version_of("kube-apiserver"),
        needs=("etcd",),
        stop_within=15.0,
        probe=lambda: api.trouble("/readyz"),
    )


def _controller_manager(plane: ControlPlane) -> Part:
    pki, port = plane.pki, plane.ports["kube-controller-manager"]
    health = Endpoint(port=port, ca=pki.ca)
    return Part(
        name="kube-controller-manager",
        argv=(
            plane.program("kube-controller-manager"),
            *_flags(
                bind_address=LOOPBACK,
                secure_port=port,
                tls_cert_file=pki.certificate("server"),
                tls_private_key_file=pki.key("server"),
                kubeconfig=plane.kubeconfig("controller-manager"),
                controllers=",".join(CONTROLLERS),
                leader_elect="false",
                root_ca_file=pki.ca,
                service_account_private_key_file=pki.service_account_key,
                kube_api_qps=200,
                kube_api_burst=400,
                profiling="false",
            ),
        ),
        env=LEAN,
        port=port,
        version=version_of("kube-controller-manager"),
        needs=("kube-apiserver",),
        probe=lambda: health.trouble("/healthz"),
    )


def _scheduler(plane: ControlPlane) -> Part:
    pki, port = plane.pki, plane.ports["kube-scheduler"]
    health = Endpoint(port=port, ca=pki.ca)
    return Part(
        name="kube-scheduler",
        argv=(
            plane.program("kube-scheduler"),
            *_flags(
                bind_address=LOOPBACK,
                secure_port=port,
                tls_cert_file=pki.certificate("server"),
                tls_private_key_file=pki.key("server"),
                kubeconfig=plane.kubeconfig("scheduler"),
                leader_elect="false",
                kube_api_qps=200,
                kube_api_burst=400,
                profiling="false",
            ),
        ),
        env=LEAN,
        port=port,
        version=version_of("kube-scheduler"),
        needs=("kube-apiserver",),
        probe=lambda: health.trouble("/readyz"),
    )


def _kwok(plane: ControlPlane) -> Part:
    port = plane.ports["kwok"]
    health = Endpoint(port=port, ca=plane.pki.ca)
    return Part(
        name="kwok",
        argv=(
            plane.program("kwok"),
            *_flags(
                kubeconfig=plane.kubeconfig("kwok"),
                config=SETTINGS_OF_KWOK,
                server_address=f"{LOOPBACK}:{port}",
                tls_cert_file=plane.pki.certificate("server"),
                tls_private_key_file=plane.pki.key("server"),
            ),
        ),
        # It would read the person's own ~/.kwok/kwok.yaml otherwise.
        env=LEAN | {"KWOK_WORKDIR": str(plane.paths.lab / "kwok")},
        reads=(SETTINGS_OF_KWOK,),
        port=port,
        version=version_of("kwok"),
        needs=("kube-apiserver",),
        probe=lambda: health.trouble("/healthz"),
    )
