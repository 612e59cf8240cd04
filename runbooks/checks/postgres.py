"""Does the shared Postgres answer SQL to a client that knows only the stack's outputs?

In the lab the password is sent only to the lab's own server: `listener_is_ours` checks that first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runbooks.checks import cluster, cnpg, sql, tailscale
from runbooks.core.findings import Check, Finding, failed, passed
from runbooks.core.processes import Listener, ListenerUnknown, listeners
from runbooks.stacks.preparation import clear_state, has_stack
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import network
from runbooks.tools.kubectl import Json, annotations_of, condition, dig, is_current, metadata, text_at

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
    "Waiting for user action": "the operator waits for the user: an update strategy that asks, or a manual switchover",
    "Unable to create required cluster objects": "the operator lacks a right, or an object of that name is not its own",
    "Cluster has incomplete or invalid image catalog": "the image catalog lacks this major version",
    "Not enough disk space": "a volume is full, and the operator does not resize a full one: enlarge its "
    "PersistentVolumeClaim first, then the size in the stack's config",
    "Setting up primary": "the first instance is still being created: its volume or its image is missing",
}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a client gets from the stack."""

    name: str
    """`ts_hostname`: what a client on the tailnet uses."""
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)


def verify(session: Session, service: Service) -> list[Finding]:
    """Check operator, cluster, Secret, endpoints, exposure, connection and SQL.

    The connection uses the exported name instead of the device's, as clients do.
    """
    exported, namespace = list[Outputs](), service.namespace
    no_superuser = "superuser access is off (the operator then deletes the Secret), or the stack did not create it"
    no_primary = "Postgres auth and connection errors: no primary is ready behind the Service"
    # Its first check reads the object.
    unread = tailscale.Exposure(obj={"kind": "Service", "metadata": {"namespace": namespace, "name": EXPOSED_SERVICE}})
    exposure = tailscale.exposure_checks(session, unread, name=lambda: exported[0].name)
    address = ("services", namespace, EXPOSED_SERVICE)
    connect_takes = tailscale.NETWORK_TAKES
    checks = [
        cnpg.operator_is_ready(
            session, cluster.in_its_namespace(session, session.service("cnpg")), deploy=service.name
        ),
        Check(name=OUTPUTS_THERE, look=lambda: outputs_are_there(session, OUTPUTS_THERE, exported)),
        cluster.object_check(session, CLUSTER_READY, (CLUSTER_KIND, namespace, CLUSTER), cluster_is_ready, wait=120.0),
        cluster.secret_check(
            session, SECRET_THERE, service, SUPERUSER_SECRET, ("username", "password"), cause=no_superuser
        ),
        cluster.endpoint_check(session, RW_HAS_ENDPOINTS, namespace, RW_SERVICE, cause=no_primary),
        cluster.object_check(session, SERVICE_EXPOSED, address, is_exposed, next_step="./inv repair.postgres"),
        tailscale.operator_is_available(session, tailscale.operator_of(session)),
        # `EXPORTED_CONNECTS` replaces the last exposure check, as the lab can try it too.
        *(check for check in exposure if check.name != tailscale.PORT_CONNECTS),
        cluster.make_check(
            session, EXPORTED_CONNECTS, lambda: exported_connects(session, exported[0]), wait=connect_takes
        ),
        *listener_check(session, exported),
        cluster.make_check(session, SQL_ANSWERS, lambda: answers_sql(exported[0]), wait=10.0),
    ]
    return cluster.run_and_report(session, checks)


def outputs_are_there(session: Session, check: str, exported: list[Outputs]) -> Finding:
    """Put the outputs of the Postgres stack into `exported`.

    Secret outputs are registered with the masker first and stay in memory.
    """
    stack = session.stack(session.service("postgres"))
    is_there = has_stack(session, stack)
    outputs = clear_state(session, stack).outputs if is_there else {}
    missing = [name for name in REQUIRED_OUTPUTS if outputs.get(name) in (None, "")]
    if missing:
        evidence = "" if is_there else "there is no such stack yet: "
        evidence += f"{stack.reference} has no output {', '.join(missing)}"
        cause = "the stack's deployment did not finish" if is_there else "it is not deployed here"
        return failed(check, evidence, cause=cause, next_step="./inv deploy.postgres")
    found = Outputs(
        name=str(outputs["ts_hostname"]),
        port=int(outputs["port"]),
        user=str(outputs["username"]),
        password=str(outputs["password"]),
    )
    exported.append(found)
    return passed(check, f"{found.name}:{found.port}, namespace {outputs['k8s_namespace']}")


