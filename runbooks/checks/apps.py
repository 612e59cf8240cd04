"""Does an app work? Its pods, its Jobs, its own role in Postgres, its health path, and every way in.

What differs from app to app is one entry in `APPS`; the checks are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runbooks.checks import generic, inside, postgres, public, sql, tailscale
from runbooks.checks.cluster import (
    Cluster,
    cluster_of,
    endpoint,
    exports_of,
    looked_at,
    patience,
    shown,
    simulated,
    workloads,
)
from runbooks.checks.inside import ANSWERS, Inside, Page
from runbooks.checks.workloads import jobs_are_complete, secret_value, seen
from runbooks.core.findings import Check, Finding, State, failed, passed, run_checks
from runbooks.stacks import states
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import has_stack

JOBS_COMPLETE = "its Jobs came to a good end"
HAS_ENDPOINT = "its Service has an endpoint"
SERVER_EXPORTED = "the Postgres stack exports where its database is"
OWN_SQL = "its own role answers SQL in its own database"
STARTS_WITHIN = 60.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """What only a working app answers, and the Service it is asked through."""

    service: str
    port: int
    page: Page
    """At the path that its stack exports as `health_path`, where it exports one: a setting may have changed it."""


@dataclass(frozen=True, kw_only=True)
class OwnDatabase:
    """What the app has in the shared Postgres, as `pulumi/lib/database.py` makes it: role, databases, Secret."""

    password_key: str
    """Of the Secret `<app>-database`, as the app's chart reads it."""
    names: tuple[str, ...] = ()
    """Its databases; one that is called like the app when empty."""


@dataclass(frozen=True, kw_only=True)
class App:
    """What proves that an app works."""

    health: tuple[Health, ...]
    """The last one is what people open: its Ingress on the tailnet is asked for the same page."""
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
        # Through the proxy to the hub, which tells its version to everybody; `/hub/health` has no content.
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
    """Stack, workloads, Jobs, endpoints, SQL, health; then each way in, where those before it passed."""
    cluster, app = cluster_of(session), as_set(APPS[service.name], exports_of(session, service))
    before = [
        generic.stack_is_deployed(session, service),
        workloads(session, service, required=True),
        *([jobs(session, service, cluster)] if app.has_jobs else []),
        *[endpoint(session, cluster, HAS_ENDPOINT, service.namespace, health.service) for health in app.health],
        *own_sql(session, service, cluster, app),
        *[healthy(session, service, health) for health in app.health],
        generic.ingresses_are_served(session, service, cluster),
        *([generic.all_are_exposed(service, cluster)] if service.exposed else []),
    ]
    findings = shown(session, run_checks(before))
    if any(finding.state is State.FAILED for finding in findings):
        return findings
    return findings + ways_in(session, service, cluster, app)


def as_set(app: App, exports: Mapping[str, Any]) -> App:
    """With the health path that the stack exports."""
    path = exports.get("health_path")
    if not isinstance(path, str) or not path.startswith("/"):
        return app
    return replace(app, health=tuple(replace(one, page=replace(one.page, path=path)) for one in app.health))


def ways_in(session: Session, service: Service, cluster: Cluster, app: App) -> list[Finding]:
    """What is on the tailnet, asked for the health path; and what is public."""
    page = app.health[-1].page
    on_tailnet = tailscale.exposed(session, cluster, service.namespace, page) if service.exposed else []
    return on_tailnet + public.exposed(session, cluster, service.namespace)


def jobs(session: Session, service: Service, cluster: Cluster) -> Check:
    step = f"kubectl -n {service.namespace} get jobs,pods"

    def judge() -> Finding:
        found = cluster.within(service.namespace, "jobs.batch")
        return jobs_are_complete(JOBS_COMPLETE, found, namespace=service.namespace, next_step=step)

    return looked_at(session, JOBS_COMPLETE, judge, next_step=step, wait=STARTS_WITHIN)


