"""`verify` of each service, on scripted tools and one real server that answers for all programs."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest

from runbooks.checks import apps, cert_manager, cf_tunnel, clickhouse, cluster, cnpg, inside, postgres, sql, tailscale
from runbooks.checks.inside import Get, Inside
from runbooks.checks.of_service import CHECKS, LAB_UNTRIED, verify_service
from runbooks.core.errors import VerificationFailed
from runbooks.core.findings import Finding, State, Verdict, passed
from runbooks.run import open_session
from runbooks.services import SERVICES, find_service
from runbooks.stacks.service import Service
from runbooks.tasks import verify
from runbooks.tools import network
from tests.fixtures import (
    REAL_ROOT,
    Repo,
    checkpoint,
    deployment,
    device,
    exported,
    exposed_service,
    ingress,
    listing,
    namespace,
    secret,
    secret_value,
    slices,
)
from tests.local_server import Reply, Served, always, serving

SUPERUSER, PASSWORD = "hunter2-hunter2-hunter2", "Canary0Password0Of0The0App"
VERSION = "PostgreSQL 18.4 on x86_64-pc-linux-gnu"
ADDRESS = "100.64.0.7"
TUNNEL = "0a1b2c3d-0000-4000-8000-000000000000.cfargotunnel.com"
APPS = [find_service(name) for name in apps.APPS]
OTHERS = [find_service(name) for name in ("tailscale", "cnpg", "postgres", "cf-tunnel", "cert-manager", "clickhouse")]
PROGRAMS = [
    *((service, inside.ANSWERS) for service in APPS),
    (find_service("cf-tunnel"), inside.CONNECTED),
    (find_service("clickhouse"), inside.SELECTS),
]
"""Each service, and the check at which its program is asked."""
PUBLIC = {"n8n": ("n8n-webhooks", "/webhook"), "stitch": ("stitch", "/eventsub")}
"""Name and path of the Ingresses on the internet, by service."""
ASKS_THE_SERVER = sql.select_version

RIGHT: Mapping[str, str] = {
    "/api/server/ping": '{"res":"pong"}',
    "/healthz/readiness": '{"status":"ok"}',
    "/api/v1/namespaces/default": '{"namespaceInfo":{"name":"default","state":"NAMESPACE_STATE_REGISTERED"}}',
    "/health": "OK",
    "/hub/api/": '{"version": "5.5.0"}',
    "/api/healthz": "",
    "/healthz": "",
    "/api/v1/query?query=up%20%3D%3D%201": '{"status":"success","data":{"result":[{"metric":{"__name__":"up"}}]}}',
    "/-/ready": "OK",
    "/api/health": '{"database": "ok", "version": "13.2.0"}',
    "/ready": '{"status":200,"readyConnections":4}',
    "/?query=select%201": "1\n",
    "/webhook": "",
    "/eventsub": "",
    "/": "",
}
"""What the real programs answer."""
POSTGRES = {
    "host": "postgresql-cluster-rw.postgresql.svc.cluster.local",
    "port": 5432,
    "username": secret_value("postgres"),
    "user": secret_value("postgres"),
    "password": secret_value(SUPERUSER),
    "ts_hostname": "postgresql",
    "k8s_namespace": "postgresql",
}
CLICKHOUSE = {"username": "analytics", "password": PASSWORD, "http_port": 8123, "k8s_namespace": "clickhouse"}
OPERATORS = (
    ("tailscale", "operator", ""),
    ("cnpg", "cnpg-cloudnative-pg", "cloudnative-pg"),
    ("cf-tunnel", cf_tunnel.CONTROLLER, ""),
    ("cf-tunnel", cf_tunnel.CONNECTORS, ""),
    ("clickhouse", "altinity-clickhouse-operator", "altinity-clickhouse-operator"),
)
"""Service, Deployment, and the label by which it is found where the chart chooses its name."""
MISSING = (1, "", "Error from server (NotFound): it is not found")
FORBIDDEN = (1, "", "(Forbidden) is forbidden: ")


def on_tailnet(service: Service, name: str) -> dict[str, Any]:
    address, tls = f"{service.name}.tail1234.ts.net", [{"hosts": [service.name]}]
    return ingress(name, service.namespace, address=address, tls=tls, rules=[{}])


def on_internet(service: Service, address: str = TUNNEL) -> dict[str, Any]:
    name, where = PUBLIC[service.name]
    path = {"path": where, "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}
    rules = [{"host": f"{service.name}.example.org", "http": {"paths": [path]}}]
    return ingress(name, service.namespace, address=address, of_class="cloudflare-tunnel", rules=rules)


DEVICES = "secrets --selector=tailscale.com/managed=true"


def device_of(obj: Mapping[str, Any], label: str = "postgresql") -> dict[str, Any]:
    """The state Secret of the object's proxy, whose device has this name."""
    return device(f"{label}.tail1234.ts.net." if label else "", labels=tailscale.Exposure(obj=obj).labels)


def postgres_cluster(ready: str = "True", phase: str = "Cluster in healthy state") -> dict[str, Any]:
    return {
        "metadata": {"name": "postgresql-cluster", "namespace": "postgresql"},
        "spec": {"instances": 1},
        "status": {"phase": phase, "readyInstances": 1, "conditions": [{"type": "Ready", "status": ready}]},
    }


