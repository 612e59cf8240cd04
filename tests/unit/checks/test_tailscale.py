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
from tests import fixtures
from tests.fixtures import device, exposed_service

FQDN, NAME = "postgresql.tail1234.ts.net", "immich.tail1234.ts.net"
DEVICE = Device(fqdn=FQDN, addresses=("100.64.0.7", "fd7a::7"))
UDP = {"port": 53, "protocol": "UDP"}
TAILNET_FQDN = "tailscale.com/tailnet-fqdn"


def ingress(
    hosts: tuple[str, ...] = ("immich",), rules: tuple[str, ...] = (), address: str = NAME, **more: Any
) -> dict[str, Any]:
    spec: dict[str, Any] = {"tls": [{"hosts": list(hosts)}], "rules": [{"host": host} for host in rules]}
    spec |= {} if rules else {"defaultBackend": {"service": {"name": "immich"}}}
    return fixtures.ingress("web", "immich", address=address, **spec | more)


def exposure(obj: Json) -> Exposure:
    return Exposure(obj=obj)


# Which objects are exposed


def test_the_services_and_ingresses_that_ask_to_be_exposed_and_no_others() -> None:
    services = [
        exposed_service("annotated"),
        exposed_service("plain", annotations={}),
        exposed_service("off", annotations={"tailscale.com/expose": "false"}),
        exposed_service("by-class", annotations={}, type="LoadBalancer", loadBalancerClass="tailscale"),
        exposed_service("other-class", annotations={}, type="LoadBalancer", loadBalancerClass="metallb"),
        exposed_service("taken-up", annotations={}, type="LoadBalancer"),
        exposed_service("not-taken-up", annotations={}, type="LoadBalancer", ready=None),
        exposed_service("egress", annotations={TAILNET_FQDN: "nas.ts.net"}, type="ExternalName", ready=None),
    ]
    exposed = [obj["metadata"]["name"] for obj in services if tailscale.is_exposed_service(obj)]
    assert exposed == ["annotated", "by-class", "taken-up"]
    assert tailscale.is_exposed_ingress(ingress())
    assert not tailscale.is_exposed_ingress(ingress(ingressClassName="cloudflare-tunnel"))


@pytest.mark.parametrize(
    ("obj", "hostname", "ports"),
    [
        (exposed_service(), "postgresql", (5432,)),
        (exposed_service("db", annotations={"tailscale.com/expose": "true"}), "postgresql-db", (5432,)),
        (exposed_service(ports=[UDP, {"port": 54, "protocol": "TCP"}]), "postgresql", (54,)),
        (exposed_service(ports=[UDP]), "postgresql", ()),
        (exposed_service(type="ExternalName", externalName="nas.lan", ports=[]), "postgresql", ()),
        (ingress(), "immich", (443,)),
        (ingress(("photos.tail1234.ts.net",)), "photos", (443,)),
        (ingress(()), "immich-web-ingress", (443,)),
    ],
)
def test_the_name_the_operator_would_give(obj: Json, hostname: str, ports: tuple[int, ...]) -> None:
    found = exposure(obj)
    assert (found.hostname, found.ports) == (hostname, ports)


def test_the_state_secret_is_found_by_labels() -> None:
    assert exposure(exposed_service()).selector == (
        "tailscale.com/managed=true,tailscale.com/parent-resource=postgresql-cluster-rw-ext,"
        "tailscale.com/parent-resource-ns=postgresql,tailscale.com/parent-resource-type=svc"
    )
    assert exposure(ingress()).selector.endswith("parent-resource-type=ingress")


# Each check


def on(judge: Callable[..., Finding], *words: Any, **ways: Any) -> Finding:
    """The judge on a network where everything works, but for these ways; an exception is raised."""
    works = {"tailscale_status": None, "resolve": ["100.64.0.7"], "connect": None, "fetch": None}
    with mock.patch.multiple(network, **{name: answering(answer) for name, answer in (works | ways).items()}):
        return judge(*words)


def answering(answer: Any) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def proxy(obj: Json) -> Finding:
    return tailscale.proxy_is_ready(exposure(obj))


def joined(obj: Json, *states: Json) -> Finding:
    """How the device of these state Secrets fits, among those of other objects."""
    item = exposure(obj)
    own = [one | {"metadata": one["metadata"] | {"labels": item.labels}} for one in states]
    return tailscale.device_has_name(replace(item, device=tailscale.device_of(item, [device("other."), *own])))


