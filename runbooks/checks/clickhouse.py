"""Does ClickHouse answer a query of the user that apps log in as?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runbooks.checks import generic, inside
from runbooks.checks.cluster import Cluster, cluster_of, endpoint, looked_at, patience, shown, simulated, workloads
from runbooks.checks.inside import SELECTS, Get, Inside, Page
from runbooks.checks.workloads import deployment_is_available
from runbooks.core.findings import Check, Finding, failed, passed, run_checks
from runbooks.stacks import states
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, dig, text_at
from runbooks.tools.network import Answer

KIND = "clickhouseinstallations.clickhouse.altinity.com"
INSTALLATION = "clickhouse"
SERVICE = f"clickhouse-{INSTALLATION}"
OPERATOR_LABELS = "app.kubernetes.io/name=altinity-clickhouse-operator"
REQUIRED_OUTPUTS = ("username", "password", "http_port", "k8s_namespace")
QUERY = Page(path="/?query=select%201", marker="1\n")

OPERATOR_READY = "the ClickHouse operator is ready"
COMPLETED = "the operator completed the installation"
HAS_ENDPOINT = "its Service has an endpoint"
OUTPUTS_THERE = "the stack exports a login"
LOGIN_REFUSED = (
    "the exported password is not the server's, or this user may not come from the API server's network: "
    "see clickhouse:networks"
)


@dataclass(frozen=True, kw_only=True)
class Login:
    """What the stack exports for apps."""

    where: Inside
    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-ClickHouse-User": self.user, "X-ClickHouse-Key": self.password}


def verify(session: Session, service: Service) -> list[Finding]:
    """Operator, installation, endpoints, login, query."""
    cluster = cluster_of(session)
    exported: list[Login] = []
    checks = [
        generic.stack_is_deployed(session, service),
        operator_is_ready(session, service, cluster),
        installation(session, service, cluster),
        endpoint(session, cluster, HAS_ENDPOINT, service.namespace, SERVICE),
        workloads(session, service, required=True),
        outputs(session, service, exported),
        query(session, exported),
    ]
    return shown(session, run_checks(checks))


def operator_is_ready(session: Session, service: Service, cluster: Cluster) -> Check:
    step = f"kubectl -n {service.namespace} get deploy,pods"

    def judge() -> Finding:
        found = cluster.one_labelled("deployments.apps", service.namespace, OPERATOR_LABELS)
        cause = "its Pod does not start or does not get ready: look at its events"
        deploy = "./inv deploy.clickhouse"
        return deployment_is_available(OPERATOR_READY, found, cause=cause, next_step=step, deploy=deploy)

    return looked_at(session, OPERATOR_READY, judge, next_step=step, wait=60.0)


def installation(session: Session, service: Service, cluster: Cluster) -> Check:
    def judge() -> Finding:
        return is_completed(cluster.object(KIND, service.namespace, INSTALLATION), service.namespace)

    return looked_at(session, COMPLETED, judge, wait=120.0)


def is_completed(obj: Json | None, namespace: str) -> Finding:
    """`status.status` is Completed and every host is counted. The operator keeps no conditions."""
    step = f"kubectl -n {namespace} describe {KIND} {INSTALLATION}"
    if obj is None:
        cause = "the stack did not make it, or it was deleted by hand"
        return failed(COMPLETED, f"no installation {INSTALLATION}", cause=cause, next_step=step, final=True)
    state = text_at(obj, "status", "status") or "no status yet"
    done, hosts = dig(obj, "status", "hostsCompleted") or 0, dig(obj, "status", "hosts") or 0
    told = f"{state}, {done} of {hosts} hosts"
    errors = [str(error) for error in dig(obj, "status", "errors") or []]
    if state != "Completed" or done < hosts:
        cause = {
            "Aborted": "the operator gave up: its errors and the Pod's events say why",
            "Terminating": "it is being deleted, and waits for the operator to take its finalizer away",
        }.get(state, "the Pod does not get ready: its volume, its image or a Secret of its users is not there")
        return failed(COMPLETED, "; ".join([told, *errors[-1:]]), cause=cause, next_step=step)
    return passed(COMPLETED, f"{told}, {text_at(obj, 'status', 'endpoint')}")


def outputs(session: Session, service: Service, exported: list[Login]) -> Check:
    """Puts the login into `exported`. Its password is known to the masker first and stays in memory."""

    def look() -> Finding:
        found = states.clear_state(session, session.stack(service)).outputs
        missing = [name for name in REQUIRED_OUTPUTS if found.get(name) in (None, "")]
        if missing:
            told, step = f"no output {', '.join(missing)}", "./inv deploy.clickhouse"
            return failed(OUTPUTS_THERE, told, cause="the stack was not deployed to its end", next_step=step)
        exported.append(read_login(found))
        return passed(OUTPUTS_THERE, f"user {found['username']} at {exported[-1].where}")

    return Check(name=OUTPUTS_THERE, look=look)


def read_login(found: Mapping[str, Any]) -> Login:
    where = Inside(namespace=str(found["k8s_namespace"]), service=SERVICE, port=int(found["http_port"]))
    return Login(where=where, user=str(found["username"]), password=str(found["password"]))


def query(session: Session, exported: list[Login]) -> Check:
    if session.target.ephemeral:
        return Check(name=SELECTS, look=lambda: simulated(SELECTS, exported[-1].where).look())

    def look() -> Finding:
        login = exported[-1]
        get = inside.get_inside(session.runner, session.kubectl, login.where, login.headers)
        return selects(login.where, get)

    return Check(name=SELECTS, look=look, patience=patience(session, 30.0))


def selects(where: Inside, get: Get) -> Finding:
    """`select 1` over HTTP, as the exported user, gives 1."""
    step = f"kubectl -n {where.namespace} logs -l clickhouse.altinity.com/chi={INSTALLATION} --tail=20"
    status: list[int] = []

    def asked(path: str) -> Answer:
        answer = get(path)
        status.append(answer.status if inside.refusal_of(answer) is None else 0)
        return answer

    found = inside.answers(SELECTS, where, QUERY, asked, next_step=step)
    if status[-1:] in ([401], [403], [516]):
        return failed(SELECTS, found.evidence, cause=LOGIN_REFUSED, next_step="./inv repair.clickhouse")
    return passed(SELECTS, f"select 1 is 1 at {where}") if found.ok else found
