"""Does the Cloudflare tunnel's controller work, do its connectors hold connections, and is what is public there?"""

from __future__ import annotations

import json

from runbooks.checks import generic, inside, public, tunnel
from runbooks.checks.cluster import Cluster, cluster_of, looked_at, patience, shown, simulated, workloads
from runbooks.checks.inside import CONNECTED, Get, Inside
from runbooks.checks.workloads import deployment_is_available, secret_has_keys
from runbooks.core.findings import Check, Finding, failed, passed, run_checks
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import find, text_at

CONTROLLER = "cloudflare-tunnel-ingress-controller"
CONNECTORS = "controlled-cloudflared-connector"
LOGIN_SECRET = "cloudflare-api"  # noqa: S105 - the name of the Secret
LOGIN_KEYS = ("api-token", "cloudflare-account-id", "cloudflare-tunnel-name")
METRICS_PORT = 44483
READY_PATH = "/ready"
"""cloudflared's own: status 200 and `readyConnections`, or 503 while it has none."""

LOGIN_THERE = "the controller has its login at Cloudflare"
CONTROLLER_READY = "the tunnel's controller is available"
CLASS_IS_SERVED = "the ingress class `cloudflare-tunnel` belongs to the controller"
CONNECTORS_READY = "the connectors are available"
CANNOT_LOGIN = (
    "the controller cannot log in to Cloudflare: check api_token (Zone Read, DNS Edit, Cloudflare Tunnel Edit) and "
    "account_id; it reads them at its start only"
)
NOT_CONNECTED = "the connectors reach no edge of Cloudflare: the tunnel was deleted there, or port 7844 is closed"


def verify(session: Session, service: Service) -> list[Finding]:
    """Login, controller, class, connectors, connections; then each public Ingress of the cluster."""
    cluster = cluster_of(session)
    checks = [
        generic.stack_is_deployed(session, service),
        login_is_there(session, service, cluster),
        available(session, service, CONTROLLER_READY, CONTROLLER, CANNOT_LOGIN),
        class_is_served(session),
        available(session, service, CONNECTORS_READY, CONNECTORS, NOT_CONNECTED),
        connections(session, service),
        workloads(session, service),
    ]
    return shown(session, run_checks(checks)) + public.exposed(session, cluster)


def login_is_there(session: Session, service: Service, cluster: Cluster) -> Check:
    def judge() -> Finding:
        secret = cluster.secret(service.namespace, LOGIN_SECRET)
        cause = "the stack did not make the Secret, or its settings were empty"
        return secret_has_keys(LOGIN_THERE, secret, LOGIN_KEYS, cause=cause, next_step="./inv repair.cf-tunnel")

    return looked_at(session, LOGIN_THERE, judge)


def available(session: Session, service: Service, check: str, name: str, cause: str) -> Check:
    cluster = cluster_of(session)
    step = f"kubectl -n {service.namespace} logs deploy/{name} --tail=20"

    def judge() -> Finding:
        deploy = "./inv deploy.cf-tunnel"
        found = cluster.deployment(service.namespace, name)
        return deployment_is_available(check, found, cause=cause, next_step=step, deploy=deploy)

    return looked_at(session, check, judge, next_step=step, wait=60.0)


def class_is_served(session: Session) -> Check:
    def judge() -> Finding:
        name = tunnel.INGRESS_CLASS
        found = find(session.runner, session.kubectl.get("ingressclasses.networking.k8s.io", name))
        controller = text_at(found, "spec", "controller")
        if controller != tunnel.INGRESS_CONTROLLER:
            told = f"its controller is {controller}" if found else f"there is no ingress class {name}"
            return failed(CLASS_IS_SERVED, told, cause=tunnel.NO_CONTROLLER, next_step="kubectl get ingressclass")
        return passed(CLASS_IS_SERVED, f"{name}: {controller}")

    return looked_at(session, CLASS_IS_SERVED, judge, goes_on=True)


def connections(session: Session, service: Service) -> Check:
    """Running proves nothing: a connector whose tunnel is gone runs and tries for ever."""
    where = Inside(namespace=service.namespace, service=f"{CONNECTORS}-headless", port=METRICS_PORT)
    if session.target.ephemeral:
        return simulated(CONNECTED, where)
    get = inside.get_inside(session.runner, session.kubectl, where)
    return Check(name=CONNECTED, look=lambda: holds_connections(where, get), patience=patience(session, 60.0))


def holds_connections(where: Inside, get: Get) -> Finding:
    """cloudflared says how many connections to the edge it holds; usually four."""
    step = f"kubectl -n {where.namespace} logs deploy/{CONNECTORS} --tail=20"
    try:
        answer = get(READY_PATH)
    except TimeoutError as error:
        return failed(CONNECTED, f"{where}: {error}", cause=inside.SLOW, next_step=step)
    except OSError as error:
        return failed(CONNECTED, f"{where}: {error}", cause=inside.UNREACHABLE, next_step=step)
    refusal = inside.refusal_of(answer)
    if refusal is not None:
        told = f"the API server says: {text_at(refusal, 'message')}"
        return failed(CONNECTED, told, cause=inside.UNREACHABLE, next_step=step)
    count = read_connections(answer.body)
    if count is None:
        told = f"{where}: status {answer.status}, without readyConnections"
        return failed(CONNECTED, told, cause=inside.OTHER, next_step=step)
    if answer.status != 200 or count < 1:
        return failed(CONNECTED, f"{count} connections", cause=NOT_CONNECTED, next_step=step)
    return passed(CONNECTED, f"{count} connections")


def read_connections(body: str) -> int | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    count = found.get("readyConnections") if isinstance(found, dict) else None
    return count if isinstance(count, int) else None
