"""The checks of a public Ingress: right, wrong, late and missing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest

from runbooks.checks import cf_tunnel
from runbooks.checks.cf_tunnel import Public, is_routed, is_taken_up, public_answers
from runbooks.core.findings import State
from runbooks.tools import network
from tests.fixtures import ingress
from tests.local_server import Served, always, late, nobody, serving

DOMAIN = "0a1b2c3d-0000-4000-8000-000000000000.cfargotunnel.com"


def path(**changes: Any) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return {"path": "/hooks", "pathType": "Prefix", "backend": backend} | changes


def public(*paths: dict[str, Any], host: str = "a.example.org", address: str = DOMAIN, **more: Any) -> Public:
    rule = {"http": {"paths": list(paths or (path(),))}} | ({"host": host} if host else {})
    spec = {"rules": [rule]} | more
    return Public(obj=ingress("hooks", "shop", address=address, of_class="cloudflare-tunnel", **spec))


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}]
    return {"metadata": {"name": name}, "spec": {"clusterIP": "10.0.0.1", "ports": ports} | spec}


def test_one_address_for_each_host() -> None:
    found = public(path(), path(path="/other"))
    for host in ("b.example.org", "*.apps.example.com"):
        found.obj["spec"]["rules"].append({"host": host, "http": {"paths": [path(path="")]}})
    below = "https://homelab-ops-check.apps.example.com/"
    assert found.urls == ["https://a.example.org/hooks", "https://b.example.org/", below]


DELETED = ingress("hooks", "shop", address=DOMAIN, meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("item", "state", "evidence"),
    [
        (public(), State.PASSED, DOMAIN),
        (public(address=""), State.FAILED, "no address"),
        (public(address="web.tail1234.ts.net"), State.FAILED, "web.tail1234.ts.net"),
        (Public(obj=DELETED), State.FAILED, "terminating"),
    ],
)
def test_taken_up(item: Public, state: State, evidence: str) -> None:
    found = is_taken_up(item)
    assert found.state is state
    assert evidence in found.evidence
    assert state is State.PASSED or (found.cause and found.next_step)


NAMED = {"service": {"name": "web", "port": {"name": "http"}}}
UNROUTED: dict[str, tuple[Public, dict[str, Any], str]] = {
    "no host": (public(host=""), service(), "a rule without a host"),
    "no paths": (public(rules=[{"host": "a.example.org"}]), service(), "has no path"),
    "no rule": (public(rules=[]), service(), "it has no rule"),
    "exact": (public(path(pathType="Exact")), service(), "of path type Exact"),
    "no service": (public(), service("other"), "Service web, which does not exist"),
    "headless": (public(), service(clusterIP="None"), "headless"),
    "no port": (public(path(backend=NAMED)), service(ports=[{"name": "grpc"}]), "no such port"),
}


@pytest.mark.parametrize("name", UNROUTED)
def test_what_cannot_be_routed(name: str) -> None:
    item, backend, evidence = UNROUTED[name]
    found = is_routed(item, {backend["metadata"]["name"]: backend})
    assert found.state is State.FAILED
    assert evidence in found.evidence
    assert "TransformFailed" in found.cause


@pytest.mark.parametrize("backend", [path(), path(backend=NAMED), path(pathType="ImplementationSpecific")])
def test_what_can_be_routed(backend: dict[str, Any]) -> None:
    assert is_routed(public(backend), {"web": service()}).evidence == "a.example.org/hooks"


ANSWERED: dict[str, tuple[AbstractContextManager[Served], State, str, str]] = {
    "right": (serving(always(200, "ok")), State.PASSED, "status 200", ""),
    "the app refuses a plain GET": (serving(always(405)), State.PASSED, "status 405", ""),
    "the app knows no such hook": (serving(always(404, '{"code":404}')), State.PASSED, "status 404", ""),
    "no rule": (serving(always(404)), State.FAILED, "without a body", cf_tunnel.NO_RULE),
    "no connector": (serving(always(530, "error code: 1033")), State.FAILED, "530", cf_tunnel.TUNNEL_DOWN),
    "app down": (serving(always(502, "Bad gateway")), State.FAILED, "502", cf_tunnel.APP_DOWN),
    "late": (late(), State.FAILED, "timed out", "DNS record"),
    "nobody": (nobody(), State.FAILED, "refused", "DNS record"),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_public_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    server, state, evidence, cause = ANSWERED[name]
    with server as served:
        found = public_answers(served.url)
    assert found.state is state
    assert evidence in found.evidence
    assert cause in found.cause


def test_a_default_backend_alone_is_not_broken() -> None:
    item = public(rules=[], defaultBackend={"service": {"name": "web"}})
    found = is_routed(item, {"web": service()})
    assert found.state is State.NOT_TRIED and not found.deciding
    assert item.urls == []