def job(name: str, kind: str = "Complete", *, owner: str = "", **more: Any) -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "too many tries"}
    owners = {"ownerReferences": [{"kind": owner, "name": "backup", "controller": True}]} if owner else {}
    return {"kind": "Job", "metadata": {"name": name, **owners}, "status": {"conditions": [condition]}} | more


def ready(name: str, where: str = "", *, state: str = "True", reason: str = "Ready", **status: Any) -> dict[str, Any]:
    """An issuer or a certificate."""
    conditions = [{"type": "Ready", "status": state, "reason": reason, "message": "as told"}]
    return {"metadata": {"name": name, "namespace": where}, "status": {"conditions": conditions} | status}


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days, hours=12)).strftime("%Y-%m-%dT%H:%M:%SZ")


RATE_LIMITED = ready("site", "shop", state="False", reason="DoesNotExist")
RATE_LIMITED["status"]["conditions"].append(
    {"type": "Issuing", "status": "False", "reason": "Failed",
     "message": 'order is in "errored" state: 429 urn:ietf:params:acme:error:rateLimited: too many'}
)  # fmt: skip
INSTALLATION = {
    "metadata": {"name": "clickhouse", "namespace": "clickhouse"},
    "status": {"status": "Completed", "hosts": 1, "hostsCompleted": 1, "endpoint": "clickhouse-clickhouse.clickhouse"},
}