def nas(asked: str, named: str) -> Finding:
    """How a device of this name fits a Service that asks for another."""
    return joined(exposed_service(hostname=asked), device(f"{named}.tail1.ts.net."))


def peer(*, state: str = "Running", **facts: Any) -> Finding:
    known = {"HostName": "whatever", "DNSName": f"{FQDN}.", "Online": True} | facts
    status = {"BackendState": state, "Peer": {"key1": {"DNSName": "other.tail1234.ts.net."}, "key2": known}}
    return on(tailscale.device_is_peer, DEVICE, None, tailscale_status=status)


def resolves(answer: Any) -> Finding:
    return on(tailscale.name_resolves, FQDN, DEVICE, resolve=answer)


def connects(answer: Any) -> Finding:
    return on(tailscale.port_connects, FQDN, (5432,), connect=answer)


def answers(reply: Any, page: Page = Page(path="/")) -> Finding:  # noqa: B008 - frozen
    reply = Answer(status=reply, body="<title>Immich</title>") if isinstance(reply, int) else reply
    return on(tailscale.http_answers, NAME, page, fetch=reply)


PASSED, FAILED, NOT_TRIED = State.PASSED, State.FAILED, State.NOT_TRIED
VERDICTS: dict[str, tuple[Callable[[], Finding], State, str, str]] = {
    # the proxy
    "condition true": (lambda: proxy(exposed_service()), PASSED, "TailscaleProxyReady=True", ""),
    "no condition yet": (lambda: proxy(exposed_service(ready=None)), FAILED, "no condition", tailscale.NO_PROXY),
    "invalid": (lambda: proxy(exposed_service(ready=("False", "ProxyInvalid"))), FAILED, "ProxyInvalid", ""),
    "waits for its login": (lambda: proxy(exposed_service(ready=("False", "waiting for proxy pod to finish auth"))),
        FAILED, "finish auth", tailscale.NOT_JOINED),
    "headless": (lambda: proxy(exposed_service(clusterIP="None")), FAILED, "headless", "routable"),
    "being deleted": (lambda: proxy(fixtures.ingress("web", "x", address=NAME, meta={"deletionTimestamp": "now"})),
        FAILED, "terminating", "finalizer"),
    "ingress with an address": (lambda: proxy(ingress()), PASSED, NAME, ""),
    "ingress without": (lambda: proxy(ingress(address="")), FAILED, "no hostname", tailscale.NO_CONTROLLER),
    "ingress whose rules are ignored": (lambda: proxy(ingress(rules=("immich.example.org",), address="")), FAILED,
        "immich.example.org", "404"),
    "rules in another case": (lambda: proxy(ingress(("Immich",), ("immich",))), PASSED, "", ""),
    # the device
    "asked for in capitals": (lambda: nas("NAS", "nas"), PASSED, "", ""),
    "named in capitals": (lambda: nas("nas", "NAS"), PASSED, "", ""),
    "in capitals and renamed": (lambda: nas("NAS", "nas-1"), FAILED, "nas-1", "holds the name"),
    "another name": (lambda: nas("nas", "nas-old"), FAILED, "not nas", "tailscale.com/hostname"),
    "no state secret": (lambda: joined(exposed_service()), FAILED, "no state Secret", "proxy Pod"),
    "not joined yet": (lambda: joined(exposed_service(), device("")), FAILED, "no device_fqdn", tailscale.NOT_JOINED),
    "one replica joined": (lambda: joined(exposed_service(), device(""), device()), PASSED, FQDN, ""),
    "addresses without sense": (lambda: joined(exposed_service(), device(addresses="{oops")), PASSED, FQDN, ""),
    # the peer
    "peer": (lambda: peer(), PASSED, "online", ""),
    "peer offline": (lambda: peer(Online=False), PASSED, "not online", ""),
    "peer expired": (lambda: peer(Expired=True), FAILED, "expired", "key"),
    "no such peer": (lambda: peer(DNSName="else.tail1234.ts.net.", HostName="postgresql"), FAILED,
        "not among its 2 peers", tailscale.NO_GRANT),
    "stopped": (lambda: peer(state="Stopped"), FAILED, "tailscale is Stopped", "not connected"),
    "no tailscale here": (lambda: on(tailscale.device_is_peer, DEVICE, None), NOT_TRIED, "no `tailscale`", ""),
    # the name
    "resolves": (lambda: resolves(["100.64.0.7"]), PASSED, "100.64.0.7", ""),
    "does not resolve": (lambda: resolves(socket.gaierror(-2, "Name not known")), FAILED, "Name not known",
        tailscale.NO_RESOLUTION),
    "resolves elsewhere": (lambda: resolves(["10.0.0.66"]), FAILED, "10.0.0.66; the device is 100.64.0.7",
        "another machine"),
    "addresses unknown": (lambda: on(tailscale.name_resolves, FQDN, Device(fqdn=FQDN)), PASSED, "100.64.0.7", ""),
    # the port
    "connects": (lambda: connects(None), PASSED, f"{FQDN}:5432", ""),
    "DNS only": (lambda: connects(TimeoutError("timed out")), FAILED, "timed out", tailscale.NO_GRANT),
    "refused": (lambda: connects(ConnectionRefusedError("refused")), FAILED, "refused", "endpoints"),
    "no TCP port": (lambda: on(tailscale.port_connects, FQDN, ()), NOT_TRIED, "no TCP port", ""),
    # HTTP
    "answers": (lambda: answers(200, Page(path="/", marker="Immich")), PASSED, "status 200", ""),
    "wrong body": (lambda: answers(200, Page(path="/", marker="n8n")), FAILED, "without 'n8n'", "another app"),
    "redirect": (lambda: answers(302), PASSED, "status 302", ""),
    "404": (lambda: answers(404), FAILED, "status 404", "backend Service"),
    "502": (lambda: answers(502), FAILED, "status 502", "behind it"),
    "TCP only": (lambda: answers(ConnectionResetError("reset")), FAILED, "reset", "HTTPS certificates"),
    "a login is wanted": (lambda: answers(401), PASSED, "status 401", ""),
    "a login is wanted for a page that needs none": (lambda: answers(401, Page(path="/ping", marker="pong")), FAILED,
        "/ping: status 401", "error"),
}  # fmt: skip


