"""Does the Cloudflare tunnel work, and does everything that asks to be on the internet answer there?

`verify` looks at the controller and its connectors, then `verify_public` at each public Ingress. An Ingress gets the
tunnel's address also when none of its rules could be routed, so the address proves nothing alone. Facts from
STRRL/cloudflare-tunnel-ingress-controller (pkg/controller/transform.go) and cloudflared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from runbooks.checks import cluster, inside
from runbooks.checks.inside import CONNECTED, Get, Inside, simulated
from runbooks.core.findings import Check, Finding, failed, not_tried, passed
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import network
from runbooks.tools.kubectl import Json, KubectlFailed, dig, metadata, text_at

CONTROLLER = "cloudflare-tunnel-ingress-controller"
CONNECTORS = "controlled-cloudflared-connector"
LOGIN_SECRET = "cloudflare-api"  # noqa: S105 - the name of the Secret
LOGIN_KEYS = ("api-token", "cloudflare-account-id", "cloudflare-tunnel-name")
METRICS_PORT = 44483
READY_PATH = "/ready"
"""cloudflared's health path: status 200 with `readyConnections`, or 503 while it has no connection."""
INGRESS_CLASS = "cloudflare-tunnel"
INGRESS_CONTROLLER = "strrl.dev/cloudflare-tunnel-ingress-controller"
TUNNEL_DOMAIN = ".cfargotunnel.com"
ANY_LABEL = "homelab-ops-check"
PATH_TYPES = ("Prefix", "ImplementationSpecific")
CATCH_ALL = 404
"""What cloudflared answers, with an empty body, for a host or path that it has no rule for."""

LOGIN_THERE = "the controller has its login at Cloudflare"
CONTROLLER_READY = "the tunnel's controller is available"
CLASS_IS_SERVED = "the ingress class `cloudflare-tunnel` belongs to the controller"
CONNECTORS_READY = "the connectors are available"
PUBLIC_KNOWN = "Ingresses on the internet can be listed"
TAKEN_UP = "the tunnel's controller took it up"
ROUTED = "its rules are ones that the tunnel can route"
PUBLIC_ANSWERS = "its public address answers"
NEEDS_INTERNET = frozenset({PUBLIC_ANSWERS})
"""The checks that need Cloudflare's edge."""
NO_INTERNET = "the lab is not on the internet"

CANNOT_LOGIN = (
    "the controller cannot log in to Cloudflare: check api_token (Zone Read, DNS Edit, Cloudflare Tunnel Edit) and "
    "account_id; it reads them at its start only"
)
NOT_CONNECTED = "the connectors reach no edge of Cloudflare: the tunnel was deleted there, or port 7844 is closed"
NO_CONTROLLER = "Ingress not reachable: check that ingressClassName is `cloudflare-tunnel` and the controller's health"
NO_ROUTE = "the controller reports it as an event TransformFailed, and routes none of this Ingress's rules"
NO_RULE = "the tunnel has no rule for it: look at the controller's events on the Ingress"
TUNNEL_DOWN = "Cloudflare's edge has no connector to pass it on to: check the connectors and their token"
APP_DOWN = "the connector does not reach the Service, or the app behind it answers with an error"
COLUMNS = {"taken up": TAKEN_UP, "routed": ROUTED, "answers": PUBLIC_ANSWERS}


@dataclass(frozen=True, kw_only=True)
class Public:
    """One Ingress that asks to be on the internet."""

    obj: Json

    @property
    def subject(self) -> str:
        return "/".join(metadata(self.obj))

    @property
    def show(self) -> str:
        namespace, name = metadata(self.obj)
        return f"kubectl -n {namespace} describe ingress {name}"

    @property
    def urls(self) -> list[str]:
        """The URL of the first path of every host. In a wildcard host, a label of ours replaces the `*`."""
        found: dict[str, str] = {}
        for host, path in rules_of(self.obj):
            found.setdefault(host, text_at(path, "path") or "/")
        return [f"https://{host.replace('*', ANY_LABEL, 1)}{path}" for host, path in found.items() if host]


