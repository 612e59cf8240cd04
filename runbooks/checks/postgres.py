"""Does the shared Postgres answer SQL to a client that has nothing but the stack's outputs?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runbooks.checks import cnpg, exposure, listener, sql, tailscale
from runbooks.checks.cluster import Cluster, cluster_of, network_of, patience, shown, untried
from runbooks.checks.workloads import has_endpoints, secret_has_keys, seen
from runbooks.core.findings import Check, Finding, failed, not_tried, passed, run_checks
from runbooks.stacks import states
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import has_stack
from runbooks.tools import network
from runbooks.tools.kubectl import Json, condition, dig, is_current, text_at

CLUSTER = "postgresql-cluster"
CLUSTER_KIND = "clusters.postgresql.cnpg.io"
SUPERUSER_SECRET = f"{CLUSTER}-superuser"
RW_SERVICE = f"{CLUSTER}-rw"
EXPOSED_SERVICE = f"{CLUSTER}-rw-ext"
REQUIRED_OUTPUTS = ("host", "port", "username", "password", "ts_hostname", "k8s_namespace")

OUTPUTS_THERE = "the stack exports what a client needs"
CLUSTER_READY = "the Postgres cluster is Ready"
SECRET_THERE = f"the Secret {SUPERUSER_SECRET} is there"
RW_HAS_ENDPOINTS = f"the Service {RW_SERVICE} has an endpoint"
SERVICE_EXPOSED = f"the Service {EXPOSED_SERVICE} asks to be on the tailnet"
EXPORTED_CONNECTS = "the exported name and port take a TCP connection"
LISTENER_IS_OURS = "what listens there is the lab's own server"
SQL_ANSWERS = "the server answers SQL as the exported user"

_PHASE_CAUSES = {
    "Cluster is unrecoverable and needs manual intervention": "the instances' data cannot be recovered by the operator",
    "Waiting for user action": "the operator waits for somebody: an update strategy that asks, or a manual switchover",
    "Unable to create required cluster objects": "the operator lacks a right, or an object of that name is not its own",
    "Cluster has incomplete or invalid image catalog": "the image catalog lacks this major version",
    "Setting up primary": "the first instance is still being made: its volume, or its image, is not there yet",
}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a client gets from the stack."""

    namespace: str
    name: str
    """`ts_hostname`, else `host`: what a client on the tailnet uses."""
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)


def verify(session: Session, service: Service) -> list[Finding]:
    """Operator, cluster, Secret, endpoints, exposure, connection, SQL."""
    cluster = cluster_of(session)
    exported: list[Outputs] = []
    before = [cnpg.operator_is_ready(session, cluster), outputs_are_there(session, service, exported)]
    findings = shown(session, run_checks(before))
    if not exported:
        return findings + shown(session, run_checks(_unreached(findings[-1])))
    return findings + shown(session, run_checks(_checks(session, cluster, exported[0])))


def _unreached(stopped_at: Finding) -> list[Check]:
    why = f"needs: {stopped_at.check}"
    names = (CLUSTER_READY, SECRET_THERE, RW_HAS_ENDPOINTS, SERVICE_EXPOSED, EXPORTED_CONNECTS, SQL_ANSWERS)
    return [Check(name=check, look=lambda check=check: not_tried(check, why)) for check in names]  # type: ignore[misc]


def _checks(session: Session, cluster: Cluster, exported: Outputs) -> list[Check]:
    lab_only = [Check(name=LISTENER_IS_OURS, look=lambda: listener_is_ours(session, exported.port))]
    return [
        Check(
            name=CLUSTER_READY,
            look=lambda: seen(CLUSTER_READY, lambda: cluster_is_ready(_cluster(cluster, exported), exported.namespace)),
            patience=patience(session, 120.0),
        ),
        Check(name=SECRET_THERE, look=lambda: _secret_is_there(cluster, exported)),
        Check(name=RW_HAS_ENDPOINTS, look=lambda: _rw_has_endpoints(cluster, exported)),
        *_exposure_checks(session, cluster, exported),
        Check(
            name=EXPORTED_CONNECTS,
            look=lambda: exported_connects(session, exported),
            patience=patience(session, tailscale.NETWORK_TAKES),
        ),
        *(lab_only if session.target.ephemeral else []),
        Check(name=SQL_ANSWERS, look=lambda: answers_sql(exported), patience=patience(session, 10.0)),
    ]


