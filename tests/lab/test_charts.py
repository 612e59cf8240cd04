"""The lab's charts: the real names, kinds and value keys, accepted by a real API server."""

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


class Rendered:
    """The objects of a chart, by kind and name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects = [found for found in yaml.safe_load_all(text) if found]

    def __getitem__(self, kind_and_name: tuple[str, str]) -> dict[str, Any]:
        kind, name = kind_and_name
        (found,) = [item for item in self.objects if item["kind"] == kind and item["metadata"]["name"] == name]
        return found

    def names(self, kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.objects if item["kind"] == kind}

    def crd_kinds(self) -> set[str]:
        return {crd["spec"]["names"]["kind"] for crd in self.objects if crd["kind"] == "CustomResourceDefinition"}

    def environment(self, deployment: str) -> dict[str, str]:
        (container,) = self["Deployment", deployment]["spec"]["template"]["spec"]["containers"]
        return {entry["name"]: entry.get("value", "") for entry in container["env"]}


@pytest.fixture
def render(helm):
    """`helm template` with the lab's helm."""

    def template(chart: str, release: str, values: dict[str, Any] | None = None) -> Rendered:
        argv = [
            helm,
            "template",
            release,
            str(CHARTS / chart),
            "--namespace=default",
            "--values=-",
        ]
        done = subprocess.run(argv, input=yaml.safe_dump(values or {}), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return template


def test_tailscale_has_the_real_names(render):
    chart = render("tailscale-operator", "tailscale-operator")
    assert chart.names("Deployment") == {"operator"}
    assert chart.names("ServiceAccount") == {"operator", "proxies"}
    assert chart.names("IngressClass") == {"tailscale"}
    assert chart.names("ClusterRole") == {"tailscale-operator"}
    assert chart.crd_kinds() == TAILSCALE_KINDS
    assert chart["Deployment", "operator"]["spec"]["selector"] == {"matchLabels": {"app": "operator"}}
    assert chart["IngressClass", "tailscale"]["spec"]["controller"] == "tailscale.com/ts-ingress"
    (volume,) = chart["Deployment", "operator"]["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == "operator-oauth"


def test_tailscale_writes_a_login_only_when_given_one(render):
    assert render("tailscale-operator", "ts").names("Secret") == set()
    given = render("tailscale-operator", "ts", {"oauth": {"clientId": "a", "clientSecret": "b"}})
    assert given["Secret", "operator-oauth"]["stringData"] == {"client_id": "a", "client_secret": "b"}


def test_tailscale_takes_tags_as_the_real_chart_does(render):
    tags = {"operatorConfig": {"defaultTags": ["tag:a", "tag:b"]}, "proxyConfig": {"defaultTags": "tag:c,tag:d"}}
    environment = render("tailscale-operator", "ts", tags).environment("operator")
    assert environment["OPERATOR_INITIAL_TAGS"] == "tag:a,tag:b"
    assert environment["PROXY_TAGS"] == "tag:c,tag:d"


@pytest.mark.parametrize(("mode", "impersonates"), [("true", True), ("false", False), ("noauth", False)])
def test_tailscale_impersonates_only_as_the_authenticating_proxy(render, mode, impersonates):
    chart = render("tailscale-operator", "ts", {"apiServerProxyConfig": {"mode": mode}})
    assert chart.environment("operator")["APISERVER_PROXY"] == mode
    assert ("tailscale-auth-proxy" in chart.names("ClusterRole")) is impersonates


def test_cnpg_has_the_real_names(render):
    chart = render("cloudnative-pg", "cnpg")
    assert chart.names("Deployment") == {"cnpg-cloudnative-pg"}
    assert chart.names("Service") == {"cnpg-webhook-service"}
    assert chart.names("ConfigMap") == {"cnpg-controller-manager-config", "cnpg-default-monitoring"}
    assert chart.crd_kinds() == CNPG_KINDS
    labels = chart["Deployment", "cnpg-cloudnative-pg"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "cloudnative-pg"
    selector = chart["Service", "cnpg-webhook-service"]["spec"]["selector"]
    assert (
        selector.items() <= chart["Deployment", "cnpg-cloudnative-pg"]["spec"]["template"]["metadata"]["labels"].items()
    )


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("cnpg", {}, "cnpg-cloudnative-pg"),
        ("my-cloudnative-pg", {}, "my-cloudnative-pg"),
        ("cnpg", {"fullnameOverride": "pg"}, "pg"),
        ("cnpg", {"nameOverride": "op"}, "cnpg-op"),
    ],
)
def test_cnpg_names_its_deployment_after_the_release(render, release, values, name):
    assert render("cloudnative-pg", release, values).names("Deployment") == {name}


def test_cnpg_keeps_its_crds_and_leaves_them_out_when_told(render):
    crds = [item for item in render("cloudnative-pg", "cnpg").objects if item["kind"] == "CustomResourceDefinition"]
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in crds} == {"keep"}
    assert render("cloudnative-pg", "cnpg", {"crds": {"create": False}}).crd_kinds() == set()