def verify(session: Session, service: Service) -> list[Finding]:
    """Check login, controller, class, connectors and connections, then each public Ingress of the cluster."""
    login = "the stack did not create the Secret, or its config was empty"
    checks = [
        cluster.stack_is_deployed(session, service),
        cluster.secret_check(session, LOGIN_THERE, service, LOGIN_SECRET, LOGIN_KEYS, cause=login),
        cluster.deployment_check(session, CONTROLLER_READY, service, name=CONTROLLER, cause=CANNOT_LOGIN),
        cluster.class_check(session, CLASS_IS_SERVED, INGRESS_CLASS, INGRESS_CONTROLLER, cause=NO_CONTROLLER),
        cluster.deployment_check(session, CONNECTORS_READY, service, name=CONNECTORS, cause=NOT_CONNECTED),
        connections(session, service),
        cluster.workloads_check(session, service),
    ]
    findings = cluster.run_and_report(session, checks)
    if not findings[0].ok:
        return findings  # without the tunnel no Ingress is served, so none is waited for
    return findings + verify_public(session)


def connections(session: Session, service: Service) -> Check:
    """Check the connections: a running Pod proves nothing, as a connector without its tunnel retries for ever."""
    where = Inside(namespace=service.namespace, service=f"{CONNECTORS}-headless", port=METRICS_PORT)
    if session.target.ephemeral:
        return simulated(CONNECTED, where)
    get = inside.get_inside(session.runner, session.kubectl, where)
    return cluster.make_check(session, CONNECTED, lambda: holds_connections(where, get), wait=cluster.CONTROLLER_TAKES)


def holds_connections(where: Inside, get: Get) -> Finding:
    """cloudflared reports how many connections to the edge it holds; usually four."""
    step = f"kubectl -n {where.namespace} logs deploy/{CONNECTORS} --tail=20"
    answer = inside.fetch(CONNECTED, where, READY_PATH, get, next_step=step)
    if isinstance(answer, Finding):
        return answer
    try:
        count = json.loads(answer.body)["readyConnections"]
    except (ValueError, TypeError, KeyError):
        count = None
    if not isinstance(count, int):
        evidence = f"{where}: status {answer.status}, without readyConnections"
        return failed(CONNECTED, evidence, cause=inside.OTHER, next_step=step)
    if answer.status != 200 or count < 1:
        return failed(CONNECTED, f"{count} connections", cause=NOT_CONNECTED, next_step=step)
    return passed(CONNECTED, f"{count} connections")


# --- each public Ingress -----------------------------------------------------------------------------------------


def verify_public(session: Session, namespace: str = "") -> list[Finding]:
    """Check every public Ingress of a namespace, or of the cluster. Print one table, and each failed check in full."""
    try:
        found = public_ingresses(session, namespace)
    except KubectlFailed as error:
        return cluster.report(session, [failed(PUBLIC_KNOWN, error.summary, next_step="kubectl get ingress -A")])
    if not found:
        return []
    return cluster.verify_objects(
        session,
        "On the internet",
        ("object", "address"),
        COLUMNS,
        found,
        shown=lambda item: ", ".join(item.urls),
        checks=lambda item: public_checks(session, item),
        untried_in_lab=NEEDS_INTERNET,
    )


def public_ingresses(session: Session, namespace: str = "") -> list[Public]:
    """The Ingresses of the tunnel's class. Raises `KubectlFailed`."""
    found = cluster.list_objects(session, cluster.INGRESSES, namespace)
    return [Public(obj=obj) for obj in found if text_at(obj, "spec", "ingressClassName") == INGRESS_CLASS]


def public_checks(session: Session, item: Public) -> list[Check]:
    """The checks of an Ingress: the controller accepted it, routes it, and a client on the internet gets an answer."""
    subject = metadata(item.obj)

    def of_newest(check: str, judge: Callable[[Public], Finding], wait: float = 0.0) -> Check:
        return cluster.object_check(
            session, check, (cluster.INGRESSES, *subject), lambda obj: judge(Public(obj=obj)), wait=wait
        )

    def routed(public: Public) -> Finding:
        services = cluster.list_objects(session, "services", subject[0])
        return is_routed(public, {metadata(obj)[1]: obj for obj in services})

    checks = [of_newest(TAKEN_UP, is_taken_up, cluster.CONTROLLER_TAKES), of_newest(ROUTED, routed)]
    if session.target.ephemeral:
        return [*checks, cluster.untried(PUBLIC_ANSWERS, NO_INTERNET)]

    def answers() -> Finding:
        if not item.urls:
            return not_tried(PUBLIC_ANSWERS, "it has no host", deciding=False)
        found = [public_answers(url) for url in item.urls]
        return next((one for one in found if not one.ok), found[0])

    return [*checks, cluster.make_check(session, PUBLIC_ANSWERS, answers, wait=cluster.CONTROLLER_TAKES)]