# --- the stack's outputs -----------------------------------------------------------------------------------------


def outputs_are_there(session: Session, service: Service, exported: list[Outputs]) -> Check:
    """Puts them into `exported`. Secret ones are registered with the masker first and stay in memory."""
    next_step = f"./inv deploy.{service.name}"

    def look() -> Finding:
        stack = session.stack(service)
        if not has_stack(session, stack):
            return failed(OUTPUTS_THERE, "there is no such stack yet", cause="never deployed here", next_step=next_step)
        outputs = states.clear_state(session, stack).outputs
        missing = [name for name in REQUIRED_OUTPUTS if outputs.get(name) in (None, "")]
        if missing:
            cause = "the stack was not deployed to its end"
            told = f"no output {', '.join(missing)}"
            return failed(OUTPUTS_THERE, told, cause=cause, next_step=next_step)
        exported.append(read_outputs(outputs))
        return passed(OUTPUTS_THERE, f"{exported[0].name}:{exported[0].port}, namespace {exported[0].namespace}")

    return Check(name=OUTPUTS_THERE, look=look)


def read_outputs(outputs: Mapping[str, Any]) -> Outputs:
    return Outputs(
        namespace=str(outputs["k8s_namespace"]),
        name=str(outputs.get("ts_hostname") or outputs["host"]),
        port=int(outputs["port"]),
        user=str(outputs["username"]),
        password=str(outputs["password"]),
    )


# --- in the cluster ----------------------------------------------------------------------------------------------


def _cluster(cluster: Cluster, exported: Outputs) -> Json | None:
    return cluster.object(CLUSTER_KIND, exported.namespace, CLUSTER)


def cluster_is_ready(obj: Json | None, namespace: str) -> Finding:
    """Condition `Ready` is True for the newest generation, and every instance is ready."""
    step = f"kubectl -n {namespace} describe {CLUSTER_KIND} {CLUSTER}"
    if obj is None:
        cause = "the stack did not make it, or it was deleted by hand"
        return failed(CLUSTER_READY, f"no Cluster {CLUSTER} in {namespace}", cause=cause, next_step=step, final=True)
    phase = text_at(obj, "status", "phase") or "no phase yet"
    told = f"{dig(obj, 'status', 'readyInstances') or 0} of {dig(obj, 'spec', 'instances')} instances ready, {phase}"
    ready = condition(obj, "Ready")
    if ready is None or not ready.is_true or not is_current(obj):
        cause = _PHASE_CAUSES.get(phase, "the operator is not done with it, or cannot go on: its events say why")
        return failed(CLUSTER_READY, told, cause=cause, next_step=step)
    return passed(CLUSTER_READY, told)


def _secret_is_there(cluster: Cluster, exported: Outputs) -> Finding:
    step = f"kubectl -n {exported.namespace} get secrets; ./inv repair.postgres"
    cause = "superuser access is off (the operator then deletes the Secret), or the stack did not make it"
    return seen(
        SECRET_THERE,
        lambda: secret_has_keys(
            SECRET_THERE,
            cluster.secret(exported.namespace, SUPERUSER_SECRET),
            ("username", "password"),
            cause=cause,
            next_step=step,
        ),
        next_step=step,
    )


def _rw_has_endpoints(cluster: Cluster, exported: Outputs) -> Finding:
    step = f"kubectl -n {exported.namespace} get pods -l cnpg.io/cluster={CLUSTER}"
    return seen(
        RW_HAS_ENDPOINTS,
        lambda: has_endpoints(
            RW_HAS_ENDPOINTS,
            cluster.endpoint_slices(exported.namespace, RW_SERVICE),
            service=RW_SERVICE,
            next_step=step,
            cause="Postgres auth and connection errors: no primary is ready behind the Service",
        ),
        next_step=step,
    )


# --- over the tailnet --------------------------------------------------------------------------------------------


