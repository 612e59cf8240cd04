"""The lab's charts: the real names and kinds, the same answers to the same values, accepted by a real API server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHARTS = Path(__file__).resolve().parents[2] / "lab/charts"

pytestmark = pytest.mark.lab

CNPG_KINDS = {
    "Backup", "Cluster", "ClusterImageCatalog", "Database", "DatabaseRole", "FailoverQuorum", "ImageCatalog", "Pooler",
    "Publication", "ScheduledBackup", "Subscription",
}  # fmt: skip
TAILSCALE_KINDS = {
    "Connector", "DNSConfig", "PeerRelay", "ProxyClass", "ProxyGroup", "ProxyGroupPolicy", "Recorder", "Tailnet",
}  # fmt: skip
TUNNEL = "cloudflare-tunnel-ingress-controller"
MONITORING = "kube-prometheus-stack"
DATABASE = {"host": "pg", "passwordSecret": {"name": "n8n-database", "key": "DB_POSTGRESDB_PASSWORD"}}
SQL = {
    "sql": {
        "pluginName": "postgres12", "databaseName": "temporal", "connectAddr": "pg:5432", "user": "temporal",
        "existingSecret": "temporal-database", "manageSchema": True,
    }
}  # fmt: skip
STORES = {"persistence": {"datastores": {"default": SQL, "visibility": SQL}}, "namespaces": {"create": True}}
NEEDED: dict[str, dict[str, Any]] = {
    "n8n": {"queueMode": {"enabled": False}, "database": DATABASE, "secretRefs": {"existingSecret": "n8n-core"}},
    "immich": {"immich": {"persistence": {"library": {"existingClaim": "library"}}}, "valkey": {"enabled": True}},
    "temporal": {"server": {"config": STORES}},
    "superset": {"postgresql": {"enabled": False}, "redis": {"enabled": False}},
    "jupyterhub": {"proxy": {"secretToken": "word"}, "hub": {"cookieSecret": "word"}},
}
"""Values that a chart cannot do without."""
TUNNEL_LOGIN = {
    "cloudflare": {
        "secretRef": {"name": "login", "apiTokenKey": "token", "accountIDKey": "account", "tunnelNameKey": "tunnel"}
    }
}
OPERATORS = ("altinity-clickhouse-operator", "cert-manager", TUNNEL, "cloudnative-pg", "tailscale-operator")


class Rendered(dict[tuple[str, str], dict[str, Any]]):
    """The objects of a chart by kind and name."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__({(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(text) if item})

    def names(self, kind: str) -> set[str]:
        return {name for found, name in self if found == kind}

    @property
    def definitions(self) -> list[dict[str, Any]]:
        return [item for (kind, _), item in self.items() if kind == "CustomResourceDefinition"]

    def environment(self, deployment: str) -> dict[str, Any]:
        (container,) = self["Deployment", deployment]["spec"]["template"]["spec"]["containers"]
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def _annotations(item: dict[str, Any]) -> dict[str, str]:
    return item["metadata"].get("annotations") or {}