def cluster_is_ready(obj: Json) -> Finding:
    """Condition `Ready` is True for the newest generation, and every instance is ready."""
    step = f"kubectl -n {metadata(obj)[0]} describe {CLUSTER_KIND} {CLUSTER}"
    phase = text_at(obj, "status", "phase") or "no phase yet"
    reason = text_at(obj, "status", "phaseReason")
    count, wanted = dig(obj, "status", "readyInstances") or 0, dig(obj, "spec", "instances")
    evidence = f"{count} of {wanted} instances ready, {phase}" + (f" ({reason})" if reason else "")
    primary, target = (text_at(obj, "status", key) for key in ("currentPrimary", "targetPrimary"))
    if stopped := _stopped_on_purpose(obj):
        evidence, cause = f"{evidence}: {stopped[0]}", stopped[1]
    elif primary and primary != target:
        evidence += f": {primary} is the primary, {target or 'none'} is to be"
        cause = "a switchover or failover, which passes within a minute; if it does not, look at the target's Pod"
    elif (ready := condition(obj, "Ready")) is None or not ready.is_true or not is_current(obj):
        cause = _PHASE_CAUSES.get(phase, "the operator is not done with it, or cannot go on: look at its events")
    elif isinstance(wanted, int) and count < wanted:
        # The condition is True while the primary serves, also with a replica that is down.
        cause = _PHASE_CAUSES.get(phase, "an instance does not run: look at its Pod and its volume")
    else:
        return passed(CLUSTER_READY, evidence)
    return failed(CLUSTER_READY, evidence, cause=cause, next_step=step)


def _stopped_on_purpose(obj: Json) -> tuple[str, str] | None:
    """Why a user stopped the cluster, and how to undo that. CNPG leaves `Ready` and its phase unchanged.

    Source: cloudnative-pg, docs on declarative hibernation and fencing.
    """
    hibernated = condition(obj, "cnpg.io/hibernation")
    if (hibernated and hibernated.is_true) or annotations_of(obj).get("cnpg.io/hibernation") == "on":
        return "it is hibernated", "its annotation is cnpg.io/hibernation=on; the annotation set to off starts it again"
    fenced = annotations_of(obj).get("cnpg.io/fencedInstances", "")
    if fenced not in ("", "[]"):
        return f"fenced: {fenced}", "Postgres is stopped there until the annotation cnpg.io/fencedInstances is removed"
    return None


def is_exposed(obj: Json) -> Finding:
    """The Service is annotated for the tailnet. The exposure checks compare its name with the exported one."""
    if not tailscale.is_exposed_service(obj):
        evidence = f"{EXPOSED_SERVICE} lacks {tailscale.EXPOSE}: true"
        return failed(SERVICE_EXPOSED, evidence, cause=tailscale.NO_PROXY, next_step="./inv repair.postgres")
    return passed(SERVICE_EXPOSED, f"{EXPOSED_SERVICE} is annotated or of the operator's class")


def exported_connects(session: Session, exported: Outputs) -> Finding:
    """The exported name and port accept a TCP connection. In the lab this is the real server on this machine."""
    try:
        network.connect(exported.name, exported.port)
    except OSError as error:
        cause = "verify ts_hostname, the Service's endpoints and the tailnet's ACLs"
        step = "./inv lab.status" if session.target.ephemeral else f"nc -vz {exported.name} {exported.port}"
        return failed(EXPORTED_CONNECTS, f"{exported.name}:{exported.port}: {error}", cause=cause, next_step=step)
    return passed(EXPORTED_CONNECTS, f"{exported.name}:{exported.port}")


def answers_sql(exported: Outputs) -> Finding:
    """The server answers `select version()` with the exported user and password, at the exported name and port."""
    login = sql.Login(host=exported.name, port=exported.port, user=exported.user, password=exported.password)
    try:
        version = sql.select_version(login)
    except sql.SqlFailed as error:
        step = "./inv repair.postgres; ./inv outputs.postgres"
        return failed(SQL_ANSWERS, error.reason, cause=error.cause, next_step=step)
    return passed(SQL_ANSWERS, version)


# --- who listens on a port of this machine -----------------------------------------------------------------------


def all_within(found: list[Listener], folder: Path) -> bool:
    """Whether every listener works inside `folder`, links resolved. False without any listener."""
    home = folder.resolve()
    return bool(found) and all(listener.folder.is_relative_to(home) for listener in found)


def listener_check(session: Session, server: list[Outputs]) -> list[Check]:
    """In the lab, the check that the server is the lab's own; else none. An earlier check fills `server`."""
    if not session.target.ephemeral:
        return []
    return [Check(name=LISTENER_IS_OURS, look=lambda: listener_is_ours(session, server[0].port))]


def listener_is_ours(session: Session, port: int) -> Finding:
    """The process behind the port works in the lab's folder; only then may the password be sent."""
    cause = "another program holds the lab's port, so the password is not sent"
    try:
        found = listeners(port)
    except ListenerUnknown as error:
        return failed(LISTENER_IS_OURS, str(error), cause=cause, next_step="./inv lab.status")
    if not all_within(found, session.state_dir / "lab"):
        processes = ", ".join(f"pid {one.pid} ({one.program}) in {one.folder}" for one in found)
        evidence = processes or f"no process listens on port {port}"
        return failed(LISTENER_IS_OURS, evidence, cause=cause, next_step="./inv lab.status")
    return passed(LISTENER_IS_OURS, f"pid {found[0].pid}, data folder {found[0].folder}")
