"""Is the Tailscale operator healthy, and is every exposed Service and Ingress really reachable?

`verify` looks at the operator, then `verify_exposures` takes each exposed object in the order a connection takes:
proxy, device, peer, name, port, HTTP. The condition `TailscaleProxyReady` turns True before the device has joined, so
it proves nothing alone. Facts from the Tailscale operator's sources (cmd/k8s-operator: svc.go, ingress.go, sts.go) and
its chart 1.102.3; objects are as `kubectl get -o json` and `tailscale status --json` give them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from runbooks.checks.cluster import (
    CELLS,
    DEPLOYMENTS,
    INGRESSES,
    Cluster,
    class_check,
    cluster_of,
    deployment_check,
    exports_of,
    in_its_namespace,
    make_check,
    namespace_of,
    network_of,
    report,
    report_unless_expected,
    secret_check,
    secret_value,
    untried,
    workloads_check,
)
from runbooks.checks.inside import Page
from runbooks.core.findings import Check, Finding, failed, not_tried, passed, run_checks
from runbooks.core.parallel import side_by_side
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, KubectlFailed, annotations_of, condition, dig, metadata, text_at
from runbooks.tools.network import Network

OWNER = "tailscale"
"""The service whose operator it is."""
OPERATOR_DEPLOYMENT = "operator"
OAUTH_SECRET = "operator-oauth"  # noqa: S105 - the name of the Secret
PROXY_VARIABLE = "APISERVER_PROXY"
INGRESS_CLASS = "tailscale"
INGRESS_CONTROLLER = "tailscale.com/ts-ingress"
EXPOSE = "tailscale.com/expose"
HOSTNAME = "tailscale.com/hostname"
PROXY_GROUP = "tailscale.com/proxy-group"
PROXY_READY = "TailscaleProxyReady"
GROUP_READY = "TailscaleIngressSvcConfigured"
"""What takes its place on a Service of an ingress ProxyGroup (operator 1.102, svc-for-pg.go)."""
MANAGED = "tailscale.com/managed=true"
PARENT = "tailscale.com/parent-resource"

OPERATOR_AVAILABLE = "the Tailscale operator is available"
OAUTH_IS_THERE = "the operator has its OAuth client"
CLASS_IS_SERVED = "the ingress class `tailscale` belongs to the operator"
API_AS_SET = "the Kubernetes API is on the tailnet as its config sets it"
EXPOSURES_KNOWN = "exposed Services and Ingresses can be listed"
ALL_EXPOSED = "what it puts on the tailnet is there"
PROXY_IS_READY = "the operator made a proxy for it"
DEVICE_HAS_NAME = "its device joined the tailnet under the wanted name"
DEVICE_IS_PEER = "this machine sees the device as a peer"
NAME_RESOLVES = "its name resolves to the device's address"
PORT_CONNECTS = "its port answers a TCP connection"
HTTP_ANSWERS = "it answers HTTP"
EXPOSURE_CHECKS = (PROXY_IS_READY, DEVICE_HAS_NAME, DEVICE_IS_PEER, NAME_RESOLVES, PORT_CONNECTS, HTTP_ANSWERS)
NEEDS_TAILNET = frozenset({DEVICE_IS_PEER, NAME_RESOLVES, PORT_CONNECTS, HTTP_ANSWERS})
"""The checks that only a machine on the tailnet can try."""

CANNOT_LOGIN = (
    "the operator cannot log in to the tailnet: check TS_CLIENT_ID and TS_CLIENT_SECRET, the client's scopes "
    "(devices:core, auth_keys) and its tag (tag:k8s-operator)"
)
NO_PROXY = (
    "no proxy Pod was created: ensure that the annotations are present, the operator is healthy and the Service is "
    "routable (a ClusterIP or LoadBalancer, not headless)"
)
NO_CONTROLLER = "Ingress not reachable: check that ingressClassName is `tailscale` and that the operator is healthy"
NOT_JOINED = "the proxy did not join the tailnet: check the OAuth client's scopes and tags, and device approval"
NO_RESOLUTION = "cannot resolve the name: verify the tailnet's MagicDNS, and that `tailscale.com/hostname` matches"
NO_GRANT = "the tailnet's ACLs grant this machine no access, or the proxy Pod is gone"

PROXY_TAKES = 60.0
"""Seconds a proxy may need from the annotation to its device's name: its image is pulled, then it logs in."""
NETWORK_TAKES = 10.0
"""Seconds until this machine hears of a device that just joined."""
CERTIFICATE_TAKES = 60.0
"""Seconds of a proxy's first answer: only then it asks for its certificate.

Source: tailscale/tailscale, ipn/ipnlocal/serve.go, getTLSServeCertForPort.
"""
ANY_PAGE = Page(path="/")
COLUMNS = ("object", "tailnet name", "proxy", "device", "peer", "name", "port", "http")