@pytest.fixture
def render(helm):
    """`helm template` with the lab's helm, and values besides those that the chart cannot do without."""

    def template(chart: str, more: dict[str, Any] | None = None, *, release: str = "", complaint: str = "") -> Rendered:
        values = yaml.safe_dump({**NEEDED.get(chart, {}), **(more or {})})
        argv = [helm, "template", release or chart, CHARTS / chart, "--include-crds", "--namespace=default"]
        done = subprocess.run([*argv, "--values=-"], input=values, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is not bool(complaint), done.stderr
        assert complaint in done.stderr
        return Rendered(done.stdout)

    return template


@pytest.mark.parametrize("chart", ["n8n", "immich", "temporal", "superset", *OPERATORS])
def test_values_it_does_not_know_are_no_error(render, chart):
    assert render(chart, {"surprise": {"value": 1}})


CERT_MANAGER = {"cert-manager", "cert-manager-webhook", "cert-manager-cainjector"}


DEFINED_BY_CLICKHOUSE = {
    "clickhouseinstallations.clickhouse.altinity.com", "clickhouseinstallationtemplates.clickhouse.altinity.com",
    "clickhouseoperatorconfigurations.clickhouse.altinity.com",
    "clickhousekeeperinstallations.clickhouse-keeper.altinity.com",
}  # fmt: skip
FRONTENDS = {"temporal-frontend", "temporal-web"}
HEADLESS = {f"temporal-{name}-headless" for name in ("frontend", "history", "matching", "worker")}


@pytest.mark.parametrize(
    ("chart", "release", "values", "kinds", "names"),
    [
        ("tailscale-operator", "", {}, "Deployment", {"operator"}),
        ("tailscale-operator", "", {}, "ServiceAccount", {"operator", "proxies"}),
        ("tailscale-operator", "", {}, "IngressClass", {"tailscale"}),
        ("tailscale-operator", "", {}, "ClusterRole", {"tailscale-operator"}),
        ("tailscale-operator", "", {}, "Secret", set()),
        (TUNNEL, "", {}, "Secret", {"cloudflare-api"}),
        (TUNNEL, "", TUNNEL_LOGIN, "Secret", set()),
        ("cloudnative-pg", "cnpg", {}, "Deployment", {"cnpg-cloudnative-pg"}),
        ("cloudnative-pg", "my-cloudnative-pg", {}, "Deployment", {"my-cloudnative-pg"}),
        ("cloudnative-pg", "cnpg", {"fullnameOverride": "pg"}, "Deployment", {"pg"}),
        ("cloudnative-pg", "cnpg", {"nameOverride": "op"}, "Deployment", {"cnpg-op"}),
        ("cloudnative-pg", "cnpg", {}, "Service", {"cnpg-webhook-service"}),
        ("cloudnative-pg", "cnpg", {}, "ConfigMap", {"cnpg-controller-manager-config", "cnpg-default-monitoring"}),
        ("cert-manager", "", {}, "Deployment Service ServiceAccount", CERT_MANAGER),
        (MONITORING, "m", {"fullnameOverride": "m"}, "Deployment", {"m-grafana", "m-kube-state-metrics", "m-operator"}),
        (MONITORING, "m", {"fullnameOverride": "m"}, "DaemonSet", {"m-prometheus-node-exporter"}),
        (MONITORING, "m", {"fullnameOverride": "m"}, "Prometheus", {"m-prometheus"}),
        (MONITORING, "m", {"fullnameOverride": "m"}, "Alertmanager", {"m-alertmanager"}),
        # 26 characters of the full name.
        (MONITORING, "watch", {}, "Prometheus", {"watch-kube-prometheus-stac-prometheus"}),
        ("n8n", "", {}, "Deployment Service", {"n8n-main"}),
        ("immich", "", {}, "Deployment Service", {"immich-server", "immich-machine-learning", "immich-valkey"}),
        ("superset", "", {}, "Deployment", {"superset", "superset-worker"}),
        ("superset", "", {}, "Service", {"superset"}),
        ("jupyterhub", "", {}, "Deployment", {"hub", "proxy"}),
        ("jupyterhub", "", {}, "Service", {"hub", "proxy-api", "proxy-public"}),
        ("jupyterhub", "", {}, "NetworkPolicy", {"singleuser"}),
        ("altinity-clickhouse-operator", "", {}, "Deployment", {"altinity-clickhouse-operator"}),
        ("altinity-clickhouse-operator", "", {}, "CustomResourceDefinition", DEFINED_BY_CLICKHOUSE),
        ("temporal", "", {}, "Service", FRONTENDS | HEADLESS),
    ],
)
def test_it_has_the_real_names(render, chart, release, values, kinds, names):
    rendered = render(chart, values, release=release)
    assert {kind: rendered.names(kind) for kind in kinds.split()} == dict.fromkeys(kinds.split(), names)


MANAGER_KINDS = {"Certificate", "CertificateRequest", "Challenge", "ClusterIssuer", "Issuer", "Order"}


@pytest.mark.parametrize(
    ("chart", "values", "kinds"),
    [
        ("tailscale-operator", {}, TAILSCALE_KINDS),
        ("cloudnative-pg", {}, CNPG_KINDS),
        ("cloudnative-pg", {"crds": {"create": False}}, set()),
        ("cert-manager", {"crds": {"enabled": True}}, MANAGER_KINDS),
        ("cert-manager", {}, set()),
    ],
)
def test_it_defines_the_real_kinds_and_keeps_them_where_the_real_one_does(render, chart, values, kinds):
    rendered = render(chart, values)
    assert {item["spec"]["names"]["kind"] for item in rendered.definitions} == kinds
    if chart != "tailscale-operator":
        assert all(_annotations(crd)["helm.sh/resource-policy"] == "keep" for crd in rendered.definitions)


def test_tailscale_logs_in_with_a_secret_and_writes_one_only_when_given_a_login(render):
    chart = render("tailscale-operator")
    assert chart["Deployment", "operator"]["spec"]["selector"] == {"matchLabels": {"app": "operator"}}
    assert chart["IngressClass", "tailscale"]["spec"]["controller"] == "tailscale.com/ts-ingress"
    (volume,) = chart["Deployment", "operator"]["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == "operator-oauth"
    given = render("tailscale-operator", {"oauth": {"clientId": "a", "clientSecret": "b"}})
    assert given["Secret", "operator-oauth"]["stringData"] == {"client_id": "a", "client_secret": "b"}


def test_tailscale_takes_tags_as_the_real_chart_does(render):
    tags = {"operatorConfig": {"defaultTags": ["tag:a", "tag:b"]}, "proxyConfig": {"defaultTags": "tag:c,tag:d"}}
    environment = render("tailscale-operator", tags).environment("operator")
    assert (environment["OPERATOR_INITIAL_TAGS"], environment["PROXY_TAGS"]) == ("tag:a,tag:b", "tag:c,tag:d")


@pytest.mark.parametrize(("mode", "impersonates"), [("true", True), ("false", False), ("noauth", False)])
def test_tailscale_impersonates_only_as_the_authenticating_proxy(render, mode, impersonates):
    chart = render("tailscale-operator", {"apiServerProxyConfig": {"mode": mode}})
    assert chart.environment("operator")["APISERVER_PROXY"] == mode
    assert ("tailscale-auth-proxy" in chart.names("ClusterRole")) is impersonates


def test_operators_have_a_service_for_their_webhooks_and_no_webhooks(render):
    values = {"webhook": {"mutating": {"create": True}, "validating": {"create": True}}}
    cnpg, cert_manager = render("cloudnative-pg", values, release="cnpg"), render("cert-manager")
    assert [kind for kind, _ in (*cnpg, *cert_manager) if "Webhook" in kind] == [], "nothing would answer one"
    deployment = cnpg["Deployment", "cnpg-cloudnative-pg"]
    assert deployment["metadata"]["labels"]["app.kubernetes.io/name"] == "cloudnative-pg"
    selector = cnpg["Service", "cnpg-webhook-service"]["spec"]["selector"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert cert_manager["Service", "cert-manager-webhook"]["spec"]["ports"][0]["port"] == 443


def test_the_tunnel_logs_in_with_the_secret_it_is_given(render):
    chart = render(TUNNEL, TUNNEL_LOGIN)
    environment = chart.environment(TUNNEL)
    for variable, key in {"API_TOKEN": "token", "ACCOUNT_ID": "account", "TUNNEL_NAME": "tunnel"}.items():
        assert environment[f"CLOUDFLARE_{variable}"] == {"secretKeyRef": {"name": "login", "key": key}}
    assert chart["IngressClass", "cloudflare-tunnel"]["spec"]["controller"].startswith("strrl.dev/")


def test_the_monitoring_stacks_operator_waits_for_ever_with_its_webhook(render):
    """Its certificate comes from Jobs that are Helm hooks."""
    off = {"prometheusOperator": {"admissionWebhooks": {"enabled": False}, "tls": {"enabled": False}}}
    for values, waits in [({}, True), (off, False)]:
        chart = render(MONITORING, {"fullnameOverride": "monitoring"} | values)
        template = chart["Deployment", "monitoring-operator"]["spec"]["template"]
        assert bool(template["metadata"].get("annotations")) is waits
        assert bool(template["spec"].get("volumes")) is waits


@pytest.mark.parametrize(("hosts", "rules"), [([], [None]), (["charts.example"], ["charts.example"])])
def test_grafanas_ingress_has_a_host_only_when_given_one(render, hosts, rules):
    values = {"grafana": {"ingress": {"enabled": True, "ingressClassName": "tailscale", "hosts": hosts}}}
    spec = render(MONITORING, values, release="x")["Ingress", "x-grafana"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert [rule.get("host") for rule in spec["rules"]] == rules


NO_HOOKS = {"server": {"config": {**STORES, "namespaces": {"create": True, "useHelmHooks": False}}}}
TEMPORAL_JOBS = {"temporal-schema-0-0-0-lab-1", "temporal-namespace-0-0-0-lab-1"}


@pytest.mark.parametrize(
    ("chart", "values", "hooks", "jobs"),
    [
        ("temporal", {}, {"temporal-schema", "temporal-namespace"}, None),
        ("temporal", {"schema": {"useHelmHooks": False}, **NO_HOOKS}, set(), TEMPORAL_JOBS),
        ("superset", {}, {"superset-init-db"}, None),
        ("superset", {"init": {"jobAnnotations": None}}, set(), {"superset-init-db"}),
    ],
)
def test_jobs_are_hooks_unless_the_values_say_otherwise(render, chart, values, hooks, jobs):
    rendered = render(chart, values)
    assert {item["metadata"]["name"] for item in rendered.values() if "helm.sh/hook" in _annotations(item)} == hooks
    assert jobs is None or rendered.names("Job") == jobs


@pytest.mark.parametrize(
    ("chart", "values", "complaint"),
    [
        ("immich", {"immich": {}}, ".Values.immich.persistence.library.existingClaim is required."),
        ("immich", {"redis": {}}, "The postgresql and redis subcharts have been removed."),
        ("n8n", {"queueMode": {"enabled": True}}, "set queueMode.enabled to false"),
        ("n8n", {"secretRefs": {}}, "secretRefs.existingSecret is required"),
        ("superset", {"redis": {"enabled": True}}, "set postgresql.enabled and redis.enabled to false"),
        ("temporal", {"server": {"config": {}}}, "No valid driver configured for default store"),
        ("jupyterhub", {"surprise": 1}, "additional properties 'surprise' not allowed"),
    ],
)
def test_what_the_real_chart_refuses_is_refused(render, chart, values, complaint):
    render(chart, values, complaint=complaint)