@pytest.mark.parametrize("name", VERDICTS)
def test_each_check(name: str) -> None:
    look, state, evidence, cause = VERDICTS[name]
    found = look()
    assert found.state is state, found
    assert evidence in found.evidence
    assert cause in found.cause
    assert state is not FAILED or (found.cause and found.next_step)
    assert found.deciding is (state is not NOT_TRIED)


# Forms of an exposure


def own(kind: str, ready: str, **spec: Any) -> dict[str, Any]:
    """A Connector or ProxyGroup, as the operator reports it."""
    reason = "Ready" if ready == "True" else "Creating"
    conditions = [{"type": f"{kind}Ready", "status": ready, "reason": f"{kind}{reason}", "observedGeneration": 1}]
    return {"kind": kind, "metadata": {"name": "home"}, "spec": spec, "status": {"conditions": conditions}}


def grouped(configured: str = "True", hostname: str = "files.tail1.ts.net") -> dict[str, Any]:
    """A Service on an ingress ProxyGroup."""
    asked = {"tailscale.com/proxy-group": "ingress-proxies", "tailscale.com/hostname": "files"}
    obj = exposed_service("files", annotations=asked, type="LoadBalancer", loadBalancerClass="tailscale")
    obj["status"]["conditions"] = [{"type": "TailscaleIngressSvcConfigured", "status": configured, "reason": "R"}]
    obj["status"]["loadBalancer"] = {"ingress": [{"hostname": hostname, "ip": "100.90.1.2"}]} if hostname else {}
    return obj


def egress(condition: str, status: str = "True", **annotations: str) -> dict[str, Any]:
    asked = {TAILNET_FQDN: "nas.tail1.ts.net"} | annotations
    obj = exposed_service("nas", annotations=asked, type="ExternalName", externalName="ts-nas.tailscale.svc")
    obj["status"]["conditions"] = [{"type": condition, "status": status, "reason": "R"}]
    return obj


def refused_by_group() -> dict[str, Any]:
    """A Service that the operator does not even begin with; an egress group is no place for it."""
    obj = grouped(hostname="")
    valid = {"type": "TailscaleIngressSvcValid", "status": "False", "reason": "Invalid", "message": "of type egress"}
    obj["status"]["conditions"] = [valid]
    return obj