class Kind(Enum):
    """What is exposed; the value is the operator's own word for it in `parent-resource-type`."""

    SERVICE = "svc"
    INGRESS = "ingress"


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One object that asks to be on the tailnet."""

    kind: Kind
    namespace: str
    name: str
    hostname: str
    """The tailnet name it asks for: one DNS label."""
    ports: tuple[int, ...]
    obj: Json

    @property
    def subject(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def labels(self) -> str:
        """Selects its state Secret in the operator's namespace: the Secret's own name cannot be predicted."""
        return f"{MANAGED},{PARENT}={self.name},{PARENT}-ns={self.namespace},{PARENT}-type={self.kind.value}"

    @property
    def is_in_group(self) -> bool:
        """Served by a ProxyGroup, which keeps no state Secret for each exposure."""
        return PROXY_GROUP in annotations_of(self.obj)

    @property
    def show(self) -> str:
        """The command that shows it."""
        return f"kubectl -n {self.namespace} describe {self.kind.value} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the operator recorded about a proxy's device."""

    fqdn: str
    """Without the trailing dot; empty until it joined."""
    addresses: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.fqdn.partition(".")[0]


def verify(session: Session, service: Service) -> list[Finding]:
    """The operator first, then each exposed object with the same checks, shown in one table."""
    login = "the stack did not create the Secret, or its config was empty"
    checks = [
        operator_is_available(session),
        secret_check(session, OAUTH_IS_THERE, service, OAUTH_SECRET, ("client_id", "client_secret"), cause=login),
        class_check(session, CLASS_IS_SERVED, INGRESS_CLASS, INGRESS_CONTROLLER, cause=NO_CONTROLLER),
        api_server_is_as_set(session, service),
        workloads_check(session, service),
    ]
    return report(session, run_checks(checks)) + verify_exposures(session)


def operator_is_available(session: Session) -> Check:
    """Available proves that it runs; a device that joined proves that it is logged in: it exits when it cannot."""
    owner = in_its_namespace(session, session.service(OWNER))
    return deployment_check(session, OPERATOR_AVAILABLE, owner, name=OPERATOR_DEPLOYMENT, cause=CANNOT_LOGIN)


def api_server_is_as_set(session: Session, service: Service) -> Check:
    """The handbook's last row: the API server is on the tailnet, or is not, as the stack exports it."""

    def judge() -> Finding:
        wanted = exports_of(session, service).get("api_server_proxy_mode")
        if wanted is None:
            return not_tried(API_AS_SET, "its stack does not export how it was set", deciding=False)
        operator = cluster_of(session).find(DEPLOYMENTS, OPERATOR_DEPLOYMENT, service.namespace)
        containers = dig(operator or {}, "spec", "template", "spec", "containers") or []
        entries = [entry for container in containers for entry in container.get("env") or []]
        # The operator reads a variable that is not set as `false`.
        found = next((text_at(entry, "value") for entry in entries if entry["name"] == PROXY_VARIABLE), "false")
        if found != wanted:
            evidence = f"the operator runs with {PROXY_VARIABLE}={found}, its stack exports {wanted}"
            cause = "the operator was changed by hand, or its last deployment did not finish"
            return failed(API_AS_SET, evidence, cause=cause, next_step="./inv repair.tailscale")
        guarded = "" if found == "false" else "; who may use it is up to the tailnet's ACLs"
        return passed(API_AS_SET, f"tailscale:api_server_proxy_mode is {found}{guarded}")

    return make_check(session, API_AS_SET, judge, continue_on_failure=True)


