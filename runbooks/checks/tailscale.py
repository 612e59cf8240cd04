"""Is the Tailscale operator healthy, and is every exposed Service and Ingress really reachable?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runbooks.checks import exposure
from runbooks.checks.cluster import (
    Cluster,
    cluster_of,
    exports_of,
    home_of,
    network_of,
    patience,
    shown,
    untried,
    workloads,
)
from runbooks.checks.exposure import Device, Exposure
from runbooks.checks.inside import Page
from runbooks.checks.workloads import deployment_is_available, secret_has_keys, seen
from runbooks.core.findings import Check, Finding, failed, not_tried, passed, run_checks
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, KubectlFailed, dig, find, text_at
from runbooks.tools.network import Network

OWNER = "tailscale"
"""The service whose operator it is."""
OAUTH_SECRET = "operator-oauth"  # noqa: S105 - the name of the Secret
OAUTH_IS_THERE = "the operator has its OAuth client"
CLASS_IS_SERVED = "the ingress class `tailscale` belongs to the operator"
API_AS_SET = "the Kubernetes API is on the tailnet as its setting says"
PROXY_VARIABLE = "APISERVER_PROXY"
EXPOSURES_KNOWN = "exposed Services and Ingresses can be listed"
CANNOT_LOGIN = (
    "the operator cannot log in to the tailnet: check TS_CLIENT_ID and TS_CLIENT_SECRET, the client's scopes "
    "(devices:core, auth_keys) and its tag (tag:k8s-operator)"
)
PROXY_TAKES = 60.0
"""Seconds a proxy may need from the annotation to its device's name: its image is pulled, then it logs in."""
NETWORK_TAKES = 10.0
"""Seconds until this machine hears of a device that just joined."""
CERTIFICATE_TAKES = 60.0
"""Seconds of a proxy's first answer: only then it asks for its certificate.

Source: tailscale/tailscale, ipn/ipnlocal/serve.go, getTLSServeCertForPort.
"""


def verify(session: Session, service: Service) -> list[Finding]:
    """The operator first, then each exposed object with the same checks, shown in one table."""
    cluster = cluster_of(session)
    operator = [
        operator_is_available(session, cluster),
        oauth_is_there(session, cluster),
        class_is_served(session),
        api_server_is_as_set(session, service, cluster),
    ]
    return shown(session, run_checks([*operator, workloads(session, service)])) + exposed(session, cluster)


ANY_PAGE = Page(path="/")


def exposed(session: Session, cluster: Cluster, namespace: str = "", page: Page = ANY_PAGE) -> list[Finding]:
    """Every exposure of the cluster, or of a namespace: one table, and the findings that did not pass in full.

    `page` is what Ingresses are asked for.
    """
    try:
        found = exposures(cluster, namespace)
    except KubectlFailed as error:
        return shown(session, [failed(EXPOSURES_KNOWN, error.summary, next_step="kubectl get svc,ingress -A")])
    if not found:
        nothing = f"nothing in {namespace or 'the cluster'} is exposed to the tailnet"
        return shown(session, [not_tried(EXPOSURES_KNOWN, nothing, deciding=False)])
    looked = [(item, run_checks(checks(session, cluster, item, page), subject=item.subject)) for item in found]
    session.reporter.table("Exposed to the tailnet", COLUMNS, [row(item, told) for item, told in looked])
    findings = [finding for _, told in looked for finding in told]
    shown(session, [finding for finding in findings if not finding.ok and not _is_expected(session, finding)])
    return findings


def _is_expected(session: Session, finding: Finding) -> bool:
    """What the lab never tries is told once, in the table."""
    return session.target.ephemeral and finding.check in exposure.NEEDS_TAILNET


def exposures(cluster: Cluster, namespace: str = "") -> list[Exposure]:
    """Those of a namespace, or of the whole cluster. Raises `KubectlFailed`."""
    return [
        *exposure.exposed_services(cluster.within(namespace, "services")),
        *exposure.exposed_ingresses(cluster.within(namespace, "ingresses.networking.k8s.io")),
    ]


COLUMNS = ("object", "tailnet name", "proxy", "device", "peer", "name", "port", "http")
_CELL = {"passed": "ok", "failed": "FAIL", "not tried": "--"}


def row(item: Exposure, findings: Sequence[Finding]) -> list[str]:
    by_check = {finding.check: _CELL[finding.state.value] for finding in findings}
    return [item.subject, item.hostname, *(by_check.get(check, "") for check in exposure.RUNGS[1:])]


# --- the operator's checks ----------------------------------------------------------------------------------------


def operator_is_available(session: Session, cluster: Cluster) -> Check:
    """Available proves that it runs; a device that joined proves that it is logged in: it exits when it cannot."""
    check = exposure.OPERATOR_AVAILABLE

    def look() -> Finding:
        namespace, name = home_of(session, OWNER), exposure.OPERATOR_DEPLOYMENT
        step = f"kubectl -n {namespace} get deploy,pods; kubectl -n {namespace} logs deploy/{name} --tail=20"
        return seen(
            check,
            lambda: deployment_is_available(
                check,
                cluster.deployment(namespace, name),
                cause=CANNOT_LOGIN,
                next_step=step,
                deploy="./inv deploy.tailscale",
            ),
            next_step=step,
        )

    return Check(name=check, look=look, patience=patience(session, 60.0))


def oauth_is_there(session: Session, cluster: Cluster) -> Check:
    def look() -> Finding:
        return seen(
            OAUTH_IS_THERE,
            lambda: secret_has_keys(
                OAUTH_IS_THERE,
                cluster.secret(home_of(session, OWNER), OAUTH_SECRET),
                ("client_id", "client_secret"),
                cause="the stack did not make the Secret, or its settings were empty",
                next_step="./inv repair.tailscale",
            ),
        )

    return Check(name=OAUTH_IS_THERE, look=look)


