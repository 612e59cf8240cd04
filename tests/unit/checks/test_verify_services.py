"""The checks of the apps, the tunnel, cert-manager and ClickHouse on fakes of the tools and real local servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbooks.checks import apps, cert_manager, cf_tunnel, clickhouse, cluster, inside, of_service, sql, tailscale
from runbooks.checks.inside import Get, Inside
from runbooks.checks.of_service import CHECKS, verify_service
from runbooks.core.findings import State, Verdict, passed
from runbooks.run import open_session
from runbooks.services import SERVICES, find_service
from runbooks.stacks.service import Service
from runbooks.tools import network
from tests.fixtures import REAL_ROOT, Repo, checkpoint, deployment, exported, listing, secret, slices
from tests.local_server import Reply, Served, always, serving

PASSWORD = "Canary0Password0Of0The0App"
ADDRESS = "100.64.0.7"
TUNNEL = "0a1b2c3d-0000-4000-8000-000000000000.cfargotunnel.com"
APPS = [find_service(name) for name in apps.APPS]
OTHERS = [find_service(name) for name in ("cf-tunnel", "cert-manager", "clickhouse")]
PUBLIC = {"n8n": "n8n-webhooks", "stitch": "stitch"}
"""Ingresses on the internet, by service."""

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
}
"""What the real programs answer."""


def right(path: str, _headers: Mapping[str, str]) -> tuple[int, str]:
    return (200, RIGHT[path]) if path in RIGHT else (404, "404 page not found")


POSTGRES = {
    "host": "postgresql-cluster-rw.postgresql.svc.cluster.local",
    "port": 5432,
    "username": "postgres",
    "password": "superuser-password",
    "ts_hostname": "postgresql",
    "k8s_namespace": "postgresql",
}
CLICKHOUSE = {"username": "analytics", "password": PASSWORD, "http_port": 8123, "k8s_namespace": "clickhouse"}


def on_tailnet(service: Service, name: str) -> dict[str, Any]:
    return {
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": service.namespace},
        "spec": {"ingressClassName": "tailscale", "tls": [{"hosts": [service.name]}], "rules": [{}]},
        "status": {"loadBalancer": {"ingress": [{"hostname": f"{service.name}.tail1234.ts.net"}]}},
    }


def on_internet(service: Service, name: str, address: str = TUNNEL) -> dict[str, Any]:
    where = "/webhook" if service.name == "n8n" else "/eventsub"
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    path = {"path": where, "pathType": "Prefix", "backend": backend}
    return {
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": service.namespace},
        "spec": {
            "ingressClassName": "cloudflare-tunnel",
            "rules": [{"host": f"{service.name}.example.org", "http": {"paths": [path]}}],
        },
        "status": {"loadBalancer": {"ingress": [{"hostname": address}] if address else []}},
    }


def exposed_service(service: Service, name: str) -> dict[str, Any]:
    annotations = {"tailscale.com/expose": "true", "tailscale.com/hostname": name}
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": service.namespace, "annotations": annotations},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 7233}]},
        "status": {"conditions": [{"type": "TailscaleProxyReady", "status": "True"}]},
    }


WEB = {"kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}}


def job(name: str, where: str, kind: str = "Complete") -> dict[str, Any]:
    told = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "too many tries"}
    return {"kind": "Job", "metadata": {"name": name, "namespace": where}, "status": {"conditions": [told]}}


def ready(
    name: str, namespace: str = "", *, state: str = "True", reason: str = "Ready", **status: Any
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": state, "reason": reason, "message": "as told"}]
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"metadata": meta, "status": {"conditions": conditions} | status}


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days, hours=12)).strftime("%Y-%m-%dT%H:%M:%SZ")


RATE_LIMITED = {
    "metadata": {"name": "site", "namespace": "shop"},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "DoesNotExist", "message": "Secret does not exist"},
            {
                "type": "Issuing",
                "status": "False",
                "reason": "Failed",
                "message": 'order is in "errored" state: 429 urn:ietf:params:acme:error:rateLimited: too many',
            },
        ]
    },
}
INSTALLATION = {
    "metadata": {"name": "clickhouse", "namespace": "clickhouse"},
    "status": {"status": "Completed", "hosts": 1, "hostsCompleted": 1, "endpoint": "clickhouse-clickhouse.clickhouse"},
}


class Platform:
    """Everything is deployed and answers, with one server that stands for all programs."""

    def __init__(self, repo: Repo, served: Served) -> None:
        self.repo = repo
        self.served = served
        self.asked: list[tuple[Inside, str, Mapping[str, str]]] = []
        self.devices: list[dict[str, Any]] = []

    def kubectl(self, words: list[str], reply: Any) -> None:
        self.repo.answer("kubectl", ["get", *words], reply)

    def get_inside(self, _runner: Any, _kubectl: Any, where: Inside, headers: Mapping[str, str] | None = None) -> Get:
        def get(path: str) -> network.Answer:
            self.asked.append((where, path, headers or {}))
            return network.fetch(self.served.url + path, headers)

        return get

    def answers(self, closing: ExitStack, reply: Reply) -> None:
        """From now on the programs say this."""
        self.served = closing.enter_context(serving(reply))

    def deploy(self, service: Service) -> None:
        where = service.namespace
        outputs = {
            output: service.name if kind == "ingress" else name
            for (kind, _, name), output in ((entry.partition("/"), output) for entry, output in service.exposed.items())
        }
        self.repo.has_stacks(service.project_name, outputs=outputs)
        self.kubectl(["get", "all", f"--namespace={where}"], "NAME\n")
        self.repo.answer("kubectl", ["get", "all"], "NAME\n")
        self.kubectl(["deployments.apps,stat", f"={where}"], listing(deployment(service.name, where)))
        self.kubectl(["endpointslices", f"={where}"], slices("10.0.0.3", port=80))
        self.kubectl(["jobs.batch", f"={where}"], listing(job(f"{service.name}-init", where)))
        names = [name for kind, _, name in (entry.partition("/") for entry in service.exposed) if kind == "ingress"]
        ways = [on_tailnet(service, name) for name in names]
        if service.name in PUBLIC:
            ways.append(on_internet(service, PUBLIC[service.name]))
        exposed = [
            exposed_service(service, name)
            for kind, _, name in (entry.partition("/") for entry in service.exposed)
            if kind == "svc"
        ]
        self.kubectl(["ingresses", f"={where}", "--output"], listing(*ways))
        for obj in ways:
            self.kubectl(["ingresses", f"={where}", f"=={obj['metadata']['name']}"], obj)
        self.kubectl(["services", f"={where}", "--output"], listing(*exposed, WEB))
        for obj in exposed:
            self.kubectl(["services", f"={where}", f"=={obj['metadata']['name']}"], obj)
            self.device(obj["metadata"]["name"], obj)
        for obj in ways:
            self.device(service.name, obj)
        if service.name in apps.APPS and (database := apps.APPS[service.name].database):
            made = secret(f"{service.name}-database", where, {database.password_key: PASSWORD})
            self.kubectl(["secrets", f"={where}", f"{service.name}-database"], made)

    def device(self, label: str, parent: Mapping[str, Any]) -> None:
        values = {"device_fqdn": f"{label}.tail1234.ts.net.", "device_ips": json.dumps([ADDRESS])}
        self.devices.append(secret("ts-x-0", "tailscale", values, tailscale.Exposure(obj=parent).labels))
        self.kubectl(["secrets", "--selector=tailscale.com/managed=true"], listing(*self.devices))

    def cluster_wide(self, home: str = "") -> None:
        where = home or "cloudflare-tunnel"
        for name in ("cloudflare-tunnel-ingress-controller", "controlled-cloudflared-connector"):
            self.kubectl(["deployments.apps", f"={where}", name], deployment(name, where))
        login = dict.fromkeys(cf_tunnel.LOGIN_KEYS, "x")
        self.kubectl(["secrets", "cloudflare-api"], secret("cloudflare-api", where, login))
        controller = {"spec": {"controller": "strrl.dev/cloudflare-tunnel-ingress-controller"}}
        self.kubectl(["ingressclasses", "cloudflare-tunnel"], controller)
        hooks = on_internet(find_service("n8n"), "n8n-webhooks")
        self.kubectl(["ingresses", "--all-namespaces"], listing(hooks))
        kinds = [{"name": name} for name in cert_manager.KINDS]
        self.kubectl(["--raw=/apis/cert-manager.io/v1"], {"groupVersion": "cert-manager.io/v1", "resources": kinds})
        self.kubectl(["clusterissuers"], listing(ready("letsencrypt-production", reason="ACMEAccountRegistered")))
        self.kubectl(["certificates.cert-manager.io"], listing(ready("site", "shop", notAfter=in_days(60))))
        where = home or "clickhouse"
        operator = deployment("altinity-clickhouse-operator", where)
        self.kubectl(["deployments.apps", f"={where}", "altinity-clickhouse-operator"], listing(operator))
        self.kubectl(["clickhouseinstallations"], INSTALLATION)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def platform(repo: Repo, closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Platform:
    made = Platform(repo, closing.enter_context(serving(right)))
    for service in (find_service("postgres"), find_service("n8n"), *OTHERS, *APPS):
        made.deploy(service)
    made.cluster_wide()
    repo.answer("pulumi", ["stack", "export"], exported(POSTGRES | CLICKHOUSE))
    repo.answer("pulumi", ["stack", "export", "postgres"], exported(POSTGRES))
    monkeypatch.setattr(inside, "get_inside", made.get_inside)
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    monkeypatch.setattr(network, "resolve", lambda _: [ADDRESS])
    monkeypatch.setattr(network, "connect", lambda *_: None)
    monkeypatch.setattr(network, "tailscale_status", lambda _: None)
    monkeypatch.setattr(sql, "select_standing", standing)
    monkeypatch.setattr(cluster, "patience", lambda *_: 0.0)
    outside = network.fetch
    # Names on the tailnet and on the internet lead to the same program.
    monkeypatch.setattr(network, "fetch", lambda url, headers=None: outside(led(url, made.served), headers))
    return made


def led(url: str, served: Served) -> str:
    if url.startswith("http://127.0.0.1"):
        return url
    return served.url + "/" + url.split("/", 3)[3]


def standing(login: sql.Login) -> sql.Standing:
    assert login.password == PASSWORD
    return sql.Standing(user=login.user, database=login.database, may_create=True)


def verified(platform: Platform, service: Service) -> Verdict:
    with open_session(platform.repo.c, f"verify.{service.name}") as session:
        return verify_service(session, service)


def states(verdict: Verdict) -> dict[str, State]:
    return {finding.check: finding.state for finding in verdict.findings}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("glance", ""),
        ("stitch", "/alive"),
        ("temporal", "/api/v1/namespaces/mine"),
        ("cf-tunnel", ""),
        ("clickhouse", ""),
    ],
)
def test_a_service_is_looked_for_where_its_stack_says_it_is(platform: Platform, name: str, path: str) -> None:
    """A setting may have moved it to another namespace, and given it another health path."""
    service = replace(find_service(name), namespace=f"my-{name}")
    platform.deploy(service)
    platform.cluster_wide(home=service.namespace)
    outputs = {"k8s_namespace": service.namespace} | ({"health_path": path} if path else {})
    platform.repo.has_stacks(service.project_name, outputs=outputs)
    platform.repo.answer("pulumi", ["stack", "export", "clickhouse"], exported(CLICKHOUSE | outputs))
    with ExitStack() as closing:
        there = RIGHT | ({path: '{"namespaceInfo":{"name":"mine"}}'} if path else {})
        platform.answers(closing, lambda asked, _: (200, there[asked]) if asked in there else (404, "nothing"))
        verdict = verified(platform, find_service(name))
    assert verdict.failures == ()
    inside_it = [(where.namespace, asked) for where, asked, _ in platform.asked]
    assert {where for where, _ in inside_it} == {service.namespace}
    assert not path or {asked for _, asked in inside_it} == {path}


def test_all_checks_belong_to_a_service() -> None:
    """A new service may start with the generic one; all other checks belong to a service."""
    assert {name for service in SERVICES for name in service.checks or ("generic",)} | {"generic"} == set(CHECKS)


@pytest.mark.parametrize("service", [*APPS, *OTHERS], ids=lambda service: service.name)
def test_what_works_is_verified_with_everything_tried(platform: Platform, service: Service) -> None:
    verdict = verified(platform, service)
    assert verdict.ok, verdict
    untried = {finding.check for finding in verdict.findings if finding.state is State.NOT_TRIED}
    assert untried <= {tailscale.DEVICE_IS_PEER}, verdict
    assert platform.asked or service.name == "cert-manager"
    if service in APPS:
        page = apps.APPS[service.name].health[-1].page.path
        on_tailnet = any(entry.startswith("ingress/") for entry in service.exposed)
        assert [path for path, _ in platform.served.asked].count(page) == (2 if on_tailnet else 1)


def test_no_password_is_shown_or_written(platform: Platform) -> None:
    for service in (find_service("n8n"), find_service("clickhouse")):
        verified(platform, service)
    argv = "".join(platform.repo.argvs("kubectl") + platform.repo.argvs("pulumi"))
    assert PASSWORD not in platform.repo.printed() + platform.repo.everything_written() + argv


def test_clickhouse_gets_the_login_in_headers(platform: Platform) -> None:
    verified(platform, find_service("clickhouse"))
    (where, _, headers) = platform.asked[-1]
    assert where == Inside(namespace="clickhouse", service="clickhouse-clickhouse", port=8123)
    assert headers == {"X-ClickHouse-User": "analytics", "X-ClickHouse-Key": PASSWORD}


# --- programs that answer otherwise ---------------------------------------------------------------------------------

PROGRAMS = [
    *((service, inside.ANSWERS) for service in APPS),
    (find_service("cf-tunnel"), inside.CONNECTED),
    (find_service("clickhouse"), inside.SELECTS),
]
"""Each service, and the check at which its program is asked."""


@pytest.mark.parametrize(("service", "check"), PROGRAMS, ids=lambda value: getattr(value, "name", ""))
def test_a_program_that_does_not_answer_right_fails_its_check(
    platform: Platform, closing: ExitStack, service: Service, check: str
) -> None:
    platform.answers(closing, always(404, "404 page not found"))
    verdict = verified(platform, service)
    problem = next(finding for finding in verdict.failures if finding.check == check)
    assert problem.cause and problem.next_step and "status 404" in problem.evidence


@pytest.mark.parametrize(
    ("name", "status", "body", "evidence", "cause"),
    [
        ("clickhouse", 200, "2\n", "without", inside.OTHER),
        ("clickhouse", 403, "Code: 516. DB::Exception: Authentication failed", "403", clickhouse.LOGIN_REFUSED),
        ("cf-tunnel", 503, '{"status":503,"readyConnections":0}', "0 connections", cf_tunnel.NOT_CONNECTED),
        ("cf-tunnel", 200, "<title>nginx", "without readyConnections", inside.OTHER),
        ("n8n", 503, '{"status":"error"}', "503", inside.BROKEN),
        ("temporal", 404, '{"code":5,"message":"Namespace default is not found."}', "404", inside.OTHER),
        ("monitoring", 200, '{"status":"success","data":{"result":[]}}', "without", inside.OTHER),
    ],
)
def test_programs_with_a_problem_of_their_own(
    platform: Platform, closing: ExitStack, name: str, status: int, body: str, evidence: str, cause: str
) -> None:
    platform.answers(closing, always(status, body))
    problem = verified(platform, find_service(name)).failures[0]
    assert evidence in problem.evidence
    assert problem.cause == cause


# --- clusters in which something is missing -------------------------------------------------------------------------

MISSING = (1, "", "Error from server (NotFound): it is not found")


def gives(words: list[str], reply: Any) -> Callable[[Platform], None]:
    return lambda platform: platform.kubectl(words, reply)


def without_stack(platform: Platform, project: str) -> None:
    (platform.repo.backend / f".pulumi/stacks/{project}/mx.json").unlink()


BROKEN: dict[str, tuple[str, Callable[[Platform], None], str, str]] = {
    "never deployed": ("n8n", lambda made: without_stack(made, "n8n"), cluster.STACK_DEPLOYED, "n8n/mx"),
    "not ready": ("n8n", gives(["deployments.apps,stat", "=n8n"], listing(deployment("n8n-main", "n8n", ready=0))),
        cluster.WORKLOADS_READY, "0 of 1"),
    "job failed": ("temporal",
        gives(["jobs.batch", "=temporal"], listing(job("temporal-schema", "temporal", "Failed"))), apps.JOBS_COMPLETE,
        "BackoffLimitExceeded"),
    "job running": ("superset",
        gives(["jobs.batch"], listing({"metadata": {"name": "superset-init-db"}, "status": {"active": 1}})),
        apps.JOBS_COMPLETE, "1 Pods active"),
    "no job": ("superset", gives(["jobs.batch", "=superset"], listing()), apps.JOBS_COMPLETE, "holds no Job"),
    "no endpoint": ("glance", gives(["endpointslices", "=glance"], slices()), apps.HAS_ENDPOINT, "no ready endpoint"),
    "no postgres": ("immich", lambda made: without_stack(made, "postgresql"), apps.SERVER_EXPORTED,
        "has no output host"),
    "no login": ("immich", gives(["secrets", "immich-database"], MISSING), apps.OWN_SQL, "no Secret immich-database"),
    "no key": ("immich", gives(["secrets", "immich-database"], secret("immich-database", "immich", {"other": "x"})),
        apps.OWN_SQL, "has no DB_PASSWORD"),
    "tunnel not ready": ("stitch",
        gives(["ingresses", "=stitch", "--output"], listing(on_internet(find_service("stitch"), "stitch", ""))),
        apps.INGRESSES_SERVED, "stitch of class cloudflare-tunnel"),
    "not on the tailnet": ("glance", gives(["ingresses", "=glance", "--output"], listing()), tailscale.ALL_EXPOSED,
        "not exposed: ingress/glance"),
    "no tunnel login": ("cf-tunnel", gives(["secrets", "cloudflare-api"], MISSING), cf_tunnel.LOGIN_THERE,
        "cloudflare-api"),
    "controller down": (
        "cf-tunnel",
        gives(
            ["deployments.apps", "cloudflare-tunnel-ingress-controller"],
            deployment("cloudflare-tunnel-ingress-controller", "cloudflare-tunnel", ready=0, available="False"),
        ),
        cf_tunnel.CONTROLLER_READY,
        "0 of 1",
    ),
    "no class": ("cf-tunnel", gives(["ingressclasses"], MISSING), cf_tunnel.CLASS_IS_SERVED,
        "cloudflare-tunnel not found"),
    "class of another": ("cf-tunnel", gives(["ingressclasses"], {"spec": {"controller": "somebody/else"}}),
        cf_tunnel.CLASS_IS_SERVED, "somebody/else"),
    "no connectors": ("cf-tunnel", gives(["deployments.apps", "controlled-cloudflared-connector"], MISSING),
        cf_tunnel.CONNECTORS_READY, "controlled-cloudflared-connector not found"),
    "no route": ("cf-tunnel", gives(["services", "=n8n", "--output"], listing()), cf_tunnel.ROUTED,
        "Service web, which does not exist"),
    "public ingress gone": ("cf-tunnel", gives(["ingresses", "=n8n", "==n8n-webhooks"], MISSING), cf_tunnel.TAKEN_UP,
        "n8n/n8n-webhooks not found"),
    "cannot be listed": ("cf-tunnel", gives(["ingresses", "--all-namespaces"], (1, "", "(Forbidden) is forbidden: ")),
        cf_tunnel.PUBLIC_KNOWN, "may not read"),
    "no CRDs": ("cert-manager",
        gives(["--raw=/apis/cert-manager.io/v1"], (1, "", "error: the server could not find the requested resource")),
        cert_manager.KINDS_SERVED, "CRD is not installed"),
    "no webhook": ("cert-manager", gives(["endpointslices", "cert-manager-webhook"], slices()),
        cert_manager.WEBHOOK_ANSWERS, "no ready endpoint"),
    "no issuer": ("cert-manager", gives(["clusterissuers"], listing()), cert_manager.ISSUERS_READY, "no ClusterIssuer"),
    "token missing": ("cert-manager",
        gives(["clusterissuers"], listing(ready("x", state="False", reason="InvalidSolver"))),
        cert_manager.ISSUERS_READY, "InvalidSolver"),
    "certificate not issued": ("cert-manager",
        gives(["certificates."], listing(ready("site", "shop", state="False", reason="DoesNotExist"))),
        cert_manager.CERTIFICATES_VALID, "shop/site: Ready=False"),
    "certificate that a rate limit stops": ("cert-manager", gives(["certificates."], listing(RATE_LIMITED)),
        cert_manager.CERTIFICATES_VALID, "urn:ietf:params:acme:error:rateLimited"),
    "certificate near its end": ("cert-manager",
        gives(["certificates."], listing(ready("site", "shop", notAfter=in_days(13)))), cert_manager.CERTIFICATES_VALID,
        "ends in 13 days"),
    "certificate without an end": ("cert-manager", gives(["certificates."], listing(ready("site", "shop"))),
        cert_manager.CERTIFICATES_VALID, "has no end"),
    "no clickhouse operator": ("clickhouse", gives(["deployments.apps", "altinity"], listing()),
        clickhouse.OPERATOR_READY, "not found"),
    "no installation": ("clickhouse", gives(["clickhouseinst"], MISSING), clickhouse.COMPLETED,
        "clickhouse/clickhouse not found"),
    "installation in progress": (
        "clickhouse",
        gives(
            ["clickhouseinst"], INSTALLATION | {"status": {"status": "InProgress", "hosts": 1, "errors": ["no Pod"]}}
        ),
        clickhouse.COMPLETED,
        "InProgress, 0 of 1 hosts; no Pod",
    ),
    "installation given up": ("clickhouse", gives(["clickhouseinst"], INSTALLATION | {"status": {"status": "Aborted"}}),
        clickhouse.COMPLETED, "Aborted"),
    "no login exported": ("clickhouse",
        lambda made: made.repo.answer("pulumi", ["stack", "export"], exported({"username": "analytics"})),
        clickhouse.OUTPUTS_THERE, "no output password, http_port"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_cause_and_next_step(platform: Platform, name: str) -> None:
    service, break_it, check, evidence = BROKEN[name]
    break_it(platform)
    verdict = verified(platform, find_service(service))
    assert not verdict.ok
    (problem,) = [finding for finding in verdict.failures if finding.check == check]
    assert evidence in problem.evidence
    assert problem.next_step
    assert problem.cause or check == cf_tunnel.PUBLIC_KNOWN


def from_cron(name: str, kind: str) -> dict[str, Any]:
    made = job(name, "temporal", kind)
    made["metadata"]["ownerReferences"] = [{"kind": "CronJob", "name": "backup", "controller": True}]
    return made


@pytest.mark.parametrize(
    ("jobs", "applied", "state"),
    [
        ([job("schema", "temporal")], True, State.PASSED),
        ([job("schema", "temporal"), from_cron("backup-1", "Failed")], True, State.PASSED),
        ([job("schema", "temporal"), job("namespace", "temporal", "Failed")], True, State.FAILED),
        ([job("schema", "temporal", "Suspended") | {"spec": {"suspend": True}}], True, State.FAILED),
        # Its time to live has passed, or a person removed it.
        ([], True, State.NOT_TRIED),
        ([from_cron("backup-1", "Complete")], False, State.FAILED),
        ([], False, State.FAILED),
    ],
)
def test_jobs_in_the_forms_that_clusters_have_them(jobs: list[Any], applied: bool, state: State) -> None:
    found = apps.jobs_are_complete(jobs, "temporal", applied=applied)
    assert found.state is state
    assert not (found.state is State.NOT_TRIED and found.deciding)


def test_jobs_that_were_cleaned_up_are_known_by_the_state(platform: Platform) -> None:
    outputs = {"url": "temporal", "grpc_address": "temporal-grpc:7233"}
    job_urn = "urn:pulumi:mx::temporal::kubernetes:helm.sh/v4:Chart$kubernetes:batch/v1:Job::schema"
    state = json.loads(checkpoint(outputs))
    state["checkpoint"]["latest"]["resources"].append({"urn": job_urn})
    platform.repo.has_stacks("temporal", state=json.dumps(state))
    platform.kubectl(["jobs.batch", "=temporal"], listing())
    verdict = verified(platform, find_service("temporal"))
    assert verdict.ok
    assert states(verdict)[apps.JOBS_COMPLETE] is State.NOT_TRIED


def test_no_certificate_is_nothing_to_prove_it_by(platform: Platform) -> None:
    platform.kubectl(["certificates.cert-manager.io"], listing())
    verdict = verified(platform, find_service("cert-manager"))
    assert verdict.ok
    assert states(verdict)[cert_manager.CERTIFICATES_VALID] is State.NOT_TRIED


def test_no_public_ingress_is_waited_for_without_the_tunnel(platform: Platform) -> None:
    without_stack(platform, "cf-tunnel")
    verdict = verified(platform, find_service("cf-tunnel"))
    assert [problem.check for problem in verdict.failures] == [cluster.STACK_DEPLOYED]
    assert cf_tunnel.TAKEN_UP not in states(verdict)


def test_what_is_public_nowhere_is_no_failure_of_the_tunnel(platform: Platform) -> None:
    platform.kubectl(["ingresses", "--all-namespaces"], listing())
    assert verified(platform, find_service("cf-tunnel")).ok


# --- the app's own role ---------------------------------------------------------------------------------------------


def refused(_: sql.Login) -> sql.Standing:
    raise sql.SqlFailed("FATAL: password authentication failed", "Postgres auth error: …")


def not_owner(login: sql.Login) -> sql.Standing:
    return sql.Standing(user=login.user, database=login.database, may_create=login.database != "temporal_visibility")


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [(refused, "temporal in temporal: FATAL"), (not_owner, "may not make tables in temporal_visibility")],
)
def test_a_role_that_cannot_work(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, answer: Any, evidence: str
) -> None:
    monkeypatch.setattr(sql, "select_standing", answer)
    verdict = verified(platform, find_service("temporal"))
    (problem,) = verdict.failures
    assert problem.check == apps.OWN_SQL
    assert evidence in problem.evidence
    # It says nothing about the app's program, which is looked at all the same.
    assert states(verdict)[inside.ANSWERS] is State.PASSED


@pytest.mark.parametrize(
    ("way", "check"),
    [
        ("resolve", tailscale.NAME_RESOLVES),
        ("connect", tailscale.PORT_CONNECTS),
        # A proxy asks for its certificate while the first client waits for an answer.
        ("fetch", tailscale.HTTP_ANSWERS),
    ],
)
def test_what_was_just_exposed_is_given_time(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, way: str, check: str
) -> None:
    later, tried = getattr(network, way), list[Any]()

    def at_the_second_time(where: str, *more: Any) -> Any:
        if not where.startswith("http://"):
            tried.append(where)
            if len(tried) == 1:
                raise TimeoutError("timed out")
        return later(where, *more)

    monkeypatch.setattr(network, way, at_the_second_time)
    monkeypatch.setattr(cluster, "patience", lambda _, seconds: seconds)
    monkeypatch.setattr("runbooks.core.findings.LOOK_AGAIN", 0.0)
    verdict = verified(platform, find_service("immich"))
    assert states(verdict)[check] is State.PASSED
    assert verdict.ok and len(tried) == 2


def test_the_logs_of_a_program_are_found_by_its_service(platform: Platform, closing: ExitStack) -> None:
    """Not by a label: neither Superset's chart nor our own objects have `app.kubernetes.io/instance`."""
    platform.answers(closing, always(500, "Internal Server Error"))
    for name, service in (("superset", "superset"), ("glance", "glance"), ("immich", "immich-server")):
        problem = next(one for one in verified(platform, find_service(name)).failures if one.check == inside.ANSWERS)
        assert f"kubectl -n {name} logs svc/{service}" in problem.next_step