class Platform:
    """Everything is deployed and answers, this machine is on the tailnet, and no check waits."""

    def __init__(self, repo: Repo, closing: ExitStack) -> None:
        self.repo, self._closing = repo, closing
        self.answers(lambda path, _: (200, RIGHT[path]) if path in RIGHT else (404, "404 page not found"))
        self.asked: list[tuple[Inside, str, Mapping[str, str]]] = []
        """Each request through the API server: where to, path and headers."""
        self.kubectl("==all", "NAME  READY\n")
        self.kubectl("tailscale.com --all-namespaces", listing())
        self._devices: list[dict[str, Any]] = []
        for service in (*OTHERS, *APPS):
            self.deploy(service)
        self.deploy_operators()
        self._deploy_shared()

    def kubectl(self, words: str, reply: Any) -> None:
        self.repo.answer("kubectl", ["get", *words.split()], reply)

    def answers(self, reply: Reply) -> None:
        """From now on the programs answer this."""
        self.served: Served = self._closing.enter_context(serving(reply))

    def get_inside(self, _runner: Any, _kubectl: Any, where: Inside, headers: Mapping[str, str] | None = None) -> Get:
        def get(path: str) -> network.Answer:
            self.asked.append((where, path, headers or {}))
            return network.fetch(self.served.url + path, headers)

        return get

    def deploy(self, service: Service) -> None:
        where, outputs = service.namespace, dict[str, Any]()
        self.kubectl(f"deployments.apps,stat ={where}", listing(deployment(service.name, where)))
        self.kubectl(f"endpointslices ={where}", slices("10.0.0.3", port=80))
        self.kubectl(f"jobs.batch ={where}", listing(job(f"{service.name}-init")))
        services = [{"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}}]
        ingresses = [on_internet(service)] if service.name in PUBLIC else []
        for entry, output in service.exposed.items():
            kind, _, name = entry.partition("/")
            outputs[output] = service.name
            if kind == "ingress":
                ingresses.append(on_tailnet(service, name))
            else:
                outputs[output] = "postgresql" if service.name == "postgres" else name
                services.append(exposed_service(name, where, hostname=outputs[output]))
            exposed = (ingresses if kind == "ingress" else services)[-1]
            self._devices.append(device_of(exposed, outputs[output]))
        self.kubectl(DEVICES, listing(*self._devices))
        self.repo.has_stacks(service.project_name, outputs=outputs)
        for kind, objects in (("ingresses", ingresses), ("services", services)):
            self.kubectl(f"{kind} ={where} --output", listing(*objects))
            for obj in objects:
                self.kubectl(f"{kind} ={where} =={obj['metadata']['name']}", obj)
        if service.name in apps.APPS and (database := apps.APPS[service.name].database):
            name = f"{service.name}-database"
            self.kubectl(f"secrets ={where} {name}", secret(name, where, {database.password_key: PASSWORD}))

    def deploy_operators(self, **homes: str) -> None:
        """Each in its own namespace, or in another."""
        for service, name, label in OPERATORS:
            where = homes.get(service, find_service(service).namespace)
            found = deployment(name, where)
            self.kubectl(f"deployments.apps ={where} {label or name}", listing(found) if label else found)

    def _deploy_shared(self) -> None:
        """What is there once: the Secrets of controllers, classes, kinds, what an operator made, and outputs."""
        for name, keys in (("operator-oauth", ("client_id", "client_secret")), ("cloudflare-api", cf_tunnel.LOGIN_KEYS),
                           ("postgresql-cluster-superuser", ("username", "password"))):  # fmt: skip
            self.kubectl(f"secrets {name}", secret(name, "x", dict.fromkeys(keys, SUPERUSER)))
        for name, controller in (("tailscale", tailscale.INGRESS_CONTROLLER),
                                 ("cloudflare-tunnel", cf_tunnel.INGRESS_CONTROLLER)):  # fmt: skip
            self.kubectl(f"ingressclasses {name}", {"spec": {"controller": controller}})
        for group, kinds in (("postgresql.cnpg.io", cnpg.KINDS), ("cert-manager.io", cert_manager.KINDS)):
            resources = [{"name": name} for name in kinds]
            self.kubectl(f"--raw=/apis/{group}/v1", {"groupVersion": f"{group}/v1", "resources": resources})
        self.kubectl("clusters.postgresql.cnpg.io", postgres_cluster())
        self.kubectl("clusterissuers", listing(ready("letsencrypt-production", reason="ACMEAccountRegistered")))
        self.kubectl("certificates.cert-manager.io", listing(ready("site", "shop", notAfter=in_days(60))))
        self.kubectl("clickhouseinstallations", INSTALLATION)
        self.kubectl("ingresses --all-namespaces", listing(on_internet(find_service("n8n"))))
        self.kubectl("services --all-namespaces", listing(exposed_service()))
        self.repo.has_stacks("tailscale", outputs={"api_server_proxy_mode": "false"})
        self.repo.has_stacks("postgresql", outputs=POSTGRES)
        self.repo.answer("pulumi", ["stack", "export"], exported(POSTGRES | CLICKHOUSE))
        self.repo.answer("pulumi", ["stack", "export", "postgres"], exported(POSTGRES))

    def verify(self, service: str | Service, *, in_lab: bool = False) -> Verdict:
        found = find_service(service) if isinstance(service, str) else service
        with open_session(self.repo.c, f"verify.{found.name}") as session:
            target = replace(session.target, ephemeral=True) if in_lab else session.target
            return verify_service(replace(session, target=target), found)

    def finding(self, service: str, check: str) -> Finding:
        (found,) = [finding for finding in self.verify(service).findings if finding.check == check]
        return found


def may_create(login: sql.Login) -> bool:
    assert login.password == PASSWORD
    return True


@pytest.fixture
def platform(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with ExitStack() as closing:
        made = Platform(repo, closing)
        monkeypatch.setattr(inside, "get_inside", made.get_inside)
        monkeypatch.setattr(network, "PATIENCE", 0.3)
        monkeypatch.setattr(network, "resolve", lambda _: [ADDRESS])
        monkeypatch.setattr(network, "connect", lambda *_: None)
        monkeypatch.setattr(network, "tailscale_status", lambda _: None)
        monkeypatch.setattr(sql, "may_create_tables", may_create)
        monkeypatch.setattr(sql, "select_version", lambda _: VERSION)
        monkeypatch.setattr(cluster, "patience", lambda *_: 0.0)
        outside = network.fetch

        def fetch(url: str, headers: Mapping[str, str] | None = None) -> network.Answer:
            # Names on the tailnet and on the internet lead to the same server.
            here = url if url.startswith("http://127.0.0.1") else f"{made.served.url}/{url.split('/', 3)[3]}"
            return outside(here, headers)

        monkeypatch.setattr(network, "fetch", fetch)
        yield made


def states(verdict: Verdict) -> dict[str, State]:
    return {finding.check: finding.state for finding in verdict.findings}


# What works


def test_all_checks_belong_to_a_service() -> None:
    """A new service may start with the generic one; all other checks belong to a service."""
    assert {name for service in SERVICES for name in service.checks or ("generic",)} | {"generic"} == set(CHECKS)


TAILNET = (tailscale.PROXY_IS_READY, tailscale.DEVICE_HAS_NAME, tailscale.DEVICE_IS_PEER, tailscale.NAME_RESOLVES)
TUNNEL_CHECKS = (cf_tunnel.TAKEN_UP, cf_tunnel.ROUTED, cf_tunnel.PUBLIC_ANSWERS)
IN_ORDER: Mapping[str, tuple[str, ...]] = {
    "tailscale": (tailscale.OPERATOR_AVAILABLE, tailscale.OAUTH_IS_THERE, tailscale.CLASS_IS_SERVED,
        tailscale.API_AS_SET, cluster.WORKLOADS_READY, tailscale.NAME_AS_EXPORTED, *TAILNET, tailscale.PORT_CONNECTS),
    "cnpg": (cnpg.OPERATOR_READY, cnpg.KINDS_SERVED, cnpg.WEBHOOK_ANSWERS, cluster.WORKLOADS_READY),
    "postgres": (cnpg.OPERATOR_READY, postgres.OUTPUTS_THERE, postgres.CLUSTER_READY, postgres.SECRET_THERE,
        postgres.RW_HAS_ENDPOINTS, postgres.SERVICE_EXPOSED, tailscale.OPERATOR_AVAILABLE, tailscale.NAME_AS_EXPORTED,
        *TAILNET, postgres.EXPORTED_CONNECTS, postgres.SQL_ANSWERS),
    "cf-tunnel": (cluster.STACK_DEPLOYED, cf_tunnel.LOGIN_THERE, cf_tunnel.CONTROLLER_READY, cf_tunnel.CLASS_IS_SERVED,
        cf_tunnel.CONNECTORS_READY, inside.CONNECTED, cluster.WORKLOADS_READY, *TUNNEL_CHECKS),
    "cert-manager": (cluster.STACK_DEPLOYED, cluster.WORKLOADS_READY, cert_manager.KINDS_SERVED,
        cert_manager.WEBHOOK_ANSWERS, cert_manager.ISSUERS_READY, cert_manager.CERTIFICATES_VALID),
    "clickhouse": (cluster.STACK_DEPLOYED, clickhouse.OPERATOR_READY, clickhouse.COMPLETED, clickhouse.HAS_ENDPOINT,
        cluster.WORKLOADS_READY, clickhouse.OUTPUTS_THERE, inside.SELECTS),
    "glance": (cluster.STACK_DEPLOYED, cluster.WORKLOADS_READY, apps.HAS_ENDPOINT, inside.ANSWERS,
        apps.INGRESSES_SERVED, tailscale.ALL_EXPOSED, tailscale.NAME_AS_EXPORTED, *TAILNET, tailscale.PORT_CONNECTS,
        tailscale.HTTP_ANSWERS),
}  # fmt: skip
"""What each service is checked for; how a check fails is in the tests of its module, and in `BROKEN`."""


@pytest.mark.parametrize("service", [*APPS, *OTHERS], ids=lambda service: service.name)
def test_what_works_is_verified_with_everything_tried(platform: Platform, service: Service) -> None:
    verdict = platform.verify(service)
    assert verdict.ok, verdict
    untried = {finding.check for finding in verdict.findings if finding.state is State.NOT_TRIED}
    assert untried <= {tailscale.DEVICE_IS_PEER}, verdict
    assert {finding.check for finding in verdict.findings if not finding.deciding} == untried
    if service.name in IN_ORDER:
        assert tuple(finding.check for finding in verdict.findings) == IN_ORDER[service.name]
    assert bool(platform.asked) is (service in [program for program, _ in PROGRAMS])
    if service in APPS:
        page = apps.APPS[service.name].health[-1].page.path
        on_tailnet = any(entry.startswith("ingress/") for entry in service.exposed)
        assert [path for path, _ in platform.served.asked].count(page) == (2 if on_tailnet else 1)


@pytest.mark.parametrize(
    ("name", "path"),
    [("glance", ""), ("stitch", "/alive"), ("temporal", "/api/v1/namespaces/mine"), ("cf-tunnel", ""),
     ("clickhouse", ""), ("tailscale", ""), ("cnpg", "")],
)  # fmt: skip
def test_a_service_is_looked_for_where_its_stack_says_it_is(platform: Platform, name: str, path: str) -> None:
    """Its config may have moved it to another namespace, and given it another health path."""
    usual = find_service(name).namespace
    service = replace(find_service(name), namespace=f"my-{name}")
    platform.deploy(service)
    platform.deploy_operators(**{name: service.namespace})
    outputs = {"k8s_namespace": service.namespace} | ({"health_path": path} if path else {})
    platform.repo.has_stacks(service.project_name, outputs=outputs)
    platform.repo.answer("pulumi", ["stack", "export", "clickhouse"], exported(CLICKHOUSE | outputs))
    there = RIGHT | ({path: '{"namespaceInfo":{"name":"mine"}}'} if path else {})
    platform.answers(lambda asked, _: (200, there[asked]) if asked in there else (404, "nothing"))
    for each in (name, "postgres"):
        assert platform.verify(each).failures == ()
    assert not [argv for argv in platform.repo.argvs("kubectl") if f"--namespace={usual} " in argv]
    assert {where.namespace for where, _, _ in platform.asked} <= {service.namespace}
    assert not path or {asked for _, asked, _ in platform.asked} == {path}


def test_no_password_is_shown_or_written(platform: Platform) -> None:
    assert platform.verify("postgres").findings[-1].evidence == VERSION
    for name in ("n8n", "clickhouse"):
        platform.verify(name)
    where, _, headers = platform.asked[-1]
    assert where == Inside(namespace="clickhouse", service="clickhouse-clickhouse", port=8123)
    assert headers == {"X-ClickHouse-User": "analytics", "X-ClickHouse-Key": PASSWORD}
    repo, shown = platform.repo, platform.repo.printed()
    assert VERSION in shown
    everything = shown + repo.everything_written() + "".join(repo.argvs("kubectl") + repo.argvs("pulumi"))
    assert PASSWORD not in everything and SUPERUSER not in everything


def test_exposures_are_one_table_and_the_objects_of_the_namespace_are_shown(platform: Platform) -> None:
    platform.kubectl("==all --namespace=tailscale", "NAME  READY\npod/operator-1  1/1\n")
    platform.verify("tailscale")
    rows = [line.split() for line in platform.repo.printed().splitlines()]
    assert ["postgresql/postgresql-cluster-rw-ext", "postgresql", "ok", "ok", "ok", "--", "ok", "ok"] in rows
    assert ["pod/operator-1", "1/1"] in rows


@pytest.mark.parametrize(
    ("service", "words", "untried"),
    [
        ("tailscale", "services --all-namespaces", tailscale.EXPOSURES_KNOWN),
        ("cert-manager", "certificates.cert-manager.io", cert_manager.CERTIFICATES_VALID),
        ("cf-tunnel", "ingresses --all-namespaces", ""),
    ],
)
def test_what_nothing_uses_is_no_failure(platform: Platform, service: str, words: str, untried: str) -> None:
    platform.kubectl(words, listing())
    verdict = platform.verify(service)
    assert verdict.ok
    assert not untried or states(verdict)[untried] is State.NOT_TRIED


def test_no_public_ingress_is_waited_for_without_the_tunnel(platform: Platform) -> None:
    without_stack("cf-tunnel")(platform)
    verdict = platform.verify("cf-tunnel")
    assert [problem.check for problem in verdict.failures] == [cluster.STACK_DEPLOYED]
    assert cf_tunnel.TAKEN_UP not in states(verdict)


def test_jobs_that_were_cleaned_up_are_known_by_the_state(platform: Platform) -> None:
    state = json.loads(checkpoint({"url": "temporal", "grpc_address": "temporal-grpc:7233"}))
    job_urn = "urn:pulumi:mx::temporal::kubernetes:helm.sh/v4:Chart$kubernetes:batch/v1:Job::schema"
    state["checkpoint"]["latest"]["resources"].append({"urn": job_urn})
    platform.repo.has_stacks("temporal", state=json.dumps(state))
    platform.kubectl("jobs.batch =temporal", listing())
    verdict = platform.verify("temporal")
    assert verdict.ok
    assert states(verdict)[apps.JOBS_COMPLETE] is State.NOT_TRIED


def test_a_service_without_checks_of_its_own_is_verified_up_to_its_answer(platform: Platform) -> None:
    app = Service(name="app", folder="apps/app", about="an app", namespace="app", exposed={"ingress/web": "url"})
    platform.deploy(app)
    others = ingress("hooks", "app", address="x.example.org", of_class="nginx")
    platform.kubectl("ingresses =app --output", listing(on_tailnet(app, "web"), others))
    platform.kubectl("ingresses =app ==web", on_tailnet(app, "web"))
    verdict = platform.verify(app)
    assert verdict.ok, verdict
    assert states(verdict)[tailscale.HTTP_ANSWERS] is State.PASSED
    assert "hooks: x.example.org" in platform.repo.printed()
    assert tailscale.DEVICE_HAS_NAME not in states(platform.verify(replace(app, exposed={})))
    platform.answers(always(502))
    (problem,) = platform.verify(app).failures
    assert (problem.check, problem.subject) == (tailscale.HTTP_ANSWERS, "app/web")


@pytest.mark.parametrize("service", [app for app in APPS if apps.APPS[app.name].database], ids=lambda app: app.name)
def test_the_checks_know_the_key_that_the_program_writes(service: Service) -> None:
    text = "".join(path.read_text() for path in (REAL_ROOT / "pulumi" / service.folder).glob("*.py"))
    assert f'"{apps.APPS[service.name].database.password_key}": "password"' in text


# Programs that answer otherwise


@pytest.mark.parametrize(("service", "check"), PROGRAMS, ids=lambda value: getattr(value, "name", ""))
def test_a_program_that_does_not_answer_right_fails_its_check(platform: Platform, service: Service, check: str) -> None:
    platform.answers(always(404, "404 page not found"))
    problem = next(finding for finding in platform.verify(service).failures if finding.check == check)
    assert problem.cause and problem.next_step and "status 404" in problem.evidence
    if service in APPS:
        # Not by a label: neither Superset's chart nor our own objects have `app.kubernetes.io/instance`.
        program = apps.APPS[service.name].health[0].service
        assert f"kubectl -n {service.namespace} logs svc/{program}" in problem.next_step


@pytest.mark.parametrize(
    ("name", "status", "body", "evidence", "cause"),
    [
        ("clickhouse", 200, "2\n", "without", inside.OTHER),
        ("clickhouse", 403, "Code: 516. DB::Exception: Authentication failed", "403", clickhouse.LOGIN_REFUSED),
        ("cf-tunnel", 503, '{"status":503,"readyConnections":0}', "0 connections", cf_tunnel.NOT_CONNECTED),
        ("cf-tunnel", 200, "<title>nginx", "without readyConnections", inside.OTHER),
        ("monitoring", 200, '{"status":"success","data":{"result":[]}}', "without", inside.OTHER),
    ],
)
def test_programs_with_a_problem_of_their_own(
    platform: Platform, name: str, status: int, body: str, evidence: str, cause: str
) -> None:
    platform.answers(always(status, body))
    problem = platform.verify(name).failures[0]
    assert evidence in problem.evidence
    assert problem.cause == cause


# Clusters in which something is missing


def gives(words: str, reply: Any) -> Callable[[Platform], None]:
    return lambda platform: platform.kubectl(words, reply)


def lists(words: str, *objects: Any) -> Callable[[Platform], None]:
    return gives(words, listing(*objects))


def exports(outputs: Mapping[str, Any]) -> Callable[[Platform], None]:
    return lambda platform: platform.repo.answer("pulumi", ["stack", "export"], exported(outputs))


def without_stack(project: str) -> Callable[[Platform], None]:
    return lambda platform: (platform.repo.backend / f".pulumi/stacks/{project}/mx.json").unlink()


def down(name: str, where: str) -> dict[str, Any]:
    return deployment(name, where, ready=0, available="False")


def rename(platform: Platform) -> None:
    """Somebody annotated the Service with another name, and the operator named its device so."""
    other = exposed_service(hostname="other")
    platform.kubectl("services ==postgresql-cluster-rw-ext", other)
    platform.kubectl("services --all-namespaces", listing(other))
    platform.kubectl(DEVICES, listing(device_of(other, "other")))


def expose_and_remove(platform: Platform) -> None:
    """A Service was listed before its proxy was ready, and deleted since."""
    platform.kubectl("services --all-namespaces", listing(exposed_service() | {"status": {}}))
    platform.kubectl("services ==postgresql-cluster-rw-ext", MISSING)


BROKEN: dict[str, tuple[str, Callable[[Platform], Any], str, str]] = {
    # the Tailscale operator
    "exposed, then gone": ("tailscale", expose_and_remove, tailscale.PROXY_IS_READY, "rw-ext is gone"),
    "services cannot be listed": ("tailscale", gives("services --all-namespaces", FORBIDDEN),
        tailscale.EXPOSURES_KNOWN, "may not read"),
    # Postgres
    "postgres not deployed": ("postgres", without_stack("postgresql"), postgres.OUTPUTS_THERE, "no output host"),
    "output missing": ("postgres", exports({key: value for key, value in POSTGRES.items() if key != "password"}),
        postgres.OUTPUTS_THERE, "password"),
    "cluster setting up": ("postgres", gives("clusters.postgresql", postgres_cluster("False", "Setting up primary")),
        postgres.CLUSTER_READY, "Setting up primary"),
    "not exposed": ("postgres", gives("services ==postgresql-cluster-rw-ext", exposed_service(annotations={})),
        postgres.SERVICE_EXPOSED, "lacks tailscale.com/expose"),
    "service gone": ("postgres", gives("services ==postgresql-cluster-rw-ext", MISSING), postgres.SERVICE_EXPOSED,
        "postgresql/postgresql-cluster-rw-ext not found"),
    # apps
    "not deployed": ("n8n", without_stack("n8n"), cluster.STACK_DEPLOYED, "n8n/mx"),
    "previewed only": ("n8n", lambda made: made.repo.has_stacks("n8n", state='{"checkpoint": {"latest": {}}}'),
        cluster.STACK_DEPLOYED, "is empty"),
    "job failed": ("temporal", lists("jobs.batch =temporal", job("temporal-schema", "Failed")), apps.JOBS_COMPLETE,
        "BackoffLimitExceeded"),
    "no postgres": ("immich", without_stack("postgresql"), apps.SERVER_EXPORTED, "has no output host"),
    "no login": ("immich", gives("secrets immich-database", MISSING), apps.OWN_SQL, "no Secret immich-database"),
    "no key": ("immich", gives("secrets immich-database", secret("immich-database", "immich", {"other": "x"})),
        apps.OWN_SQL, "has no DB_PASSWORD"),
    "tunnel not ready": ("stitch", lists("ingresses =stitch --output", on_internet(find_service("stitch"), "")),
        apps.INGRESSES_SERVED, "stitch of class cloudflare-tunnel"),
    "not on the tailnet": ("glance", lists("ingresses =glance --output"), tailscale.ALL_EXPOSED,
        "not exposed: ingress/glance"),
    # the tunnel
    "no route": ("cf-tunnel", lists("services =n8n --output"), cf_tunnel.ROUTED, "Service web, which does not exist"),
    "public ingress gone": ("cf-tunnel", gives("ingresses =n8n ==n8n-webhooks", MISSING), cf_tunnel.TAKEN_UP,
        "n8n/n8n-webhooks not found"),
    "ingresses cannot be listed": ("cf-tunnel", gives("ingresses --all-namespaces", FORBIDDEN), cf_tunnel.PUBLIC_KNOWN,
        "may not read"),
    # cert-manager
    "no issuer": ("cert-manager", lists("clusterissuers"), cert_manager.ISSUERS_READY, "no ClusterIssuer"),
    "token missing": ("cert-manager", lists("clusterissuers", ready("x", state="False", reason="InvalidSolver")),
        cert_manager.ISSUERS_READY, "InvalidSolver"),
    "certificate not issued": ("cert-manager", lists("certificates.", ready("site", "shop", state="False")),
        cert_manager.CERTIFICATES_VALID, "shop/site: Ready=False"),
    "certificate that a rate limit stops": ("cert-manager", lists("certificates.", RATE_LIMITED),
        cert_manager.CERTIFICATES_VALID, "urn:ietf:params:acme:error:rateLimited"),
    "certificate near its end": ("cert-manager", lists("certificates.", ready("site", "shop", notAfter=in_days(13))),
        cert_manager.CERTIFICATES_VALID, "ends in 13 days"),
    "certificate without an end": ("cert-manager", lists("certificates.", ready("site", "shop")),
        cert_manager.CERTIFICATES_VALID, "no expiry"),
    # ClickHouse
    "installation in progress": ("clickhouse",
        gives("clickhouseinst", INSTALLATION | {"status": {"status": "InProgress", "hosts": 1, "errors": ["no Pod"]}}),
        clickhouse.COMPLETED, "InProgress, 0 of 1 hosts; no Pod"),
    "no login exported": ("clickhouse", exports({"username": "analytics"}), clickhouse.OUTPUTS_THERE,
        "no output password, http_port"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_cause_and_next_step(platform: Platform, name: str) -> None:
    service, break_it, check, evidence = BROKEN[name]
    break_it(platform)
    verdict = platform.verify(service)
    (problem,) = [finding for finding in verdict.failures if finding.check == check]
    assert not verdict.ok
    assert evidence in problem.evidence
    assert problem.next_step
    assert problem.cause or check in (cf_tunnel.PUBLIC_KNOWN, tailscale.EXPOSURES_KNOWN)
    shown = platform.repo.printed()
    assert f"FAIL {check}" in shown and "NOT verified" in shown


@pytest.mark.parametrize(
    ("what", "error", "check"),
    [
        ("connect", TimeoutError("timed out"), postgres.EXPORTED_CONNECTS),
        ("tailscale_status", OSError("no JSON"), tailscale.DEVICE_IS_PEER),
    ],
)
def test_half_working_tailnets(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception, check: str
) -> None:
    monkeypatch.setattr(network, what, Mock(side_effect=error))
    verdict = platform.verify("postgres")
    (problem,) = verdict.failures
    assert problem.check == check and str(error) in problem.evidence
    assert states(verdict)[postgres.SQL_ANSWERS] is State.NOT_TRIED


# What is as its stack says


@pytest.mark.parametrize(
    ("runs_with", "exported_as", "state"),
    [
        ("true", "true", State.PASSED),
        ("", "false", State.PASSED),
        ("true", "false", State.FAILED),
        ("true", "", State.NOT_TRIED),
    ],
)
def test_the_api_server_on_the_tailnet_is_as_it_was_set(
    platform: Platform, runs_with: str, exported_as: str, state: State
) -> None:
    operator = deployment("operator", "tailscale")
    env = [{"name": "APISERVER_PROXY", "value": runs_with}] if runs_with else []
    operator["spec"]["template"] = {"spec": {"containers": [{"name": "operator", "env": env}]}}
    platform.kubectl("deployments.apps tailscale operator", operator)
    platform.repo.has_stacks("tailscale", outputs={"api_server_proxy_mode": exported_as} if exported_as else {})
    found = platform.finding("tailscale", tailscale.API_AS_SET)
    assert found.state is state
    assert state is not State.PASSED or ("ACLs" in found.evidence) is (exported_as != "false")
    assert state is not State.FAILED or (found.cause and found.next_step == "./inv repair.tailscale")


@pytest.mark.parametrize("name", ["tailscale", "postgres"])
@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (checkpoint(POSTGRES | {"ts_hostname": "POSTGRESQL.tail1234.ts.net"}), State.PASSED),
        (checkpoint(POSTGRES | {"ts_hostname": "db"}), State.FAILED),
        (checkpoint({"k8s_namespace": "postgresql"}), State.NOT_TRIED),
        ("{oops", State.NOT_TRIED),
    ],
)
def test_a_name_is_right_when_its_stack_exports_it(platform: Platform, name: str, state: str, wanted: State) -> None:
    platform.repo.has_stacks("postgresql", state=state)
    found = platform.finding(name, tailscale.NAME_AS_EXPORTED)
    assert found.state is wanted, found
    assert wanted is not State.FAILED or ("db" in found.evidence and found.next_step == "./inv repair.postgres")
    # What cannot be read is not proven; what an older program did not export yet decides nothing.
    assert wanted is not State.NOT_TRIED or found.deciding is (state == "{oops")


def test_the_name_that_the_operator_would_choose_is_compared_with_the_object(platform: Platform) -> None:
    chosen = f"postgresql-{postgres.EXPOSED_SERVICE}"
    platform.repo.has_stacks("postgresql", outputs=POSTGRES | {"ts_hostname": chosen})
    platform.repo.answer("pulumi", ["stack", "export", "postgres"], exported(POSTGRES | {"ts_hostname": chosen}))
    rename(platform)
    assert platform.finding("postgres", tailscale.NAME_AS_EXPORTED).state is State.FAILED


def test_a_service_of_no_stack_has_no_exported_name(platform: Platform) -> None:
    own = exposed_service("nas", "people")
    platform.kubectl("services --all-namespaces", listing(own))
    platform.kubectl("services --namespace=people nas", own)
    platform.kubectl(DEVICES, listing(device_of(own)))
    verdict = platform.verify("tailscale")
    assert verdict.ok
    assert tailscale.NAME_AS_EXPORTED not in states(verdict)


def test_the_name_of_an_object_is_not_proven_while_the_stack_that_may_export_it_cannot_be_read(
    platform: Platform,
) -> None:
    moved = exposed_service(where="data")  # the config may have moved the namespace
    platform.kubectl("services --all-namespaces", listing(moved))
    platform.kubectl(f"services --namespace=data {moved['metadata']['name']}", moved)
    platform.kubectl(DEVICES, listing(device_of(moved)))
    assert tailscale.NAME_AS_EXPORTED not in states(platform.verify("tailscale"))
    platform.repo.has_stacks("postgresql", state="{oops")
    found = platform.finding("tailscale", tailscale.NAME_AS_EXPORTED)
    assert found.state is State.NOT_TRIED and found.deciding


# Where nothing is deployed


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_next_step_on_an_empty_cluster_deploys_the_service_asked_for(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    monkeypatch.setattr(cluster, "patience", lambda *_: 0.0)
    repo.answer("kubectl", ["get"], MISSING)
    repo.answer("kubectl", ["get", "namespace", "kube-system"], namespace())
    repo.answer("kubectl", ["get", "--selector"], listing())
    with pytest.raises(VerificationFailed) as caught:
        verify.verify(repo.c, (service.name,))
    assert caught.value.next_step == f"./inv deploy.{service.name}"


# Jobs, and roles in Postgres


@pytest.mark.parametrize(
    ("jobs", "applied", "state"),
    [
        ([job("schema")], True, State.PASSED),
        ([job("schema"), job("backup-1", "Failed", owner="CronJob")], True, State.PASSED),
        ([job("schema"), job("namespace", "Failed")], True, State.FAILED),
        ([job("schema", "Suspended", spec={"suspend": True})], True, State.FAILED),
        ([job("schema", status={"active": 1})], True, State.FAILED),
        # Its time to live has passed, or a person removed it.
        ([], True, State.NOT_TRIED),
        ([job("backup-1", owner="CronJob")], False, State.FAILED),
        ([], False, State.FAILED),
    ],
)
def test_jobs_in_the_forms_that_clusters_have_them(jobs: list[Any], applied: bool, state: State) -> None:
    found = apps.jobs_are_complete(jobs, "temporal", applied=applied)
    assert found.state is state
    assert not (found.state is State.NOT_TRIED and found.deciding)


REFUSED = 'FATAL:  password authentication failed for user "immich"'


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        (Mock(side_effect=sql.SqlFailed(REFUSED, "Postgres auth error: …")), f"temporal in temporal: {REFUSED}"),
        (lambda login: login.database == "temporal", "may not create tables in temporal_visibility"),
    ],
)
def test_a_role_that_cannot_work(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, answer: Any, evidence: str
) -> None:
    monkeypatch.setattr(sql, "may_create_tables", answer)
    verdict = platform.verify("temporal")
    (problem,) = verdict.failures
    assert problem.check == apps.OWN_SQL
    assert evidence in problem.evidence
    # It says nothing about the app's program, which is looked at all the same.
    assert states(verdict)[inside.ANSWERS] is State.PASSED


def test_a_server_that_refuses_the_password(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "connect", Mock(side_effect=psycopg.OperationalError(REFUSED)))
    monkeypatch.setattr(sql, "select_version", ASKS_THE_SERVER)
    (problem,) = platform.verify("postgres").failures
    assert problem.check == postgres.SQL_ANSWERS
    assert "Postgres auth error" in problem.cause


@pytest.mark.parametrize(("listens", "evidence"), [(True, "pid "), (False, "no process listens on port")])
def test_only_the_labs_own_server_gets_the_password(repo: Repo, listens: bool, evidence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, open_session(repo.c, "verify.postgres") as session:
        port = server.getsockname()[1]
        if not listens:
            server.close()
        found = postgres.listener_is_ours(session, port)
    assert found.state is State.FAILED and found.cause
    assert evidence in found.evidence


# The lab, and several services at once


@pytest.mark.parametrize(("service", "check"), PROGRAMS, ids=lambda value: getattr(value, "name", ""))
def test_in_the_lab_no_container_is_asked_and_it_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, service: Service, check: str
) -> None:
    monkeypatch.setattr(postgres, "listener_is_ours", lambda *_: passed("x", "ours"))
    verdict = platform.verify(service, in_lab=True)
    assert verdict.ok, verdict
    (seen,) = {finding.evidence.partition(" (")[0] for finding in verdict.findings if finding.check == check}
    assert seen == "simulated pod"
    assert {finding.check for finding in verdict.findings if finding.state is State.NOT_TRIED} <= LAB_UNTRIED
    assert not platform.asked
    assert not platform.served.asked


def test_all_of_it_ends_with_one_line_that_counts_and_records_each_verdict(platform: Platform) -> None:
    verify.verify(platform.repo.c, ("tailscale", "cnpg"))
    assert re.search(r" 2 .*\d+ passed, 0 failed", platform.repo.printed().splitlines()[-1])
    assert platform.repo.everything_written().count('"verdict"') == 2


def test_the_task_ends_with_exit_4_and_the_first_problem(platform: Platform) -> None:
    platform.kubectl("clusters.postgresql", MISSING)
    with pytest.raises(VerificationFailed) as caught:
        verify.verify(platform.repo.c, ("tailscale", "cnpg", "postgres"))
    assert caught.value.exit_code == 4
    assert "postgres" in caught.value.summary
    assert "describe clusters.postgresql.cnpg.io" in caught.value.next_step


def test_all_looks_at_what_is_deployed_and_names_the_rest(platform: Platform) -> None:
    repo = platform.repo
    repo.has_stacks("n8n", state='{"checkpoint": {}}')
    without_stack("tailscale")(platform)
    verify.verify(repo.c, ("tailscale", "cnpg", "postgres", "n8n"))
    shown = repo.printed()
    assert "tailscale, n8n" in shown and "verify.postgres: verified" in shown
    shutil.rmtree(repo.backend / ".pulumi")
    with pytest.raises(VerificationFailed) as nothing:
        verify.verify(repo.c, ("tailscale", "cnpg"))
    assert "deploy." in nothing.value.next_step