def rules_of(ingress: Json) -> Iterator[tuple[str, Json]]:
    """Each path of each rule, with the rule's host."""
    for rule in dig(ingress, "spec", "rules") or []:
        for path in dig(rule, "http", "paths") or [{}]:
            yield text_at(rule, "host"), path


def is_taken_up(public: Public) -> Finding:
    """Its status has the tunnel's domain."""
    if dig(public.obj, "metadata", "deletionTimestamp"):
        cause = "it is being deleted and waits until the controller removes its finalizer"
        return failed(TAKEN_UP, f"{public.subject} is terminating", cause=cause, next_step=public.show)
    address = text_at(public.obj, "status", "loadBalancer", "ingress", 0, "hostname")
    if not address.endswith(TUNNEL_DOMAIN):
        evidence = f"its address is {address}" if address else "no address in status.loadBalancer.ingress"
        return failed(TAKEN_UP, evidence, cause=NO_CONTROLLER, next_step=public.show)
    return passed(TAKEN_UP, address)


def is_routed(public: Public, services: Mapping[str, Json]) -> Finding:
    """Each rule has a host, a path type the controller takes, and a Service with a cluster IP and the named port.

    `services` are the Services of its namespace, by name.
    """
    rules = list(rules_of(public.obj))
    if not rules and dig(public.obj, "spec", "defaultBackend"):
        why = "it has a default backend alone, and the controller routes only rules with a host"
        return not_tried(ROUTED, why, deciding=False, next_step=public.show)
    wrong = [problem for host, path in rules if (problem := _route_problem(host, path, services))]
    if wrong or not rules:
        return failed(ROUTED, "; ".join(wrong) or "it has no rule", cause=NO_ROUTE, next_step=public.show)
    return passed(ROUTED, ", ".join(f"{host}{text_at(path, 'path')}" for host, path in rules))


def _route_problem(host: str, path: Json, services: Mapping[str, Json]) -> str:
    name = text_at(path, "backend", "service", "name")
    service, port = services.get(name), text_at(path, "backend", "service", "port", "name")
    if not host:
        return "a rule without a host"
    if not path:
        return f"the rule of {host} has no path"
    if text_at(path, "pathType") not in PATH_TYPES:
        return f"{host}{text_at(path, 'path')} is of path type {text_at(path, 'pathType') or 'none'}"
    if service is None:
        return f"{host} leads to Service {name or '?'}, which does not exist"
    if text_at(service, "spec", "clusterIP") == "None":
        return f"{host} leads to Service {name}, which is headless"
    if port and port not in [text_at(entry, "name") for entry in dig(service, "spec", "ports") or []]:
        return f"{host} leads to port {port} of Service {name}, which has no such port"
    return ""


def public_answers(url: str) -> Finding:
    """The app's own answer comes back, whatever it is: a webhook may well refuse a plain GET."""
    step = f"curl -v {url}"
    try:
        answer = network.fetch(url)
    except OSError as error:
        cause = "the name does not resolve or does not connect: look for its DNS record at Cloudflare"
        return failed(PUBLIC_ANSWERS, f"{url}: {error}", cause=cause, next_step=step)
    evidence = f"{url}: status {answer.status}"
    if answer.status == CATCH_ALL and not answer.body.strip():
        return failed(PUBLIC_ANSWERS, f"{evidence} without a body", cause=NO_RULE, next_step=step)
    if answer.status >= 500:
        # 520 and above are the edge's own: 530 is a tunnel without a connector.
        cause = TUNNEL_DOWN if answer.status >= 520 else APP_DOWN
        return failed(PUBLIC_ANSWERS, evidence, cause=cause, next_step=step)
    return passed(PUBLIC_ANSWERS, evidence)
