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
def render(lab):
    """`helm template` with the lab's helm."""

    def template(chart: str, release: str, values: dict[str, Any] | None = None) -> Rendered:
        argv = [
            lab.target["tools"]["helm"],
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


@pytest.mark.parametrize("chart", ["cloudnative-pg", "tailscale-operator"])
def test_values_it_does_not_know_are_no_error(render, chart):
    assert render(chart, "x", {"surprise": {"value": 1}}).objects


@pytest.mark.parametrize("chart", ["cloudnative-pg", "tailscale-operator"])
def test_a_real_api_server_accepts_every_object(lab, render, chart):
    # Forced, since another test may have installed the same objects; a dry run changes none of them.
    said = lab.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "--namespace=default", "--filename=-",
        stdin=render(chart, "x").text,
    )  # fmt: skip
    assert len(said.splitlines()) == len(render(chart, "x").objects)