# --- each exposed object -----------------------------------------------------------------------------------------


def verify_exposures(session: Session, namespace: str = "", page: Page = ANY_PAGE) -> list[Finding]:
    """Every exposure of the cluster, or of a namespace: one table, and the findings that did not pass in full.

    `page` is what Ingresses are asked for.
    """
    try:
        found = exposures(cluster_of(session), namespace)
    except KubectlFailed as error:
        return report(session, [failed(EXPOSURES_KNOWN, error.summary, next_step="kubectl get svc,ingress -A")])
    if not found:
        nothing = f"nothing in {namespace or 'the cluster'} is exposed to the tailnet"
        return report(session, [not_tried(EXPOSURES_KNOWN, nothing, deciding=False)])
    rows, findings = [], []
    # Side by side: each that is not ready is waited for.
    looked = side_by_side(
        session.reporter, found, lambda item: run_checks(exposure_checks(session, item, page), subject=item.subject)
    )
    for item, seen in zip(found, looked, strict=True):
        cells = {finding.check: CELLS[finding.state] for finding in seen}
        rows.append([item.subject, item.hostname, *(cells.get(check, "") for check in EXPOSURE_CHECKS)])
        findings += seen
    session.reporter.table("Exposed to the tailnet", COLUMNS, rows)
    return report_unless_expected(session, findings, NEEDS_TAILNET)


def exposures(cluster: Cluster, namespace: str = "") -> list[Exposure]:
    """Services that are annotated or of the load balancer class, and Ingresses of the class `tailscale`.

    The operator does not read the legacy annotation `kubernetes.io/ingress.class`. Raises `KubectlFailed`.
    """
    services = [obj for obj in cluster.list("services", namespace) if is_exposed_service(obj)]
    ingresses = [obj for obj in cluster.list(INGRESSES, namespace) if is_exposed_ingress(obj)]
    return [exposure_of(obj) for obj in (*services, *ingresses)]


def is_exposed_service(obj: Json) -> bool:
    """Annotated, or a load balancer: of the operator's class, or without a class where the operator took it up."""
    balances = text_at(obj, "spec", "type") == "LoadBalancer"
    by_class = text_at(obj, "spec", "loadBalancerClass")
    taken_up = by_class == INGRESS_CLASS or (not by_class and condition(obj, PROXY_READY) is not None)
    return annotations_of(obj).get(EXPOSE) == "true" or (balances and taken_up)


def is_exposed_ingress(obj: Json) -> bool:
    return text_at(obj, "spec", "ingressClassName") == INGRESS_CLASS


def exposure_of(obj: Json) -> Exposure:
    """The exposure an object asks for, with the name the operator would give its device."""
    namespace, name = metadata(obj)
    if text_at(obj, "kind") == "Ingress" or dig(obj, "spec", "ingressClassName"):
        host = text_at(obj, "spec", "tls", 0, "hosts", 0).partition(".")[0]
        wanted = host or f"{namespace}-{name}-ingress"
        return Exposure(kind=Kind.INGRESS, namespace=namespace, name=name, hostname=wanted, ports=(443,), obj=obj)
    wanted = annotations_of(obj).get(HOSTNAME) or f"{namespace}-{name}"
    ports = tuple(port for entry in dig(obj, "spec", "ports") or [] if isinstance(port := dig(entry, "port"), int))
    return Exposure(kind=Kind.SERVICE, namespace=namespace, name=name, hostname=wanted, ports=ports, obj=obj)


