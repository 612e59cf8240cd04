"""Does ClickHouse answer a query of the user that apps log in as?"""

from __future__ import annotations

from dataclasses import dataclass, field

from runbooks.checks import cluster, inside
from runbooks.checks.inside import SELECTS, Get, Inside, simulated
from runbooks.core.findings import Check, Finding, failed, passed
from runbooks.stacks.preparation import clear_state
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, dig, metadata, text_at

KIND = "clickhouseinstallations.clickhouse.altinity.com"
INSTALLATION = "clickhouse"
SERVICE = f"clickhouse-{INSTALLATION}"
OPERATOR_LABELS = "app.kubernetes.io/name=altinity-clickhouse-operator"
REQUIRED_OUTPUTS = ("username", "password", "http_port", "k8s_namespace")
QUERY = "/?query=select%201"

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


def verify(session: Session, service: Service) -> list[Finding]:
    """Check operator, installation, endpoints, login and query."""
    exported: list[Login] = []
    cause = "its Pod does not start or does not get ready: look at its events"

    address = (KIND, service.namespace, INSTALLATION)
    checks = [
        cluster.stack_is_deployed(session, service),
        cluster.deployment_check(session, OPERATOR_READY, service, labels=OPERATOR_LABELS, cause=cause),
        cluster.object_check(session, COMPLETED, address, is_completed, wait=120.0),
        cluster.endpoint_check(session, HAS_ENDPOINT, service.namespace, SERVICE),
        cluster.workloads_check(session, service, required=True),
        Check(name=OUTPUTS_THERE, look=lambda: login_is_exported(session, service, exported)),
        query(session, exported),
    ]
    return cluster.run_and_report(session, checks)


def is_completed(obj: Json) -> Finding:
    """`status.status` is Completed and counts every host. The operator keeps no conditions."""
    step = f"kubectl -n {metadata(obj)[0]} describe {KIND} {INSTALLATION}"
    state = text_at(obj, "status", "status") or "no status yet"
    done, hosts = dig(obj, "status", "hostsCompleted") or 0, dig(obj, "status", "hosts") or 0
    evidence = f"{state}, {done} of {hosts} hosts"
    errors = [str(error) for error in dig(obj, "status", "errors") or []]
    if state != "Completed" or done < hosts:
        cause = {
            "Aborted": "the operator gave up: its errors and the Pod's events say why",
            "Terminating": "it is being deleted, and waits for the operator to remove its finalizer",
        }.get(state, "the Pod does not get ready: its volume, its image or a Secret of its users is missing")
        return failed(COMPLETED, "; ".join([evidence, *errors[-1:]]), cause=cause, next_step=step)
    return passed(COMPLETED, f"{evidence}, {text_at(obj, 'status', 'endpoint')}")


def login_is_exported(session: Session, service: Service, exported: list[Login]) -> Finding:
    """Put the login into `exported`. Its password is registered with the masker first and stays in memory."""
    found = clear_state(session, session.stack(service)).outputs
    missing = [name for name in REQUIRED_OUTPUTS if found.get(name) in (None, "")]
    if missing:
        evidence, step = f"no output {', '.join(missing)}", "./inv deploy.clickhouse"
        return failed(OUTPUTS_THERE, evidence, cause="the stack's deployment did not finish", next_step=step)
    where = Inside(namespace=str(found["k8s_namespace"]), service=SERVICE, port=int(found["http_port"]))
    exported.append(Login(where=where, user=str(found["username"]), password=str(found["password"])))
    return passed(OUTPUTS_THERE, f"user {found['username']} at {where}")


def query(session: Session, exported: list[Login]) -> Check:
    """Check that the server answers a query. An earlier check has put the login into `exported`."""
    if session.target.ephemeral:
        return Check(name=SELECTS, look=lambda: simulated(SELECTS, exported[-1].where).look())

    def judge() -> Finding:
        login = exported[-1]
        headers = {"X-ClickHouse-User": login.user, "X-ClickHouse-Key": login.password}
        return selects(login.where, inside.get_inside(session.runner, session.kubectl, login.where, headers))

    return cluster.make_check(session, SELECTS, judge, wait=30.0)


def selects(where: Inside, get: Get) -> Finding:
    """`select 1` over HTTP, as the exported user, gives 1."""
    step = f"kubectl -n {where.namespace} logs -l clickhouse.altinity.com/chi={INSTALLATION} --tail=20"
    answer = inside.fetch(SELECTS, where, QUERY, get, next_step=step)
    if isinstance(answer, Finding):
        return answer
    if answer.status in (401, 403, 516):
        evidence = f"{where}: status {answer.status}"
        return failed(SELECTS, evidence, cause=LOGIN_REFUSED, next_step="./inv repair.clickhouse")
    found = inside.judge_answer(SELECTS, f"{where}/", answer, "1\n", next_step=step)
    return passed(SELECTS, f"select 1 is 1 at {where}") if found.ok else found