def test_cnpg_has_no_webhooks_for_nothing_would_answer(render):
    values = {"webhook": {"mutating": {"create": True}, "validating": {"create": True}}}
    chart = render("cloudnative-pg", "cnpg", values)
    assert not [item["kind"] for item in chart.objects if "Webhook" in item["kind"]]


@pytest.mark.parametrize(
    "chart", ["cert-manager", "cloudflare-tunnel-ingress-controller", "cloudnative-pg", "tailscale-operator"]
)
def test_values_it_does_not_know_are_no_error(render, chart):
    assert render(chart, "x", {"surprise": {"value": 1}}).objects


@pytest.mark.parametrize(
    "chart", ["cert-manager", "cloudflare-tunnel-ingress-controller", "cloudnative-pg", "tailscale-operator"]
)
def test_a_real_api_server_accepts_every_object(lab, render, chart):
    # Forced, since another test may have installed the same objects; a dry run changes none of them.
    said = lab.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "--namespace=default", "--filename=-",
        stdin=render(chart, "x").text,
    )  # fmt: skip
    assert len(said.splitlines()) == len(render(chart, "x").objects)


def test_cert_manager_has_the_real_names(render):
    chart = render("cert-manager", "cert-manager", {"crds": {"enabled": True}})
    programs = {"cert-manager", "cert-manager-webhook", "cert-manager-cainjector"}
    assert chart.names("Deployment") == chart.names("Service") == chart.names("ServiceAccount") == programs
    assert chart.crd_kinds() == {"Certificate", "CertificateRequest", "Challenge", "ClusterIssuer", "Issuer", "Order"}
    assert chart["Service", "cert-manager-webhook"]["spec"]["ports"][0]["port"] == 443
    assert not [item["kind"] for item in chart.objects if "Webhook" in item["kind"]]


def test_cert_manager_keeps_its_crds_and_leaves_them_out_when_told(render):
    for crd in render("cert-manager", "x", {"crds": {"enabled": True}}).objects:
        if crd["kind"] == "CustomResourceDefinition":
            assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert render("cert-manager", "x").crd_kinds() == set()


def test_the_tunnel_logs_in_with_the_secret_it_is_told(render):
    keys = {"apiTokenKey": "token", "accountIDKey": "account", "tunnelNameKey": "tunnel"}
    name = "cloudflare-tunnel-ingress-controller"
    chart = render(name, name, {"cloudflare": {"secretRef": {"name": "login"} | keys}})
    assert chart.names("Secret") == set()
    (container,) = chart["Deployment", name]["spec"]["template"]["spec"]["containers"]
    refs = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"][:3]}
    assert refs == {
        "CLOUDFLARE_API_TOKEN": {"name": "login", "key": "token"},
        "CLOUDFLARE_ACCOUNT_ID": {"name": "login", "key": "account"},
        "CLOUDFLARE_TUNNEL_NAME": {"name": "login", "key": "tunnel"},
    }
    assert chart["IngressClass", "cloudflare-tunnel"]["spec"]["controller"].startswith("strrl.dev/")
    assert render(name, name).names("Secret") == {"cloudflare-api"}


def test_the_monitoring_stack_has_the_real_names(render):
    chart = render("kube-prometheus-stack", "monitoring", {"fullnameOverride": "monitoring"})
    assert chart.names("Deployment") == {f"monitoring-{n}" for n in ("grafana", "kube-state-metrics", "operator")}
    assert chart.names("DaemonSet") == {"monitoring-prometheus-node-exporter"}
    assert chart.names("Prometheus") == {"monitoring-prometheus"}
    assert chart.names("Alertmanager") == {"monitoring-alertmanager"}
    named = render("kube-prometheus-stack", "watch")
    assert named.names("Prometheus") == {"watch-kube-prometheus-stac-prometheus"}, "26 characters of the full name"


def test_the_monitoring_stacks_operator_waits_for_ever_with_its_webhook(render):
    """Its certificate comes from Jobs that are Helm hooks."""
    off = {"prometheusOperator": {"admissionWebhooks": {"enabled": False}, "tls": {"enabled": False}}}
    for values, waits in [({}, True), (off, False)]:
        chart = render("kube-prometheus-stack", "monitoring", {"fullnameOverride": "monitoring"} | values)
        template = chart["Deployment", "monitoring-operator"]["spec"]["template"]
        assert bool(template["metadata"].get("annotations")) is waits
        assert bool(template["spec"].get("volumes")) is waits


@pytest.mark.parametrize(("hosts", "rules"), [([], [None]), (["charts.example"], ["charts.example"])])
def test_grafanas_ingress_has_a_host_only_when_given_one(render, hosts, rules):
    values = {"grafana": {"ingress": {"enabled": True, "ingressClassName": "tailscale", "hosts": hosts}}}
    spec = render("kube-prometheus-stack", "x", values)["Ingress", "x-grafana"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert [rule.get("host") for rule in spec["rules"]] == rules
