"""Every exposure check with right, wrong, late and missing answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from runbooks.checks import cluster, tailscale
from runbooks.checks.inside import Page
from runbooks.checks.tailscale import Device, Exposure
from runbooks.core.findings import Check, Finding, State, passed
from runbooks.tools import network
from runbooks.tools.kubectl import Json
from runbooks.tools.network import Answer
from tests.fixtures import secret

FQDN = "postgresql.tail1234.ts.net"
RUNNER: Any = None
DEVICE = Device(fqdn=FQDN, addresses=("100.64.0.7", "fd7a::7"))


def service(
    name: str = "postgresql-cluster-rw-ext",
    *,
    annotations: dict[str, str] | None = None,
    ready: tuple[str, str] | None = ("True", "ProxyCreated"),
    **spec: Any,
) -> dict[str, Any]:
    asked = {"tailscale.com/expose": "true", "tailscale.com/hostname": "postgresql"}
    conditions = [{"type": "TailscaleProxyReady", "status": ready[0], "reason": ready[1]}] if ready else []
    return {
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "postgresql",
            "annotations": asked if annotations is None else annotations,
        },
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{"port": 5432}], **spec},
        "status": {"conditions": conditions},
    }


def ingress(
    *,
    hosts: list[str] | None = None,
    rules: list[str] | None = None,
    hostname: str = "immich.tail1234.ts.net",
    **changes: Any,
) -> dict[str, Any]:
    status = {"loadBalancer": {"ingress": [{"hostname": hostname}]}} if hostname else {}
    spec: dict[str, Any] = {"ingressClassName": "tailscale", "tls": [{"hosts": ["immich"] if hosts is None else hosts}]}
    spec["rules"] = [{"host": host} for host in rules or []]
    if not rules:
        spec["defaultBackend"] = {"service": {"name": "immich"}}
    return {
        "kind": "Ingress", "metadata": {"name": "web", "namespace": "immich"}, "spec": spec, "status": status,
    } | changes  # fmt: skip


def exposure(obj: Json) -> Exposure:
    return Exposure(obj=obj)


def state(fqdn: str = f"{FQDN}.", ips: str = '["100.64.0.7","fd7a::7"]') -> dict[str, Any]:
    return secret("ts-x-0", "tailscale", {"device_fqdn": fqdn, "device_ips": ips})


# --- which objects are exposed ---------------------------------------------------------------------------------------


def test_the_services_and_ingresses_that_ask_to_be_exposed_and_no_others() -> None:
    services = [
        service("annotated"),
        service("plain", annotations={}),
        service("off", annotations={"tailscale.com/expose": "false"}),
        service("by-class", annotations={}, type="LoadBalancer", loadBalancerClass="tailscale"),
        service("other-class", annotations={}, type="LoadBalancer", loadBalancerClass="metallb"),
        service("taken-up", annotations={}, type="LoadBalancer"),
        service("not-taken-up", annotations={}, type="LoadBalancer", ready=None),
        service("egress", annotations={"tailscale.com/tailnet-fqdn": "nas.ts.net"}, type="ExternalName", ready=None),
    ]
    exposed = [obj["metadata"]["name"] for obj in services if tailscale.is_exposed_service(obj)]
    assert exposed == ["annotated", "by-class", "taken-up"]
    assert tailscale.is_exposed_ingress(ingress())
    assert not tailscale.is_exposed_ingress(ingress() | {"spec": {"ingressClassName": "cloudflare-tunnel"}})


@pytest.mark.parametrize(
    ("obj", "hostname", "ports"),
    [
        (service(), "postgresql", (5432,)),
        (service("db", annotations={"tailscale.com/expose": "true"}), "postgresql-db", (5432,)),
        (service(ports=[{"port": 80}, {"port": 443}]), "postgresql", (80, 443)),
        (service(ports=[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]), "postgresql", (53,)),
        (service(ports=[{"port": 51820, "protocol": "UDP"}]), "postgresql", ()),
        (service(type="ExternalName", externalName="nas.lan", ports=[]), "postgresql", ()),
        (ingress(), "immich", (443,)),
        (ingress(hosts=["photos.tail1234.ts.net"]), "photos", (443,)),
        (ingress(hosts=[]), "immich-web-ingress", (443,)),
    ],
)
def test_the_name_the_operator_would_give(obj: Json, hostname: str, ports: tuple[int, ...]) -> None:
    found = exposure(obj)
    assert (found.hostname, found.ports) == (hostname, ports)


def test_the_state_secret_is_found_by_labels() -> None:
    assert exposure(service()).selector == (
        "tailscale.com/managed=true,tailscale.com/parent-resource=postgresql-cluster-rw-ext,"
        "tailscale.com/parent-resource-ns=postgresql,tailscale.com/parent-resource-type=svc"
    )
    assert exposure(ingress()).selector.endswith("parent-resource-type=ingress")


# --- checks -----------------------------------------------------------------------------------------------------


def named(item: Exposure, secrets: list[Json]) -> Finding:
    """How the device of these state Secrets fits, among those of other objects."""
    labelled = [one | {"metadata": one["metadata"] | {"labels": item.labels}} for one in secrets]
    return tailscale.device_has_name(replace(item, device=tailscale.device_of(item, [state("other."), *labelled])))


def refuse(error: Exception) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


def on(
    judge: Callable[[], Finding],
    *,
    status: Any = None,
    resolve: Any = lambda _: ["100.64.0.7"],
    connect: Any = lambda *_: None,
    fetch: Any = lambda _: Answer(status=200, body="<title>Immich</title>"),
) -> Callable[[], Finding]:
    """The judge on a network with these answers."""

    def look() -> Finding:
        answers = {"tailscale_status": lambda _: status, "resolve": resolve, "connect": connect, "fetch": fetch}
        with mock.patch.multiple(network, **answers):
            return judge()

    return look


def tailnet(*, state: str = "Running", **peer: Any) -> dict[str, Any]:
    known = {"HostName": "whatever", "DNSName": f"{FQDN}.", "Online": True} | peer
    return {"BackendState": state, "Peer": {"key1": {"DNSName": "other.tail1234.ts.net."}, "key2": known}}


def nas(name: str, device: str) -> Finding:
    """How a device fits a Service that asks for `name`."""
    asked = {"tailscale.com/expose": "true", "tailscale.com/hostname": name}
    return named(svc(annotations=asked), [state(f"{device}.tail1.ts.net.")])


def svc(**changes: Any) -> Exposure:
    return exposure(service(**changes))


ING = exposure(ingress())
NAME = "immich.tail1234.ts.net"

VERDICTS: dict[str, tuple[Callable[[], Finding], State, str, str]] = {
    # the proxy
    "condition true": (lambda: tailscale.proxy_is_ready(svc()), State.PASSED, "TailscaleProxyReady=True", ""),
    "no condition yet": (lambda: tailscale.proxy_is_ready(svc(ready=None)), State.FAILED, "no condition",
        "annotations are present"),
    "proxy invalid": (lambda: tailscale.proxy_is_ready(svc(ready=("False", "ProxyInvalid"))), State.FAILED,
        "ProxyInvalid", "no proxy Pod"),
    "proxy that waits for its login": (
        lambda: tailscale.proxy_is_ready(svc(ready=("False", "waiting for proxy pod to finish auth"))), State.FAILED,
        "finish auth", "device approval"),
    "headless": (lambda: tailscale.proxy_is_ready(svc(clusterIP="None")), State.FAILED, "headless", "routable"),
    "being deleted": (
        lambda: tailscale.proxy_is_ready(
            exposure(ingress(metadata={"name": "web", "namespace": "immich", "deletionTimestamp": "now"}))
        ),
        State.FAILED,
        "terminating",
        "finalizer",
    ),
    "ingress with a hostname": (lambda: tailscale.proxy_is_ready(ING), State.PASSED, "immich.tail1234.ts.net", ""),
    "ingress without": (lambda: tailscale.proxy_is_ready(exposure(ingress(hostname=""))), State.FAILED, "no hostname",
        "ingressClassName"),
    "ingress whose rules are ignored": (
        lambda: tailscale.proxy_is_ready(exposure(ingress(rules=["immich.example.org"], hostname=""))), State.FAILED,
        "immich.example.org", "404"),
    "ingress whose rule matches": (lambda: tailscale.proxy_is_ready(exposure(ingress(rules=["immich"]))), State.PASSED,
        "immich", ""),
    "rules in another case": (
        lambda: tailscale.proxy_is_ready(exposure(ingress(hosts=["Immich"], rules=["immich"]))),
        State.PASSED, "", ""),
    # the device
    "asked for in capitals": (lambda: nas("NAS", "nas"), State.PASSED, "", ""),
    "named in capitals": (lambda: nas("nas", "NAS"), State.PASSED, "", ""),
    "in capitals and renamed": (lambda: nas("NAS", "nas-1"), State.FAILED, "", ""),
    "device joined": (lambda: named(svc(), [state()]), State.PASSED, FQDN, ""),
    "no state secret": (lambda: named(svc(), []), State.FAILED, "no state Secret", "proxy Pod"),
    "not joined yet": (lambda: named(svc(), [state(fqdn="")]), State.FAILED, "no device_fqdn", "OAuth"),
    "renamed": (lambda: named(svc(), [state(fqdn="postgresql-1.tail1234.ts.net.")]), State.FAILED, "postgresql-1",
        "holds the name"),
    "another name": (lambda: named(svc(), [state(fqdn="postgresql-old.tail1234.ts.net.")]), State.FAILED,
        "not postgresql", "tailscale.com/hostname"),
    "one replica joined": (lambda: named(svc(), [state(fqdn=""), state()]), State.PASSED, FQDN, ""),
    "addresses without sense": (lambda: named(svc(), [state(ips="{oops")]), State.PASSED, FQDN, ""),
    # the peer
    "peer": (on(lambda: tailscale.device_is_peer(DEVICE, RUNNER), status=tailnet()), State.PASSED, "online", ""),
    "peer offline": (on(lambda: tailscale.device_is_peer(DEVICE, RUNNER), status=tailnet(Online=False)), State.PASSED,
        "not online", ""),
    "peer expired": (on(lambda: tailscale.device_is_peer(DEVICE, RUNNER), status=tailnet(Expired=True)), State.FAILED,
        "expired", "key"),
    "no such peer": (
        on(
            lambda: tailscale.device_is_peer(DEVICE, RUNNER),
            status=tailnet(DNSName="else.tail1234.ts.net.", HostName="postgresql"),
        ),
        State.FAILED,
        "not among its 2 peers",
        "ACLs",
    ),
    "no peers at all": (
        on(lambda: tailscale.device_is_peer(DEVICE, RUNNER), status={"BackendState": "Running", "Peer": None}),
        State.FAILED, "not among its 0", "ACLs"),
    "stopped": (on(lambda: tailscale.device_is_peer(DEVICE, RUNNER), status=tailnet(state="Stopped")), State.FAILED,
        "tailscale is Stopped", "not connected"),
    "no tailscale here": (on(lambda: tailscale.device_is_peer(DEVICE, RUNNER), status=None), State.NOT_TRIED,
        "no `tailscale`", ""),
    # the name
    "resolves": (on(lambda: tailscale.name_resolves(FQDN, DEVICE)), State.PASSED, "100.64.0.7", ""),
    "does not resolve": (
        on(lambda: tailscale.name_resolves(FQDN, DEVICE), resolve=refuse(socket.gaierror(-2, "Name not known"))),
        State.FAILED, "Name not known", "MagicDNS"),
    "resolves elsewhere": (on(lambda: tailscale.name_resolves(FQDN, DEVICE), resolve=lambda _: ["10.0.0.66"]),
        State.FAILED, "10.0.0.66; the device is 100.64.0.7", "another machine"),
    "resolves, addresses unknown": (on(lambda: tailscale.name_resolves(FQDN, Device(fqdn=FQDN))), State.PASSED,
        "100.64.0.7", ""),
    # the port
    "connects": (on(lambda: tailscale.port_connects(FQDN, (5432,))), State.PASSED, f"{FQDN}:5432", ""),
    "DNS only": (on(lambda: tailscale.port_connects(FQDN, (5432,)), connect=refuse(TimeoutError("timed out"))),
        State.FAILED, "timed out", "ACLs"),
    "refused": (
        on(lambda: tailscale.port_connects(FQDN, (5432,)), connect=refuse(ConnectionRefusedError("refused"))),
        State.FAILED, "refused", "endpoints"),
    # HTTP
    "answers": (on(lambda: tailscale.http_answers(NAME, Page(path="/", marker="Immich"))), State.PASSED,
        "status 200", ""),
    "wrong body": (on(lambda: tailscale.http_answers(NAME, Page(path="/", marker="n8n"))), State.FAILED,
        "without 'n8n'", "another app"),
    "404": (on(lambda: tailscale.http_answers(NAME, Page(path="/")), fetch=lambda _: Answer(status=404, body="")),
        State.FAILED, "status 404", "backend Service"),
    "502": (on(lambda: tailscale.http_answers(NAME, Page(path="/")), fetch=lambda _: Answer(status=502, body="")),
        State.FAILED, "status 502", "behind it"),
    "TCP only": (
        on(lambda: tailscale.http_answers(NAME, Page(path="/")), fetch=refuse(ConnectionResetError("reset"))),
        State.FAILED, "reset", "HTTPS certificates"),
    "a login is wanted": (
        on(lambda: tailscale.http_answers(NAME, Page(path="/")), fetch=lambda _: Answer(status=401, body="")),
        State.PASSED, "status 401", ""),
    "a login is wanted for a page that needs none": (
        on(
            lambda: tailscale.http_answers(NAME, Page(path="/ping", marker="pong")),
            fetch=lambda _: Answer(status=401, body=""),
        ),
        State.FAILED,
        "/ping: status 401",
        "error",
    ),
    "no TCP port": (on(lambda: tailscale.port_connects(FQDN, ())), State.NOT_TRIED, "no TCP port", ""),
    "redirect": (
        on(lambda: tailscale.http_answers(NAME, Page(path="/")), fetch=lambda _: Answer(status=302, body="")),
        State.PASSED, "status 302", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", VERDICTS)
def test_each_check(name: str) -> None:
    look, state_wanted, evidence, cause = VERDICTS[name]
    found = look()
    assert found.state is state_wanted, found
    assert evidence in found.evidence
    assert cause in found.cause
    if found.state is State.FAILED:
        assert found.cause and found.next_step
    assert found.deciding is (found.state is not State.NOT_TRIED)


def test_a_proxy_group_is_known_by_its_status_alone() -> None:
    grouped = ingress()
    grouped["metadata"]["annotations"] = {"tailscale.com/proxy-group": "ha"}
    device = tailscale.device_of(exposure(grouped), [])
    assert device is not None
    assert device.label == "immich"
    assert tailscale.device_of(ING, []) is None


# --- forms of an exposure ------------------------------------------------------------------------------------------


def grouped(configured: str = "True", hostname: str = "files.tail1.ts.net") -> dict[str, Any]:
    """A Service on an ingress ProxyGroup."""
    asked = {"tailscale.com/proxy-group": "ingress-proxies", "tailscale.com/hostname": "files"}
    obj = service("files", annotations=asked, ready=None, type="LoadBalancer", loadBalancerClass="tailscale")
    obj["status"]["conditions"] = [{"type": "TailscaleIngressSvcConfigured", "status": configured, "reason": "R"}]
    obj["status"]["loadBalancer"] = {"ingress": [{"hostname": hostname, "ip": "100.90.1.2"}]} if hostname else {}
    return obj


def test_a_service_of_a_proxy_group_is_known_by_its_own_condition_and_status() -> None:
    item = exposure(grouped())
    assert tailscale.proxy_is_ready(item).state is State.PASSED
    found = named(item, [])
    assert found.state is State.PASSED
    assert found.evidence == "files.tail1.ts.net, 100.90.1.2"


def own(kind: str, ready: str, **spec: Any) -> dict[str, Any]:
    """A Connector or ProxyGroup, as the operator reports it."""
    reason = "Ready" if ready == "True" else "Creating"
    conditions = [{"type": f"{kind}Ready", "status": ready, "reason": f"{kind}{reason}", "observedGeneration": 1}]
    return {"kind": kind, "metadata": {"name": "home"}, "spec": spec, "status": {"conditions": conditions}}


def egress(condition: str, status: str = "True", **annotations: str) -> dict[str, Any]:
    asked = {"tailscale.com/tailnet-fqdn": "nas.tail1.ts.net"} | annotations
    obj = service("nas", annotations=asked, ready=None, type="ExternalName", externalName="ts-nas.tailscale.svc")
    obj["status"]["conditions"] = [{"type": condition, "status": status, "reason": "R"}]
    return obj


IN_GROUP = {"tailscale.com/proxy-group": "egress-proxies"}
BY_CLASS = service(annotations={}, type="LoadBalancer", loadBalancerClass="tailscale")
FORMS: dict[str, tuple[Any, str, str, bool]] = {
    "load balancer": (BY_CLASS, "svc", "postgresql-postgresql-cluster-rw-ext", True),
    "service of a group": (grouped(), "svc", "files", True),
    "service of a group, not yet": (grouped(configured="False"), "svc", "files", False),
    "ingress, several hosts": (ingress(hosts=["NAS", "other"]), "ingress", "NAS", True),
    "ingress, a wildcard rule": (ingress(rules=["*.home.example"], hostname=""), "ingress", "immich", False),
    "ingress, one of two rules": (ingress(rules=["*.home.example", "immich"]), "ingress", "immich", True),
    "ingress, TLS without rules": (
        ingress(hostname="", spec={"ingressClassName": "tailscale", "tls": [{"hosts": ["immich"]}]}), "ingress",
        "immich", False),
    "egress": (egress("TailscaleProxyReady"), "egress", "nas.tail1.ts.net", True),
    "egress, not yet": (egress("TailscaleProxyReady", "False"), "egress", "nas.tail1.ts.net", False),
    "egress of a group": (egress("TailscaleEgressSvcReady", **IN_GROUP), "egress", "nas.tail1.ts.net", True),
    "egress of a group, valid only": (egress("TailscaleEgressSvcValid", **IN_GROUP), "egress", "nas.tail1.ts.net",
        False),
    "connector": (own("Connector", "True", hostname="subnets"), "connector", "subnets", True),
    "connector, not yet": (own("Connector", "False"), "connector", "", False),
    "group": (own("ProxyGroup", "True", type="ingress"), "proxygroup", "", True),
    "group, not yet": (own("ProxyGroup", "False", type="egress"), "proxygroup", "", False),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_what_is_on_the_tailnet(form: str) -> None:
    obj, word, hostname, ready = FORMS[form]
    item = exposure(obj)
    assert (item.kind.word, item.hostname) == (word, hostname)
    found = tailscale.proxy_is_ready(item)
    assert found.ok is ready, found
    assert ready or (found.cause and obj["metadata"]["name"] in found.next_step)


def test_a_group_without_an_address_has_no_device() -> None:
    assert named(exposure(grouped(hostname="")), []).state is State.FAILED


def test_all_forms_are_found_where_the_operator_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    by_kind = {"services": [service(), egress("TailscaleProxyReady"), service("plain", annotations={})]}
    by_kind["ingresses.networking.k8s.io"] = [ingress()]
    own_kinds = {"connectors.tailscale.com": [own("Connector", "True")]}
    monkeypatch.setattr(cluster, "list_objects", lambda _, kind, *_where: by_kind[kind])
    monkeypatch.setattr(cluster, "list_if_known", lambda _, kind: own_kinds.get(kind, []))
    session: Any = None
    found = [item.subject for item in tailscale.exposures(session)]
    assert found == ["postgresql/postgresql-cluster-rw-ext", "postgresql/nas", "immich/web", "connector/home"]
    assert "connector/home" not in [item.subject for item in tailscale.exposures(session, "immich")]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"defaultBackend": {"service": {"name": "web"}}}, "/"),
        ({"rules": [{"http": {"paths": [{"path": "/api"}, {"path": "/web"}]}}]}, "/api"),
        ({"rules": [{"host": "immich"}]}, "/"),
    ],
)
def test_an_ingress_is_asked_for_what_it_serves(spec: Any, path: str) -> None:
    assert tailscale.first_page(exposure(ingress(spec=spec))).path == path


def test_exposures_are_looked_at_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, two of forty that are not ready would double the wait."""
    both = threading.Barrier(2, timeout=20)

    def look() -> Finding:
        both.wait()
        return passed("it is there", "")

    items = [exposure(service(name)) for name in ("a", "b")]
    monkeypatch.setattr(tailscale, "exposures", lambda *_: items)
    monkeypatch.setattr(tailscale, "operator_of", lambda _: SimpleNamespace(namespace="tailscale"))
    monkeypatch.setattr(cluster, "list_objects", lambda *_: [])
    monkeypatch.setattr(tailscale, "exposure_checks", lambda *_: [Check(name="it is there", look=look)])
    tables: list[Any] = []
    shown = lambda *words: tables.append(words)  # noqa: E731
    reporter = SimpleNamespace(table=shown, finding=lambda _: None, note=lambda _: None)
    session: Any = SimpleNamespace(reporter=reporter, runner=None, kubectl=None, target=SimpleNamespace(ephemeral=True))
    found = tailscale.verify_exposures(session)
    assert [finding.state for finding in found] == [State.PASSED] * 2
    assert [row[0] for row in tables[0][2]] == ["postgresql/a", "postgresql/b"]
