"""Does an app work? Its pods, its Jobs, its own role in Postgres, its health path, and every way in.

What differs from app to app is one entry in `APPS`; a service without one has the checks that need no entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runbooks.checks import cf_tunnel, cluster, inside, postgres, sql, tailscale
from runbooks.checks.inside import ANSWERS, Inside, Page, simulated
from runbooks.core.findings import Check, Finding, State, failed, not_tried, passed
from runbooks.stacks.preparation import exports_of, state_of
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, condition, dig, metadata, secret_value, text_at
from runbooks.tools.pulumi import type_of

JOBS_COMPLETE = "its Jobs completed"
HAS_ENDPOINT = "its Service has an endpoint"
SERVER_EXPORTED = "the Postgres stack exports where its database is"
OWN_SQL = "its own role answers SQL in its own database"
INGRESSES_SERVED = "its other Ingresses have an address from their controller"


@dataclass(frozen=True, kw_only=True)
class Health:
    """The answer that only a working app gives, and the Service that is asked for it."""

    service: str
    port: int
    page: Page
    """A `health_path` that the stack exports replaces its path, as a setting may have changed it."""


@dataclass(frozen=True, kw_only=True)
class OwnDatabase:
    """The app's role, databases and Secret in the shared Postgres, as `pulumi/lib/database.py` makes them."""

    password_key: str
    """The key of the password in the Secret `<app>-database`, as the app's chart reads it."""
    names: tuple[str, ...] = ()
    """Its databases; when empty, it has one with the app's name."""


@dataclass(frozen=True, kw_only=True)
class App:
    """What proves that an app works."""

    health: tuple[Health, ...] = ()
    """The last one is what people open: the check of its Ingress on the tailnet requests the same page."""
    database: OwnDatabase | None = None
    has_jobs: bool = False


APPS: Mapping[str, App] = {
    "immich": App(
        health=(Health(service="immich-server", port=2283, page=Page(path="/api/server/ping", marker="pong")),),
        database=OwnDatabase(password_key="DB_PASSWORD"),  # noqa: S106 - a key
    ),
    "n8n": App(
        # `/healthz` answers without a database too.
        health=(Health(service="n8n-main", port=5678, page=Page(path="/healthz/readiness", marker='"ok"')),),
        database=OwnDatabase(password_key="DB_POSTGRESDB_PASSWORD"),  # noqa: S106 - a key
    ),
    "temporal": App(
        # The web interface asks the frontend, and the frontend its database.
        health=(
            Health(
                service="temporal-web",
                port=8080,
                page=Page(path="/api/v1/namespaces/default", marker='"namespaceInfo"'),
            ),
        ),
        database=OwnDatabase(password_key="password", names=("temporal", "temporal_visibility")),  # noqa: S106 - a key
        has_jobs=True,
    ),
    "superset": App(
        health=(Health(service="superset", port=8088, page=Page(path="/health", marker="OK")),),
        database=OwnDatabase(password_key="DB_PASS"),  # noqa: S106 - a key
        has_jobs=True,
    ),
    "jupyterhub": App(
        # Through the proxy to the hub, which reports its version without a login; `/hub/health` has no content.
        health=(Health(service="proxy-public", port=80, page=Page(path="/hub/api/", marker='"version"')),),
        database=OwnDatabase(password_key="hub.db.password"),  # noqa: S106 - a key
    ),
    "glance": App(health=(Health(service="glance", port=80, page=Page(path="/api/healthz")),)),
    "stitch": App(
        health=(Health(service="stitch", port=80, page=Page(path="/healthz")),),
        database=OwnDatabase(password_key="POSTGRES_PASSWORD"),  # noqa: S106 - a key
    ),
    "monitoring": App(
        health=(
            Health(
                service="monitoring-prometheus",
                port=9090,
                page=Page(path="/api/v1/query?query=up%20%3D%3D%201", marker='"__name__":"up"'),
            ),
            Health(service="monitoring-alertmanager", port=9093, page=Page(path="/-/ready", marker="OK")),
            Health(service="monitoring-grafana", port=80, page=Page(path="/api/health", marker='"database"')),
        ),
    ),
}