@pytest.mark.parametrize("service", [app for app in APPS if apps.APPS[app.name].database], ids=lambda app: app.name)
def test_the_checks_know_the_key_that_the_program_writes(service: Service) -> None:
    text = "".join(path.read_text() for path in (REAL_ROOT / "pulumi" / service.folder).glob("*.py"))
    assert f'"{apps.APPS[service.name].database.password_key}": "password"' in text


# --- the lab ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "check"), PROGRAMS, ids=lambda value: getattr(value, "name", ""))
def test_in_the_lab_no_container_is_asked_and_it_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, service: Service, check: str
) -> None:
    monkeypatch.setattr("runbooks.checks.postgres.listener_is_ours", lambda *_: passed("x", "ours"))
    with open_session(platform.repo.c, f"verify.{service.name}") as session:
        lab = replace(session, target=replace(session.target, ephemeral=True))
        verdict = verify_service(lab, service)
    assert verdict.ok, verdict
    (said,) = {finding.evidence.partition(" (")[0] for finding in verdict.findings if finding.check == check}
    assert said == "simulated pod"
    untried = {finding.check for finding in verdict.findings if finding.state is State.NOT_TRIED}
    assert untried <= of_service.LAB_UNTRIED
    assert not platform.asked
    assert not platform.served.asked