def _exposure_checks(session: Session, cluster: Cluster, exported: Outputs) -> list[Check]:
    """The checks of an exposed Service; the exported name takes the place of the device's own in the last checks."""
    wanted = exposure.Exposure(
        kind=exposure.Kind.SERVICE,
        namespace=exported.namespace,
        name=EXPOSED_SERVICE,
        hostname=exported.name.partition(".")[0],
        ports=(exported.port,),
        obj={},
    )
    ways = network_of(session)
    own = {exposure.NAME_RESOLVES, exposure.PORT_CONNECTS}
    checks = [check for check in tailscale.checks(session, cluster, wanted) if check.name not in own]
    return [
        Check(name=SERVICE_EXPOSED, look=lambda: seen(SERVICE_EXPOSED, lambda: is_exposed(cluster, exported))),
        tailscale.operator_is_available(session, cluster),
        *checks,
        untried(exposure.NAME_RESOLVES)
        if ways is None
        else Check(
            name=exposure.NAME_RESOLVES,
            look=lambda: _resolves(session, wanted, exported, ways),
            patience=patience(session, tailscale.NETWORK_TAKES),
        ),
    ]


def is_exposed(cluster: Cluster, exported: Outputs) -> Finding:
    step = "./inv repair.postgres"
    obj = cluster.object("services", exported.namespace, EXPOSED_SERVICE)
    if obj is None:
        cause = "the stack did not make it, or it was deleted by hand"
        return failed(SERVICE_EXPOSED, f"no Service {EXPOSED_SERVICE}", cause=cause, next_step=step)
    if not exposure.is_exposed_service(obj):
        told = f"{EXPOSED_SERVICE} lacks {exposure.EXPOSE}: true"
        return failed(SERVICE_EXPOSED, told, cause=exposure.NO_PROXY, next_step=step)
    hostname = exposure.exposure_of(obj).hostname
    if hostname != exported.name.partition(".")[0]:
        cause = "verify ts_hostname: the stack's output and the Service's annotation disagree"
        told = f"it asks for {hostname}, exported is {exported.name}"
        return failed(SERVICE_EXPOSED, told, cause=cause, next_step=step)
    return passed(SERVICE_EXPOSED, f"{exposure.HOSTNAME}: {hostname}")


def _resolves(session: Session, wanted: exposure.Exposure, exported: Outputs, ways: network.Network) -> Finding:
    def judge() -> Finding:
        device = exposure.device_of(wanted, tailscale.state_secrets(session, cluster_of(session), wanted))
        return exposure.name_resolves(exported.name, device or exposure.Device(fqdn=""), ways)

    return seen(exposure.NAME_RESOLVES, judge)


def exported_connects(session: Session, exported: Outputs) -> Finding:
    """What a client does first. In the lab this is the real server on this machine."""
    try:
        network.connect(exported.name, exported.port)
    except OSError as error:
        cause = "verify ts_hostname, the Service's endpoints and the tailnet's ACLs"
        step = "./inv lab.status" if session.target.ephemeral else f"nc -vz {exported.name} {exported.port}"
        return failed(EXPORTED_CONNECTS, f"{exported.name}:{exported.port}: {error}", cause=cause, next_step=step)
    return passed(EXPORTED_CONNECTS, f"{exported.name}:{exported.port}")


def listener_is_ours(session: Session, port: int) -> Finding:
    """The process behind the port works in the lab's folder; only then is the password worth sending."""
    home = session.state_dir / "lab"
    cause = "another program holds the lab's port, so the password is not sent"
    try:
        found = listener.listeners(port)
    except listener.CannotTell as error:
        return failed(LISTENER_IS_OURS, str(error), cause=cause, next_step="./inv lab.status")
    if not listener.all_within(found, home):
        told = ", ".join(f"pid {one.pid} ({one.program}) in {one.folder}" for one in found) or f"nobody on port {port}"
        return failed(LISTENER_IS_OURS, told, cause=cause, next_step="./inv lab.status")
    return passed(LISTENER_IS_OURS, f"pid {found[0].pid}, data folder {found[0].folder}")


def answers_sql(exported: Outputs) -> Finding:
    """`select version()` with the exported user and password over the exported name and port."""
    login = sql.Login(host=exported.name, port=exported.port, user=exported.user, password=exported.password)
    try:
        version = sql.select_version(login)
    except sql.SqlFailed as error:
        step = "kubectl get endpointslices -A; ./inv outputs.postgres"
        return failed(SQL_ANSWERS, error.reason, cause=error.cause, next_step=step)
    return passed(SQL_ANSWERS, version)