def class_is_served(session: Session) -> Check:
    def judge() -> Finding:
        name = exposure.INGRESS_CLASS
        found = find(session.runner, session.kubectl.get("ingressclasses.networking.k8s.io", name))
        controller = text_at(found, "spec", "controller")
        if controller != exposure.INGRESS_CONTROLLER:
            told = f"its controller is {controller}" if found else f"there is no ingress class {name}"
            return failed(CLASS_IS_SERVED, told, cause=exposure.NO_CONTROLLER, next_step="kubectl get ingressclass")
        return passed(CLASS_IS_SERVED, f"{name}: {controller}")

    return Check(name=CLASS_IS_SERVED, look=lambda: seen(CLASS_IS_SERVED, judge), goes_on=True)


def api_server_is_as_set(session: Session, service: Service, cluster: Cluster) -> Check:
    """The handbook's last row: who finds the API server on the tailnet, or misses it there, is told what to change."""

    def judge() -> Finding:
        wanted = exports_of(session, service).get("api_server_proxy_mode")
        if wanted is None:
            return not_tried(API_AS_SET, "its stack does not say how it was set", deciding=False)
        found = _variable(cluster.deployment(service.namespace, exposure.OPERATOR_DEPLOYMENT), PROXY_VARIABLE)
        if found != wanted:
            told = f"the operator runs with {PROXY_VARIABLE}={found}, its stack says {wanted}"
            cause = "somebody changed the operator by hand, or its last deployment did not come to its end"
            step = "./inv repair.tailscale"
            return failed(API_AS_SET, told, cause=cause, next_step=step)
        guarded = "" if found == "false" else "; who may use it is up to the tailnet's ACLs"
        return passed(API_AS_SET, f"tailscale:api_server_proxy_mode is {found}{guarded}")

    return Check(name=API_AS_SET, look=lambda: seen(API_AS_SET, judge), goes_on=True)


def _variable(deployment: Json | None, name: str) -> str:
    """The value of a container's variable, as the operator reads it: `false` where it is not set."""
    containers = dig(deployment or {}, "spec", "template", "spec", "containers") or []
    found = [text_at(entry, "value") for one in containers for entry in one.get("env") or [] if entry["name"] == name]
    return found[0] if found else "false"


# --- the checks of one exposure -----------------------------------------------------------------------------------


def checks(session: Session, cluster: Cluster, item: Exposure, page: Page = ANY_PAGE) -> list[Check]:
    """From proxy to connection; SQL or HTTP come on top where they apply."""
    network = network_of(session)
    checks = [
        Check(name=exposure.PROXY_IS_READY, look=_fresh(cluster, item), patience=patience(session, PROXY_TAKES)),
        Check(
            name=exposure.DEVICE_HAS_NAME,
            look=lambda: seen(
                exposure.DEVICE_HAS_NAME, lambda: exposure.device_has_name(item, state_secrets(session, cluster, item))
            ),
            patience=patience(session, PROXY_TAKES),
        ),
    ]
    reach = [exposure.DEVICE_IS_PEER, exposure.NAME_RESOLVES, exposure.PORT_CONNECTS]
    reach += [exposure.HTTP_ANSWERS] if item.kind is exposure.Kind.INGRESS else []
    if network is None:
        return checks + [untried(check) for check in reach]
    return checks + [
        Check(
            name=check,
            look=_reaching(session, check, item, network, page),
            deciding=check != exposure.DEVICE_IS_PEER,
            patience=patience(session, CERTIFICATE_TAKES if check == exposure.HTTP_ANSWERS else NETWORK_TAKES),
        )
        for check in reach
    ]


def state_secrets(session: Session, cluster: Cluster, item: Exposure) -> Json:
    return cluster.secrets(home_of(session, OWNER), item.labels)


def _fresh(cluster: Cluster, item: Exposure) -> Callable[[], Finding]:
    kind = "services" if item.kind is exposure.Kind.SERVICE else "ingresses.networking.k8s.io"

    def judge() -> Finding:
        obj = cluster.object(kind, item.namespace, item.name)
        if obj is None:
            return failed(exposure.PROXY_IS_READY, f"{item.subject} is gone", next_step=item.show)
        return exposure.proxy_is_ready(exposure.exposure_of(obj))

    return lambda: seen(exposure.PROXY_IS_READY, judge)


def _reaching(session: Session, check: str, item: Exposure, network: Network, page: Page) -> Callable[[], Finding]:
    def judge() -> Finding:
        device = exposure.device_of(item, state_secrets(session, cluster_of(session), item)) or Device(fqdn="")
        if check == exposure.DEVICE_IS_PEER:
            return peer(device, network)
        if check == exposure.NAME_RESOLVES:
            return exposure.name_resolves(device.fqdn, device, network)
        if check == exposure.PORT_CONNECTS:
            return exposure.port_connects(device.fqdn, item.ports, network)
        return exposure.http_answers(f"https://{device.fqdn}{page.path}", page.marker, network)

    return lambda: seen(check, judge)


def peer(device: Device, network: Network) -> Finding:
    """`exposure.device_is_peer`, with a `tailscale` that does not work as evidence."""
    try:
        status = network.status()
    except OSError as error:
        cause = "tailscale is not running here"
        return failed(exposure.DEVICE_IS_PEER, str(error), cause=cause, next_step="tailscale up")
    return exposure.device_is_peer(device, status)