def verify(session: Session, service: Service) -> list[Finding]:
    """Check stack, workloads, Jobs, endpoints, SQL and health. If these pass, check each way in."""
    app = with_exported_path(APPS.get(service.name, App()), exports_of(session, service))
    namespace = service.namespace

    def jobs() -> Finding:
        resources = state_of(session, session.stack(service)).own_resources
        applied = any(type_of(resource.urn) == "kubernetes:batch/v1:Job" for resource in resources)
        return jobs_are_complete(cluster.list_objects(session, "jobs.batch", namespace), namespace, applied=applied)

    def ingresses() -> Finding:
        return ingresses_are_served(cluster.list_objects(session, cluster.INGRESSES, namespace), namespace)

    checks = [
        cluster.stack_is_deployed(session, service),
        cluster.workloads_check(session, service, required=True),
        *([cluster.make_check(session, JOBS_COMPLETE, jobs, wait=cluster.CONTROLLER_TAKES)] if app.has_jobs else []),
        *(cluster.endpoint_check(session, HAS_ENDPOINT, namespace, health.service) for health in app.health),
        *own_sql(session, service, app),
        *(health_check(session, namespace, health) for health in app.health),
        cluster.make_check(session, INGRESSES_SERVED, ingresses, wait=cluster.CONTROLLER_TAKES),
        *([tailscale.all_are_exposed(session, service)] if service.exposed else []),
    ]
    findings = cluster.run_and_report(session, checks)
    if any(finding.state is State.FAILED for finding in findings):
        return findings
    if service.exposed:
        findings += tailscale.verify_exposures(session, namespace, app.health[-1].page if app.health else None)
    return findings + cf_tunnel.verify_public(session, namespace)


def with_exported_path(app: App, exports: Mapping[str, Any]) -> App:
    """The app with the health path that its stack exports."""
    path = exports.get("health_path")
    if not isinstance(path, str) or not path.startswith("/"):
        return app
    return replace(app, health=tuple(replace(one, page=replace(one.page, path=path)) for one in app.health))


def health_check(session: Session, namespace: str, health: Health) -> Check:
    """Request the health path inside the cluster, which works even when the way in from outside is broken."""
    where = Inside(namespace=namespace, service=health.service, port=health.port)
    if session.target.ephemeral:
        return simulated(ANSWERS, where)
    get = inside.get_inside(session.runner, session.kubectl, where)
    # Logs by the Service and its selector, as labels of pods differ from chart to chart.
    step = f"kubectl -n {namespace} get pods; kubectl -n {namespace} logs svc/{health.service} --tail=20"

    def judge() -> Finding:
        return inside.answers(ANSWERS, where, health.page, get, next_step=step)

    return cluster.make_check(session, ANSWERS, judge, wait=cluster.CONTROLLER_TAKES)


def jobs_are_complete(found: Sequence[Json], namespace: str, *, applied: bool) -> Finding:
    """There are Jobs, and each has completed. `applied`: whether the stack's state holds Jobs."""
    step = f"kubectl -n {namespace} get jobs,pods"
    # Jobs that a CronJob started are not part of the deployment.
    jobs = [job for job in found if text_at(job, "metadata", "ownerReferences", 0, "kind") != "CronJob"]
    if not jobs and applied:
        # Pulumi waited until the Jobs were complete, so missing ones have only been cleaned up.
        return not_tried(JOBS_COMPLETE, "its Jobs were removed after their deployment", deciding=False)
    if not jobs:
        cause = "they were dropped as Helm hooks, which a chart's program has to allow for"
        return failed(JOBS_COMPLETE, f"namespace {namespace} holds no Job", cause=cause, next_step=step, final=True)
    behind = []
    for job in jobs:
        complete, broken = condition(job, "Complete"), condition(job, "Failed")
        if broken is not None and broken.is_true:
            behind.append(f"Job {metadata(job)[1]}: failed{broken.why}")
        elif complete is None or not complete.is_true:
            active = dig(job, "status", "active") or 0
            suspended = ", it is suspended" if dig(job, "spec", "suspend") else ""
            behind.append(f"Job {metadata(job)[1]}: {active} Pods active, none succeeded yet{suspended}")
    if behind:
        cause = "its Pods fail or do not start: look at their logs and events"
        return failed(JOBS_COMPLETE, "; ".join(behind), cause=cause, next_step=step)
    return passed(JOBS_COMPLETE, ", ".join(metadata(job)[1] for job in jobs))