IN_GROUP = {"tailscale.com/proxy-group": "egress-proxies"}
BY_CLASS = exposed_service(annotations={}, type="LoadBalancer", loadBalancerClass="tailscale")
FORMS: dict[str, tuple[Any, str, str, bool]] = {
    "load balancer": (BY_CLASS, "svc", "postgresql-postgresql-cluster-rw-ext", True),
    "service of a group": (grouped(), "svc", "files", True),
    "service of a group, not yet": (grouped(configured="False"), "svc", "files", False),
    "service that its group refuses": (refused_by_group(), "svc", "files", False),
    "ingress, several hosts": (ingress(("NAS", "other")), "ingress", "NAS", True),
    "ingress, a wildcard rule": (ingress(rules=("*.home.example",), address=""), "ingress", "immich", False),
    "ingress, one of two rules": (ingress(rules=("*.home.example", "immich")), "ingress", "immich", True),
    "ingress, TLS without rules": (ingress(address="", defaultBackend=None), "ingress", "immich", False),
    "egress": (egress("TailscaleProxyReady"), "egress", "nas.tail1.ts.net", True),
    "egress, not yet": (egress("TailscaleProxyReady", "False"), "egress", "nas.tail1.ts.net", False),
    "egress of a group": (egress("TailscaleEgressSvcReady", **IN_GROUP), "egress", "nas.tail1.ts.net", True),
    "egress of a group, valid": (egress("TailscaleEgressSvcValid", **IN_GROUP), "egress", "nas.tail1.ts.net", False),
    "connector": (own("Connector", "True", hostname="subnets"), "connector", "subnets", True),
    "connector, not yet": (own("Connector", "False"), "connector", "", False),
    "group": (own("ProxyGroup", "True", type="ingress"), "proxygroup", "", True),
    "group, not yet": (own("ProxyGroup", "False", type="egress"), "proxygroup", "", False),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_what_is_on_the_tailnet(form: str) -> None:
    obj, word, hostname, ready = FORMS[form]
    item = exposure(obj)
    assert (item.kind.word, item.hostname) == (word, hostname)
    found = tailscale.proxy_is_ready(item)
    assert found.ok is ready, found
    assert ready or (found.cause and obj["metadata"]["name"] in found.next_step)


@pytest.mark.parametrize(
    ("obj", "seen"),
    [
        (refused_by_group(), ["TailscaleIngressSvcValid=False", "of type egress"]),
        (grouped("False"), ["Configured=False"]),
    ],
)
def test_a_group_that_does_not_serve_is_named_with_what_the_operator_reports(
    obj: dict[str, Any], seen: list[str]
) -> None:
    found = tailscale.proxy_is_ready(exposure(obj))
    assert all(words in found.evidence for words in seen), found
    assert "ingress-proxies" in found.cause
    assert "Pod" not in found.cause


def test_what_a_proxy_group_serves_is_known_by_its_status_alone() -> None:
    assert joined(grouped()).evidence == "files.tail1.ts.net, 100.90.1.2"
    assert joined(grouped(hostname="")).state is State.FAILED
    web = ingress()
    assert tailscale.device_of(exposure(web), []) is None
    web["metadata"]["annotations"] = {"tailscale.com/proxy-group": "ha"}
    found = tailscale.device_of(exposure(web), [])
    assert found is not None and found.label == "immich"


def test_all_forms_are_found_where_the_operator_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    by_kind = {
        "services": [exposed_service(), egress("TailscaleProxyReady"), exposed_service("plain", annotations={})],
        "ingresses.networking.k8s.io": [ingress()],
    }
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
    assert tailscale.first_page(exposure(fixtures.ingress("web", "immich", address=NAME, **spec))).path == path


def test_what_was_just_exposed_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy asks for its certificate while the first client waits for an answer."""
    monkeypatch.setattr(tailscale, "exporter_of", lambda *_: None)
    session: Any = SimpleNamespace(target=SimpleNamespace(ephemeral=False))
    waits = {check.name: check.patience for check in tailscale.exposure_checks(session, exposure(ingress()))}
    assert waits.keys() >= {tailscale.PROXY_IS_READY, tailscale.HTTP_ANSWERS} and min(waits.values()) > 1


def test_exposures_are_looked_at_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, two of forty that are not ready would double the wait."""
    both = threading.Barrier(2, timeout=20)

    def look() -> Finding:
        both.wait()
        return passed("it is there", "")

    items = [exposure(exposed_service(name)) for name in ("a", "b")]
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