def all_are_exposed(session: Session, service: Service) -> Check:
    """The cluster agrees with `exposed=` of `services.py`; otherwise a missing exposure would go unnoticed."""

    def judge() -> Finding:
        found = exposures(cluster_of(session), service.namespace)
        missing = sorted(set(service.exposed) - {f"{item.kind.value}/{item.name}" for item in found})
        if missing:
            cause = "annotations or ingressClassName are not what the operator looks for, or the object is not there"
            step = f"kubectl -n {service.namespace} get svc,ingress"
            return failed(ALL_EXPOSED, f"not exposed: {', '.join(missing)}", cause=cause, next_step=step)
        return passed(ALL_EXPOSED, ", ".join(sorted(service.exposed)))

    return make_check(session, ALL_EXPOSED, judge)


def newest(cluster: Cluster, item: Exposure) -> Exposure | None:
    """The exposure with its object as it is now; `None` when it is gone."""
    obj = cluster.find("services" if item.kind is Kind.SERVICE else INGRESSES, item.name, item.namespace)
    return replace(item, obj=obj) if obj else None


def exposure_checks(session: Session, item: Exposure, page: Page = ANY_PAGE, name: str = "") -> list[Check]:
    """From proxy to connection. `name`: what clients use, where that is not the device's full name."""
    cluster, network = cluster_of(session), network_of(session)

    def proxy() -> Finding:
        found = newest(cluster, item)
        return (
            proxy_is_ready(found) if found else failed(PROXY_IS_READY, f"{item.subject} is gone", next_step=item.show)
        )

    def device() -> Device | None:
        return device_of((newest(cluster, item) if item.is_in_group or not item.obj else None) or item, secrets())

    def secrets() -> list[Json]:
        return cluster.list("secrets", namespace_of(session, OWNER), item.labels)

    checks = [
        make_check(session, PROXY_IS_READY, proxy, wait=PROXY_TAKES),
        make_check(session, DEVICE_HAS_NAME, lambda: device_has_name(item, device()), wait=PROXY_TAKES),
    ]
    reach = [DEVICE_IS_PEER, NAME_RESOLVES, PORT_CONNECTS, *([HTTP_ANSWERS] if item.kind is Kind.INGRESS else [])]
    if network is None:
        return checks + [untried(check) for check in reach]

    def connection(check: str) -> Finding:
        found = device() or Device(fqdn="")
        if check == DEVICE_IS_PEER:
            return device_is_peer(found, network)
        if check == NAME_RESOLVES:
            return name_resolves(name or found.fqdn, found, network)
        if check == PORT_CONNECTS:
            return port_connects(name or found.fqdn, item.ports, network)
        return http_answers(f"https://{found.fqdn}{page.path}", page.marker, network)

    for check in reach:
        wait = CERTIFICATE_TAKES if check == HTTP_ANSWERS else NETWORK_TAKES
        deciding = check != DEVICE_IS_PEER
        checks.append(make_check(session, check, partial(connection, check), deciding=deciding, wait=wait))
    return checks


# --- the checks of one exposure, in their order ------------------------------------------------------------------


