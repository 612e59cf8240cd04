"""Which controllers look at a changed object. A watched kind is one entry in `ROUTES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.operators import objects
from lab.operators.api import Api
from lab.operators.clickhouse import OF as OF_CLICKHOUSE
from lab.operators.objects import Kind
from lab.operators.prometheus import MANAGED as OF_PROMETHEUS
from lab.operators.tailscale import MANAGED, NAMESPACE, PARENT
from lab.operators.work import Work

Labels = Mapping[str, str]
Route = Callable[[Work, str, str, Labels], None]
"""Adds keys to the queue for a changed object; the arguments are the queue, namespace, name and labels."""

PROGRAMS = {
    "cloudnative-pg": "clusters",
    "cloudflare-tunnel-ingress-controller": "tunnels",
    "cert-manager": "issuers",
    "webhook": "issuers",
    "cainjector": "issuers",
    "altinity-clickhouse-operator": "installations",
}
"""Label of an operator's Deployment → the controller that looks at everything again when it starts or stops."""


def to(*names: str) -> Route:
    """A route of the object itself to these controllers."""

    def route(work: Work, namespace: str, name: str, _labels: Labels) -> None:
        for controller in names:
            work.add(controller, namespace, name)

    return route


def to_all(name: str) -> Route:
    """A route to a controller that looks at all of its objects."""
    return lambda work, _namespace, _name, _labels: work.add(name)


def _deployment(work: Work, namespace: str, _name: str, labels: Labels) -> None:
    program = PROGRAMS.get(labels.get("app.kubernetes.io/name", ""))
    if program:
        work.add(program)
    if namespace == NAMESPACE:
        work.add("exposures")


def _secret(work: Work, namespace: str, name: str, _labels: Labels) -> None:
    if (namespace, name) == (NAMESPACE, "operator-oauth"):
        work.add("exposures")
        return
    for controller in ("secret", "tunnel-secret", "certificate-secret"):
        work.add(controller, namespace, name)


def _pod(work: Work, namespace: str, _name: str, labels: Labels) -> None:
    if "cnpg.io/cluster" in labels:
        work.add("cluster", namespace, labels["cnpg.io/cluster"])
    if labels.get(MANAGED) == "true":
        controller = "ingress" if labels.get(f"{PARENT}-type") == "ingress" else "service"
        work.add(controller, labels[f"{PARENT}-ns"], labels[PARENT])


def _stateful_set(work: Work, namespace: str, name: str, labels: Labels) -> None:
    if OF_PROMETHEUS.items() <= labels.items():
        program, _, of = name.partition("-")
        work.add(program, namespace, of)
    if OF_CLICKHOUSE in labels:
        work.add("clickhouse", namespace, labels[OF_CLICKHOUSE])


ROUTES: tuple[tuple[Kind, Route], ...] = (
    (objects.CLUSTER, to("cluster")),
    (objects.DATABASE, to("database")),
    (objects.DATABASE_ROLE, to("role")),
    (objects.SERVICE, to("service", "loadbalancer", "backend")),
    (objects.INGRESS, to("ingress", "tunnel")),
    (objects.INGRESS_CLASS, to_all("tunnels")),
    (objects.CLAIM, to("claim")),
    (objects.VOLUME, to("volume")),
    (objects.DEPLOYMENT, _deployment),
    (objects.SECRET, _secret),
    (objects.POD, _pod),
    (objects.PROMETHEUS, to("prometheus")),
    (objects.ALERTMANAGER, to("alertmanager")),
    (objects.STATEFUL_SET, _stateful_set),
    (objects.CERTIFICATE, to("certificate")),
    (objects.ISSUER, to_all("issuers")),
    (objects.CLUSTER_ISSUER, to_all("issuers")),
    (objects.VALIDATING_WEBHOOKS, to_all("webhooks")),
    (objects.MUTATING_WEBHOOKS, to_all("webhooks")),
    (objects.CLICKHOUSE, to("clickhouse")),
)


def look_again(api: Api, work: Work) -> None:
    """Ask for a look at every object of a kind that a definition brings.

    kopf learns of such a kind from the event of its definition and asks the server's discovery only then. When
    discovery lags behind that event, kopf never watches the kind, and no other event comes for its objects.
    """
    for kind, route in ROUTES:
        for found in api.list(kind) if kind.is_defined else ():
            route(work, *objects.key_of(found), found["metadata"].get("labels") or {})
