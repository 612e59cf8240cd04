"""Which controllers a changed object concerns. A watched kind is one entry in `ROUTES`."""

from __future__ import annotations

from collections.abc import Callable

from lab.operators.api import (
    ALERTMANAGER,
    CERTIFICATE,
    CLAIM,
    CLICKHOUSE,
    CLUSTER,
    CLUSTER_ISSUER,
    DATABASE,
    DATABASE_ROLE,
    DEPLOYMENT,
    INGRESS,
    INGRESS_CLASS,
    ISSUER,
    MUTATING_WEBHOOKS,
    POD,
    PROMETHEUS,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    VALIDATING_WEBHOOKS,
    VOLUME,
    Api,
    Kind,
    Object,
)
from lab.operators.clickhouse import OF as OF_CLICKHOUSE
from lab.operators.prometheus import MANAGED as OF_PROMETHEUS
from lab.operators.tailscale import MANAGED, NAMESPACE, PARENT
from lab.operators.work import Work

Route = Callable[[Work, str, str, Object], None]
"""Says which keys a changed object concerns: the queue, its namespace and name, the object's metadata."""

NAME = "app.kubernetes.io/name"
PROGRAMS = {
    "cloudnative-pg": "clusters",
    "cloudflare-tunnel-ingress-controller": "tunnels",
    "cert-manager": "issuers",
    "webhook": "issuers",
    "cainjector": "issuers",
    "altinity-clickhouse-operator": "installations",
}
"""By the label of an operator's Deployment: who looks at everything again when it comes or goes."""


def to(*names: str) -> Route:
    """The object itself, for these controllers."""

    def route(work: Work, namespace: str, name: str, _thing: Object) -> None:
        for controller in names:
            work.add(controller, namespace, name)

    return route


def everything(*names: str) -> Route:
    """Not the object: these controllers look at all they have."""

    def route(work: Work, _namespace: str, _name: str, _thing: Object) -> None:
        for controller in names:
            work.add(controller, "", "")

    return route


def _labels(thing: Object) -> dict[str, str]:
    return thing["metadata"].get("labels") or {}


def _deployment(work: Work, namespace: str, _name: str, thing: Object) -> None:
    program = PROGRAMS.get(_labels(thing).get(NAME, ""))
    if program:
        work.add(program, "", "")
    if namespace == NAMESPACE:
        work.add("exposures", "", "")


def _secret(work: Work, namespace: str, name: str, _thing: Object) -> None:
    if (namespace, name) == (NAMESPACE, "operator-oauth"):
        work.add("exposures", "", "")
        return
    for controller in ("secret", "tunnel-secret", "certificate-secret"):
        work.add(controller, namespace, name)


def _pod(work: Work, namespace: str, _name: str, thing: Object) -> None:
    labels = _labels(thing)
    if "cnpg.io/cluster" in labels:
        work.add("cluster", namespace, labels["cnpg.io/cluster"])
    if labels.get(MANAGED) == "true":
        controller = "ingress" if labels.get(f"{PARENT}-type") == "ingress" else "service"
        work.add(controller, labels[f"{PARENT}-ns"], labels[PARENT])


def _stateful_set(work: Work, namespace: str, name: str, thing: Object) -> None:
    labels = _labels(thing)
    if OF_PROMETHEUS.items() <= labels.items():
        program, _, of = name.partition("-")
        work.add(program, namespace, of)
    if OF_CLICKHOUSE in labels:
        work.add("clickhouse", namespace, labels[OF_CLICKHOUSE])


ROUTES: tuple[tuple[Kind, Route], ...] = (
    (CLUSTER, to("cluster")),
    (DATABASE, to("database")),
    (DATABASE_ROLE, to("role")),
    (SERVICE, to("service", "loadbalancer", "backend")),
    (INGRESS, to("ingress", "tunnel")),
    (INGRESS_CLASS, everything("tunnels")),
    (CLAIM, to("claim")),
    (VOLUME, to("volume")),
    (DEPLOYMENT, _deployment),
    (SECRET, _secret),
    (POD, _pod),
    (PROMETHEUS, to("prometheus")),
    (ALERTMANAGER, to("alertmanager")),
    (STATEFUL_SET, _stateful_set),
    (CERTIFICATE, to("certificate")),
    (ISSUER, everything("issuers")),
    (CLUSTER_ISSUER, everything("issuers")),
    (VALIDATING_WEBHOOKS, everything("webhooks")),
    (MUTATING_WEBHOOKS, everything("webhooks")),
    (CLICKHOUSE, to("clickhouse")),
)


def look_again(api: Api, work: Work) -> None:
    """Ask for a look at every object of a kind that a definition brings.

    kopf learns of such a kind from the event of its definition and asks the server's discovery only then. When
    discovery lags behind that event, kopf never watches the kind, and nothing else would tell of its objects.
    """
    for kind, route in ROUTES:
        for found in api.list(kind) if kind.is_defined else ():
            route(work, found["metadata"].get("namespace", ""), found["metadata"]["name"], found)