def proxy_is_ready(item: Exposure) -> Finding:
    """Service: its condition (`PROXY_READY`). Ingress: a hostname in its status. Neither proves a connection."""
    cause = NO_PROXY
    if dig(item.obj, "metadata", "deletionTimestamp"):
        evidence = f"{item.subject} is terminating"
        cause = "it is being deleted, and waits for the operator to remove its finalizer"
    elif item.kind is Kind.SERVICE:
        wanted = GROUP_READY if item.is_in_group else PROXY_READY
        found = condition(item.obj, wanted)
        if text_at(item.obj, "spec", "clusterIP") == "None":
            evidence = "the Service is headless"
        elif found is None or not found.is_true:
            evidence = str(found) if found else f"no condition {wanted}"
        else:
            return passed(PROXY_IS_READY, str(found))
    elif ignored := _ignored_hosts(item):
        cause = "HTTP 404 via the Tailscale Ingress: rules[].host must be empty or the same text as tls[0].hosts[0]"
        evidence = f"the operator ignores the rules for {', '.join(ignored)}"
    elif hostname := address_of(item, "hostname"):
        return passed(PROXY_IS_READY, hostname)
    else:
        cause, evidence = NO_CONTROLLER, "no hostname in status.loadBalancer.ingress"
    return failed(PROXY_IS_READY, evidence, cause=cause, next_step=item.show)


def _ignored_hosts(item: Exposure) -> list[str]:
    """Hosts of rules the operator skips, when every rule is one of those and nothing else is left to serve."""
    if dig(item.obj, "spec", "defaultBackend") or item.is_in_group:
        return []
    wanted = text_at(item.obj, "spec", "tls", 0, "hosts", 0)
    hosts = [text_at(rule, "host") for rule in dig(item.obj, "spec", "rules") or []]
    ignored = [host for host in hosts if host and host.casefold() != wanted.casefold()]
    return ignored if len(ignored) == len(hosts) else []


def address_of(item: Exposure, kind: str) -> str:
    """The `hostname` or `ip` in its status; empty while there is none."""
    return text_at(item.obj, "status", "loadBalancer", "ingress", 0, kind)


def device_of(item: Exposure, secrets: Sequence[Json]) -> Device | None:
    """The device that the operator recorded in state Secrets; one that joined first. `None`: nothing recorded yet.

    A ProxyGroup keeps no such Secret: there the object's own status is all there is.
    """
    devices = [
        Device(fqdn=secret_value(secret, "device_fqdn").rstrip("."), addresses=_addresses(secret)) for secret in secrets
    ]
    if devices:
        return next((device for device in devices if device.fqdn), devices[0])
    if item.is_in_group and (hostname := address_of(item, "hostname")):
        address = address_of(item, "ip")
        return Device(fqdn=hostname.rstrip("."), addresses=(address,) if address else ())
    return None


def _addresses(secret: Json) -> tuple[str, ...]:
    try:
        found = json.loads(secret_value(secret, "device_ips") or "[]")
    except ValueError:
        return ()
    return tuple(str(address) for address in found) if isinstance(found, list) else ()


def device_has_name(item: Exposure, device: Device | None) -> Finding:
    """Its recorded name begins with the wanted one, without a `-1` that the tailnet added."""
    step = f"kubectl get pods,secrets -A -l {item.labels}"
    if device is None:
        return failed(DEVICE_HAS_NAME, "no state Secret carries its labels", cause=NO_PROXY, next_step=step)
    if not device.fqdn:
        evidence = "its state Secret has no device_fqdn yet"
        return failed(DEVICE_HAS_NAME, evidence, cause=NOT_JOINED, next_step=step)
    # Host names are compared without case: the tailnet writes them in lower case.
    if re.fullmatch(re.escape(item.hostname) + r"-\d+", device.label, re.IGNORECASE):
        cause = f"another device of the tailnet holds the name {item.hostname!r}, perhaps one of an earlier operator"
        step = "remove the old device in the Tailscale admin console, then delete this proxy's state"
        return failed(DEVICE_HAS_NAME, f"the device is called {device.fqdn}", cause=cause, next_step=step)
    if device.label.casefold() != item.hostname.casefold():
        cause = "the proxy has not taken up a changed name, or `tailscale.com/hostname` is not what you meant"
        evidence = f"the device is called {device.fqdn}, not {item.hostname}"
        return failed(DEVICE_HAS_NAME, evidence, cause=cause, next_step=item.show)
    return passed(DEVICE_HAS_NAME, ", ".join((device.fqdn, *device.addresses)))