def ingresses_are_served(ingresses: Sequence[Json], namespace: str) -> Finding:
    """Every Ingress outside the tailnet has a host name or an address in its status. No Ingress at all passes."""
    addresses, waiting = [], []
    for obj in ingresses:
        if tailscale.is_exposed_ingress(obj):
            continue
        where = ("status", "loadBalancer", "ingress", 0)
        address = text_at(obj, *where, "hostname") or text_at(obj, *where, "ip")
        addresses.append(f"{metadata(obj)[1]}: {address}")
        if not address:
            waiting.append(f"{metadata(obj)[1]} of class {text_at(obj, 'spec', 'ingressClassName') or '?'}")
    if waiting:
        cause = tailscale.NO_CONTROLLER.replace("`tailscale`", "`tailscale` or `cloudflare-tunnel`")
        step = f"kubectl -n {namespace} describe ingress"
        return failed(INGRESSES_SERVED, f"no address yet: {', '.join(waiting)}", cause=cause, next_step=step)
    return passed(INGRESSES_SERVED, ", ".join(addresses) or "it has no other Ingress")


# --- its own role in Postgres ------------------------------------------------------------------------------------


def own_sql(session: Session, service: Service, app: App) -> list[Check]:
    """Check the server, then the app's login. In the lab the server must be the lab's own before it gets a password."""
    if app.database is None:
        return []
    wanted, server = app.database, list[postgres.Outputs]()

    def answers() -> Finding:
        return answers_sql(session, service, wanted, server[0])

    return [
        Check(name=SERVER_EXPORTED, look=lambda: postgres.outputs_are_there(session, SERVER_EXPORTED, server)),
        *postgres.listener_check(session, server),
        cluster.make_check(
            session, OWN_SQL, answers, next_step=f"./inv repair.{service.name}", continue_on_failure=True
        ),
    ]


def answers_sql(session: Session, service: Service, wanted: OwnDatabase, server: postgres.Outputs) -> Finding:
    """In each of its databases the app's role can log in with the password its pods get, and can create tables."""
    name = f"{service.name}-database"
    step = f"./inv repair.{service.name}; kubectl -n {service.namespace} get secret {name}"
    secret = cluster.find_object(session, "secrets", name, service.namespace)
    password = secret_value(secret or {}, wanted.password_key)
    if not password:
        evidence = f"Secret {service.namespace}/{name} has no {wanted.password_key}" if secret else f"no Secret {name}"
        cause = "the stack did not create it, or it was deleted by hand"
        return failed(OWN_SQL, evidence, cause=cause, next_step=step)
    session.masker.register(password)
    seen = []
    for database in wanted.names or (service.name,):
        login = sql.Login(host=server.name, port=server.port, user=service.name, password=password, database=database)
        try:
            may_create = sql.may_create_tables(login)
        except sql.SqlFailed as error:
            return failed(OWN_SQL, f"{login.user} in {database}: {error.reason}", cause=error.cause, next_step=step)
        if not may_create:
            cause = "another role owns the database: its owner has to be the app's own role"
            return failed(OWN_SQL, f"{login.user} may not create tables in {database}", cause=cause, next_step=step)
        seen.append(f"{login.user} in {database}")
    return passed(OWN_SQL, f"{', '.join(seen)} at {server.name}:{server.port}")