def healthy(session: Session, service: Service, health: Health) -> Check:
    """Asked inside the cluster, so that it says something about the app even where the way to it is broken."""
    where = Inside(namespace=service.namespace, service=health.service, port=health.port)
    if session.target.ephemeral:
        return simulated(ANSWERS, where)
    get = inside.get_inside(session.runner, session.kubectl, where)
    # By the Service, whose selector every chart knows: labels of pods differ from chart to chart.
    there = f"kubectl -n {service.namespace}"
    step = f"{there} get pods; {there} logs svc/{health.service} --tail=20"
    return Check(
        name=ANSWERS,
        look=lambda: inside.answers(ANSWERS, where, health.page, get, next_step=step),
        patience=patience(session, STARTS_WITHIN),
    )


# --- its own role in Postgres ------------------------------------------------------------------------------------


def own_sql(session: Session, service: Service, cluster: Cluster, app: App) -> list[Check]:
    """The server first, and in the lab that it is the lab's own: another program on its port gets no password."""
    if app.database is None:
        return []
    wanted, server = app.database, list[postgres.Outputs]()
    ours = Check(name=postgres.LISTENER_IS_OURS, look=lambda: postgres.listener_is_ours(session, server[0].port))
    return [
        Check(name=SERVER_EXPORTED, look=lambda: server_is_exported(session, server)),
        *([ours] if session.target.ephemeral else []),
        Check(name=OWN_SQL, look=lambda: answers_sql(session, service, cluster, wanted, server[0]), goes_on=True),
    ]


def server_is_exported(session: Session, server: list[postgres.Outputs]) -> Finding:
    """Puts what a client needs into `server`. Secret outputs are known to the masker first and stay in memory."""
    stack = session.stack(session.service("postgres"))
    outputs = states.clear_state(session, stack).outputs if has_stack(session, stack) else {}
    missing = [name for name in postgres.REQUIRED_OUTPUTS if outputs.get(name) in (None, "")]
    if missing:
        cause = "the Postgres stack that holds the app's database was not deployed to its end"
        told = f"stack {stack.reference} has no output {', '.join(missing)}"
        return failed(SERVER_EXPORTED, told, cause=cause, next_step="./inv verify.postgres")
    server.append(postgres.read_outputs(outputs))
    return passed(SERVER_EXPORTED, f"{server[0].name}:{server[0].port}")


def answers_sql(
    session: Session, service: Service, cluster: Cluster, wanted: OwnDatabase, server: postgres.Outputs
) -> Finding:
    """In each of its databases: it may log in with the password its pods get, is itself, and may make tables."""
    name = f"{service.name}-database"
    step = f"./inv repair.{service.name}; kubectl -n {service.namespace} get secret {name}"

    def judge() -> Finding:
        secret = cluster.secret(service.namespace, name)
        password = secret_value(secret or {}, wanted.password_key)
        if not password:
            told = f"Secret {service.namespace}/{name} has no {wanted.password_key}" if secret else f"no Secret {name}"
            cause = "the stack did not make it, or it was deleted by hand"
            return failed(OWN_SQL, told, cause=cause, next_step=step)
        session.masker.register(password)
        login = sql.Login(host=server.name, port=server.port, user=service.name, password=password)
        return _in_each(login, wanted.names or (service.name,), step)

    return seen(OWN_SQL, judge, next_step=step)


def _in_each(login: sql.Login, databases: tuple[str, ...], step: str) -> Finding:
    told = []
    for database in databases:
        one = sql.Login(host=login.host, port=login.port, user=login.user, password=login.password, database=database)
        try:
            standing = sql.select_standing(one)
        except sql.SqlFailed as error:
            return failed(OWN_SQL, f"{login.user} in {database}: {error.reason}", cause=error.cause, next_step=step)
        if not standing.may_create:
            cause = "the database belongs to somebody else: its owner has to be the app's own role"
            return failed(OWN_SQL, f"{login.user} may not make tables in {database}", cause=cause, next_step=step)
        told.append(f"{standing.user} in {standing.database}")
    return passed(OWN_SQL, f"{', '.join(told)} at {login.host}:{login.port}")