def device_is_peer(device: Device, network: Network) -> Finding:
    """The device is in `tailscale status --json`, matched by `DNSName`, and not expired. `Online` decides nothing."""
    try:
        status = network.status()
    except OSError as error:
        cause = "tailscale is not running here"
        return failed(DEVICE_IS_PEER, str(error), cause=cause, next_step="tailscale up")
    if status is None:
        why = "there is no `tailscale` command here; the earlier checks decide"
        return not_tried(DEVICE_IS_PEER, why, deciding=False)
    state = text_at(status, "BackendState")
    if state != "Running":
        cause = "tailscale is not connected on this machine"
        evidence = f"tailscale is {state or 'in no known state'}"
        return failed(DEVICE_IS_PEER, evidence, cause=cause, next_step="tailscale up")
    peers = dig(status, "Peer") or {}
    for peer in peers.values():
        name = text_at(peer, "DNSName").rstrip(".")
        if name.casefold() == device.fqdn.casefold():
            if dig(peer, "Expired") is True:
                cause = "the device's key expired: tagged devices have no expiry, so its tags may be gone"
                return failed(DEVICE_IS_PEER, f"{name} is expired", cause=cause, next_step="tailscale status")
            online = "online" if dig(peer, "Online") is True else "not online, as the control plane sees it"
            return passed(DEVICE_IS_PEER, f"{name}, {online}")
    evidence = f"{device.fqdn} is not among its {len(peers)} peers"
    return failed(DEVICE_IS_PEER, evidence, cause=NO_GRANT, next_step="tailscale status")


def name_resolves(name: str, device: Device, network: Network) -> Finding:
    """The name resolves, and one of the answers is the device's own address."""
    try:
        answers = network.resolve(name)
    except OSError as error:
        return failed(NAME_RESOLVES, f"{name}: {error}", cause=NO_RESOLUTION, next_step=f"dig {name}")
    if device.addresses and not set(answers) & set(device.addresses):
        cause = "another machine answers to this name: a device of that name outside the operator, or a stale DNS entry"
        evidence = f"{name} is {', '.join(answers)}; the device is {', '.join(device.addresses)}"
        return failed(NAME_RESOLVES, evidence, cause=cause, next_step=f"dig {name}")
    return passed(NAME_RESOLVES, f"{name} is {', '.join(answers)}")


def port_connects(name: str, ports: Sequence[int], network: Network) -> Finding:
    """Every port takes a TCP connection."""
    for port in ports:
        try:
            network.connect(name, port)
        except OSError as error:
            cause = "the Service has no ready endpoints" if isinstance(error, ConnectionRefusedError) else NO_GRANT
            return failed(PORT_CONNECTS, f"{name}:{port}: {error}", cause=cause, next_step=f"nc -vz {name} {port}")
    return passed(PORT_CONNECTS, ", ".join(f"{name}:{port}" for port in ports))


def http_answers(url: str, marker: str, network: Network) -> Finding:
    """The answer's status is below 400, and its body holds `marker` when one is given."""
    try:
        answer = network.fetch(url)
    except OSError as error:
        cause = "HTTPS certificates may be off in the tailnet, or the app does not answer"
        return failed(HTTP_ANSWERS, f"{url}: {error}", cause=cause, next_step=f"curl -v {url}")
    evidence = f"{url}: status {answer.status}"
    if answer.status == 404:
        cause = "HTTP 404 via the Tailscale Ingress: check its rules and backend Service, and that the app is listening"
    elif answer.status >= 400:
        cause = "the proxy is there; the app behind it answers with an error, or not at all"
    elif marker not in answer.body:
        cause = "something else answers at this name"
        evidence += f", without {marker!r}"
    else:
        return passed(HTTP_ANSWERS, evidence)
    return failed(HTTP_ANSWERS, evidence, cause=cause, next_step=f"curl -v {url}")
