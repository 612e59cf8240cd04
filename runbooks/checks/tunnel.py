"""Proof that something is reachable from the internet through the Cloudflare tunnel, check by check.

An Ingress gets the tunnel's address also when none of its rules could be routed, so the address proves nothing alone.
Facts from STRRL/cloudflare-tunnel-ingress-controller (pkg/controller/transform.go) and cloudflared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from runbooks.core.findings import Finding, failed, passed
from runbooks.tools.kubectl import Json, dig, items, metadata, text_at
from runbooks.tools.network import Answer

INGRESS_CLASS = "cloudflare-tunnel"
INGRESS_CONTROLLER = "strrl.dev/cloudflare-tunnel-ingress-controller"
TUNNEL_DOMAIN = ".cfargotunnel.com"
PATH_TYPES = ("Prefix", "ImplementationSpecific")
CATCH_ALL = 404
"""What cloudflared answers, with an empty body, for a host or path that it has no rule for."""

TAKEN_UP = "the tunnel's controller took it up"
ROUTED = "its rules are ones that the tunnel can route"
PUBLIC_ANSWERS = "its public address answers"
RUNGS = (TAKEN_UP, ROUTED, PUBLIC_ANSWERS)
NEEDS_INTERNET = frozenset({PUBLIC_ANSWERS})
"""The checks that need Cloudflare's edge."""

NO_CONTROLLER = "Ingress not reachable: check that ingressClassName is `cloudflare-tunnel` and the controller's health"
NO_ROUTE = "the controller tells it as an event TransformFailed, and routes none of this Ingress's rules"
NO_RULE = "the tunnel has no rule for it: look at the controller's events on the Ingress"
TUNNEL_DOWN = "Cloudflare's edge has no connector to pass it on to: check the connectors and their token"
APP_DOWN = "the connector does not reach the Service, or the app behind it answers with an error"


@dataclass(frozen=True, kw_only=True)
class Public:
    """One Ingress that asks to be on the internet."""

    namespace: str
    name: str
    obj: Json

    @property
    def subject(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def show(self) -> str:
        return f"kubectl -n {self.namespace} describe ingress {self.name}"

    @property
    def urls(self) -> list[str]:
        """The first path of every host."""
        found: dict[str, str] = {}
        for host, path in rules_of(self.obj):
            found.setdefault(host, text_at(path, "path") or "/")
        return [f"https://{host}{path}" for host, path in found.items() if host]


def rules_of(ingress: Json) -> Iterator[tuple[str, Json]]:
    """Each path of each rule, with the rule's host."""
    for rule in dig(ingress, "spec", "rules") or []:
        for path in dig(rule, "http", "paths") or [{}]:
            yield text_at(rule, "host"), path


def public_ingresses(answer: Json) -> list[Public]:
    return [
        Public(namespace=metadata(obj)[0], name=metadata(obj)[1], obj=obj)
        for obj in items(answer)
        if text_at(obj, "spec", "ingressClassName") == INGRESS_CLASS
    ]


def is_taken_up(public: Public) -> Finding:
    """Its status has the tunnel's domain."""
    if dig(public.obj, "metadata", "deletionTimestamp"):
        cause = "it is being deleted, and waits for the controller to take its finalizer away"
        return failed(TAKEN_UP, f"{public.subject} is terminating", cause=cause, next_step=public.show)
    address = text_at(public.obj, "status", "loadBalancer", "ingress", 0, "hostname")
    if not address.endswith(TUNNEL_DOMAIN):
        told = f"its address is {address}" if address else "no address in status.loadBalancer.ingress"
        return failed(TAKEN_UP, told, cause=NO_CONTROLLER, next_step=public.show)
    return passed(TAKEN_UP, address)


def is_routed(public: Public, services: Mapping[str, Json]) -> Finding:
    """Each rule has a host, a path type the controller takes, and a Service with a cluster IP and the named port.

    `services` are those of its namespace, by name.
    """
    rules = list(rules_of(public.obj))
    wrong = [told for host, path in rules if (told := _problem(host, path, services))]
    if not rules:
        wrong = ["it has no rule"]
    if wrong:
        return failed(ROUTED, "; ".join(wrong), cause=NO_ROUTE, next_step=public.show)
    return passed(ROUTED, ", ".join(f"{host}{text_at(path, 'path')}" for host, path in rules))


def _problem(host: str, path: Json, services: Mapping[str, Json]) -> str:
    name = text_at(path, "backend", "service", "name")
    service, port = services.get(name), text_at(path, "backend", "service", "port", "name")
    if not host:
        return "a rule without a host"
    if not path:
        return f"the rule of {host} has no path"
    if text_at(path, "pathType") not in PATH_TYPES:
        return f"{host}{text_at(path, 'path')} is of path type {text_at(path, 'pathType') or 'none'}"
    if service is None:
        return f"{host} leads to Service {name or '?'}, which is not there"
    if text_at(service, "spec", "clusterIP") == "None":
        return f"{host} leads to Service {name}, which is headless"
    named = [text_at(entry, "name") for entry in dig(service, "spec", "ports") or []]
    return (
        f"{host} leads to port {port} of Service {name}, which has no such port" if port and port not in named else ""
    )


def public_answers(url: str, fetch: Callable[[str], Answer]) -> Finding:
    """The app's own answer comes back, whatever it is: a webhook may well refuse a plain GET."""
    next_step = f"curl -v {url}"
    try:
        answer = fetch(url)
    except OSError as error:
        cause = "the name does not resolve or does not connect: look for its DNS record at Cloudflare"
        return failed(PUBLIC_ANSWERS, f"{url}: {error}", cause=cause, next_step=next_step)
    told = f"{url}: status {answer.status}"
    if answer.status == CATCH_ALL and not answer.body.strip():
        return failed(PUBLIC_ANSWERS, f"{told} without a body", cause=NO_RULE, next_step=next_step)
    if answer.status >= 500:
        cause = TUNNEL_DOWN if answer.status >= 520 else APP_DOWN
        return failed(PUBLIC_ANSWERS, told, cause=cause, next_step=next_step)
    return passed(PUBLIC_ANSWERS, told)
