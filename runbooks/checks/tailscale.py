"""Is the Tailscale operator healthy, and is everything on the tailnet really reachable?

`verify` looks at the operator, then `verify_exposures` reads every object on the tailnet and judges each in the order a
connection takes: the name its stack exports, proxy, device, peer, name, port, HTTP. The condition `TailscaleProxyReady`
turns True before the device has joined, so it proves nothing alone. Facts from the Tailscale operator's sources
(cmd/k8s-operator: svc.go, ingress.go, sts.go) and its chart 1.102.3; objects are as `kubectl get -o json` and
`tailscale status --json` give them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runbooks.checks import cluster
from runbooks.checks.inside import Page
from runbooks.core.errors import OpsError
from runbooks.core.findings import Check, Finding, State, failed, not_tried, passed
from runbooks.core.runner import Runner
from runbooks.stacks.preparation import exports_of
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import network
from runbooks.tools.kubectl import (
    Json,
    KubectlFailed,
    annotations_of,
    condition,
    conditions,
    dig,
    metadata,
    secret_value,
    text_at,
)

OPERATOR_DEPLOYMENT = "operator"
OAUTH_SECRET = "operator-oauth"  # noqa: S105 - the name of the Secret
PROXY_VARIABLE = "APISERVER_PROXY"
INGRESS_CLASS = "tailscale"
INGRESS_CONTROLLER = "tailscale.com/ts-ingress"
EXPOSE = "tailscale.com/expose"
HOSTNAME = "tailscale.com/hostname"
IN_GROUP = "tailscale.com/proxy-group"
PROXY_READY = "TailscaleProxyReady"
MANAGED = "tailscale.com/managed=true"
PARENT = "tailscale.com/parent-resource"

OPERATOR_AVAILABLE = "the Tailscale operator is available"
OAUTH_IS_THERE = "the operator has its OAuth client"
CLASS_IS_SERVED = "the ingress class `tailscale` belongs to the operator"
API_AS_SET = "the Kubernetes API is on the tailnet as its config sets it"
EXPOSURES_KNOWN = "exposed Services and Ingresses can be listed"
ALL_EXPOSED = "what it puts on the tailnet is there"
NAME_AS_EXPORTED = "it asks for the exported name"
PROXY_IS_READY = "the operator made a proxy for it"
DEVICE_HAS_NAME = "its device joined the tailnet under the wanted name"
DEVICE_IS_PEER = "this machine sees the device as a peer"
NAME_RESOLVES = "its name resolves to the device's address"
PORT_CONNECTS = "its port answers a TCP connection"
HTTP_ANSWERS = "it answers HTTP"
EXPOSURE_CHECKS = {
    "as exported": NAME_AS_EXPORTED,
    "proxy": PROXY_IS_READY,
    "device": DEVICE_HAS_NAME,
    "peer": DEVICE_IS_PEER,
    "name": NAME_RESOLVES,
    "port": PORT_CONNECTS,
    "http": HTTP_ANSWERS,
}
"""Heading in the table → check, in the order they are tried."""
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
NO_GROUP = (
    "the ProxyGroup {group} does not serve it: it must exist, be ready and of type ingress, and the tailnet's policy "
    "must let its tags advertise the Service (autoApprovers)"
)
NO_CONTROLLER = "Ingress not reachable: check that ingressClassName is `tailscale` and that the operator is healthy"
NOT_JOINED = "the proxy did not join the tailnet: check the OAuth client's scopes and tags, and device approval"
NO_RESOLUTION = "cannot resolve the name: verify the tailnet's MagicDNS, and that `tailscale.com/hostname` matches"
NO_GRANT = "the tailnet's ACLs grant this machine no access, or the proxy Pod is gone"

PROXY_TAKES = 60.0
"""Seconds a proxy may need from the annotation to its device's name: its image is pulled, then it logs in."""
NETWORK_TAKES = 10.0
"""Seconds until this machine knows a device that just joined."""
CERTIFICATE_TAKES = 60.0
"""Seconds for a proxy's first HTTPS answer: it requests its certificate at the first connection.

Source: tailscale/tailscale, ipn/ipnlocal/serve.go, getTLSServeCertForPort.
"""


def verify(session: Session, service: Service) -> list[Finding]:
    """Check the operator, then run the same checks on each exposed object and show them in one table."""
    login = "the stack did not create the Secret, or its config was empty"
    checks = [
        operator_is_available(session, service),
        cluster.secret_check(
            session, OAUTH_IS_THERE, service, OAUTH_SECRET, ("client_id", "client_secret"), cause=login
        ),
        cluster.class_check(session, CLASS_IS_SERVED, INGRESS_CLASS, INGRESS_CONTROLLER, cause=NO_CONTROLLER),
        api_server_is_as_set(session, service),
        cluster.workloads_check(session, service),
    ]
    return cluster.run_and_report(session, checks) + verify_exposures(session)


def operator_is_available(session: Session, service: Service) -> Check:
    """The Deployment is available. The operator exits when it cannot log in; only a joined device proves the login."""
    return cluster.deployment_check(session, OPERATOR_AVAILABLE, service, name=OPERATOR_DEPLOYMENT, cause=CANNOT_LOGIN)


def operator_of(session: Session) -> Service:
    """The service whose operator it is, in its namespace."""
    return cluster.in_its_namespace(session, session.service("tailscale"))


def api_server_is_as_set(session: Session, service: Service) -> Check:
    """The API server is on the tailnet exactly when the stack exports that it is (the handbook's last row)."""

    def judge() -> Finding:
        try:
            wanted = exports_of(session, service).get("api_server_proxy_mode")
        except OpsError as error:
            return not_tried(API_AS_SET, error.summary, next_step=error.next_step, deciding=False)
        if wanted is None:
            return not_tried(API_AS_SET, "its stack does not export how it was set", deciding=False)
        operator = cluster.find_object(session, cluster.DEPLOYMENTS, OPERATOR_DEPLOYMENT, service.namespace)
        containers = dig(operator or {}, "spec", "template", "spec", "containers") or []
        entries = [entry for container in containers for entry in container.get("env") or []]
        # The operator reads an unset variable as `false`.
        found = next((text_at(entry, "value") for entry in entries if entry["name"] == PROXY_VARIABLE), "false")
        if found != wanted:
            evidence = f"the operator runs with {PROXY_VARIABLE}={found}, its stack exports {wanted}"
            cause = "the operator was changed by hand, or its last deployment did not finish"
            return failed(API_AS_SET, evidence, cause=cause, next_step="./inv repair.tailscale")
        guarded = "" if found == "false" else "; who may use it is up to the tailnet's ACLs"
        return passed(API_AS_SET, f"tailscale:api_server_proxy_mode is {found}{guarded}")

    return cluster.make_check(session, API_AS_SET, judge, continue_on_failure=True)


# --- each object on the tailnet ----------------------------------------------------------------------------------


def verify_exposures(session: Session, namespace: str = "", page: Page | None = None) -> list[Finding]:
    """Check every object on the tailnet, of the cluster or of a namespace. `page`: what only the right app answers."""
    try:
        found = exposures(session, namespace)
        secrets = cluster.list_objects(session, "secrets", operator_of(session).namespace, MANAGED) if found else []
    except KubectlFailed as error:
        return cluster.report(session, [failed(EXPOSURES_KNOWN, error.summary, next_step="kubectl get svc,ingress -A")])
    found = [replace(item, device=device_of(item, secrets)) for item in found]
    if not found:
        nothing = f"nothing in {namespace or 'the cluster'} is exposed to the tailnet"
        return cluster.report(session, [not_tried(EXPOSURES_KNOWN, nothing, deciding=False)])
    return cluster.verify_objects(
        session,
        "On the tailnet",
        ("object", "tailnet name"),
        EXPOSURE_CHECKS,
        found,
        shown=lambda item: item.hostname,
        checks=lambda item: exposure_checks(session, item, page),
        untried_in_lab=NEEDS_TAILNET,
    )


def exposures(session: Session, namespace: str = "") -> list[Exposure]:
    """The objects that the operator serves: Services, Ingresses of its class, its own kinds. Raises `KubectlFailed`.

    The operator does not read the legacy annotation `kubernetes.io/ingress.class`.
    """
    listed = cluster.list_objects(session, "services", namespace)
    services = [obj for obj in listed if is_exposed_service(obj) or egress_target(obj)]
    ingresses = [obj for obj in cluster.list_objects(session, cluster.INGRESSES, namespace) if is_exposed_ingress(obj)]
    # The operator's own kinds have no namespace, so they show up only when the whole cluster is checked.
    kinds = [] if namespace else CUSTOM_KINDS.values()
    own = [obj for kind in kinds for obj in cluster.list_if_known(session, kind.resource)]
    return [Exposure(obj=obj) for obj in (*services, *ingresses, *own)]


def is_exposed_service(obj: Json) -> bool:
    """Whether it is annotated, or a load balancer of the operator's class, or one without a class that it serves."""
    balances = text_at(obj, "spec", "type") == "LoadBalancer"
    by_class = text_at(obj, "spec", "loadBalancerClass")
    taken_up = by_class == INGRESS_CLASS or (not by_class and condition(obj, PROXY_READY) is not None)
    return annotations_of(obj).get(EXPOSE) == "true" or (balances and taken_up)


def egress_target(obj: Json) -> str:
    """The machine on the tailnet to which an egress Service leads; empty for other Services."""
    annotations = annotations_of(obj)
    return annotations.get("tailscale.com/tailnet-fqdn") or annotations.get("tailscale.com/tailnet-ip") or ""


def is_exposed_ingress(obj: Json) -> bool:
    return text_at(obj, "spec", "ingressClassName") == INGRESS_CLASS


@dataclass(frozen=True)
class Kind:
    """A kind of object on the tailnet."""

    word: str
    """For Services and Ingresses, the word that the operator writes into the label `parent-resource-type`."""
    resource: str
    """The resource as kubectl accepts it."""
    ready: str = ""
    """The condition that the operator sets once it is done. An Ingress has none."""
    ready_in_group: str = ""
    """The condition that replaces `ready` on a ProxyGroup."""


# Source of the conditions: operator 1.102, svc-for-pg.go, egress-services-readiness.go, k8s-operator/apis/v1alpha1.
SERVICE = Kind("svc", "services", PROXY_READY, "TailscaleIngressSvcConfigured")
EGRESS = Kind("egress", "services", PROXY_READY, "TailscaleEgressSvcReady")
INGRESS = Kind("ingress", cluster.INGRESSES)
CUSTOM_KINDS = {
    "Connector": Kind("connector", "connectors.tailscale.com", "ConnectorReady"),
    "ProxyGroup": Kind("proxygroup", "proxygroups.tailscale.com", "ProxyGroupReady"),
}


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the operator recorded about a proxy's device."""

    fqdn: str = ""
    """Without the trailing dot; empty until it joined."""
    addresses: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.fqdn.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One object that the operator puts on the tailnet or, for egress, connects to it."""

    obj: Json
    device: Device | None = None
    """Its proxy's device, once the operator recorded one."""

    @property
    def joined(self) -> Device:
        """Its device, for the checks after `device_has_name`."""
        return self.device or Device()

    @property
    def kind(self) -> Kind:
        if text_at(self.obj, "kind") == "Ingress":
            return INGRESS
        return CUSTOM_KINDS.get(text_at(self.obj, "kind")) or (EGRESS if egress_target(self.obj) else SERVICE)

    @property
    def subject(self) -> str:
        namespace, name = metadata(self.obj)
        return f"{namespace or self.kind.word}/{name}"

    @property
    def entry(self) -> str:
        """The object as `exposed=` of `services.py` names it."""
        return f"{self.kind.word}/{metadata(self.obj)[1]}"

    @property
    def hostname(self) -> str:
        """The tailnet name it asks for: one DNS label, chosen as the operator chooses it. For egress, its target."""
        namespace, name = metadata(self.obj)
        if self.kind is INGRESS:
            host = text_at(self.obj, "spec", "tls", 0, "hosts", 0).partition(".")[0]
            return host or f"{namespace}-{name}-ingress"
        if self.kind is SERVICE:
            return annotations_of(self.obj).get(HOSTNAME) or f"{namespace}-{name}"
        return egress_target(self.obj) or text_at(self.obj, "spec", "hostname")

    @property
    def ports(self) -> tuple[int, ...]:
        """Its TCP ports."""
        if self.kind is INGRESS:
            return (443,)
        entries = dig(self.obj, "spec", "ports") or []
        return tuple(entry["port"] for entry in entries if entry.get("protocol", "TCP") == "TCP")

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its state Secret in the operator's namespace: the Secret's name cannot be predicted."""
        namespace, name = metadata(self.obj)
        return {PARENT: name, f"{PARENT}-ns": namespace, f"{PARENT}-type": self.kind.word}

    @property
    def selector(self) -> str:
        return ",".join([MANAGED, *(f"{label}={value}" for label, value in self.labels.items())])

    @property
    def is_in_group(self) -> bool:
        """Whether a ProxyGroup serves it. A ProxyGroup keeps no state Secret for each exposure."""
        return IN_GROUP in annotations_of(self.obj)

    @property
    def show(self) -> str:
        """The command that shows the object."""
        namespace, name = metadata(self.obj)
        where = f"-n {namespace} " if namespace else ""
        return f"kubectl {where}describe {self.kind.resource.partition('.')[0]} {name}"


def device_of(item: Exposure, secrets: Sequence[Json]) -> Device | None:
    """The device that the operator recorded in its state Secrets, preferably one that joined. `None`: none yet.

    A ProxyGroup keeps no such Secret, so its device is read from the object's status.
    """
    devices = [
        Device(fqdn=secret_value(secret, "device_fqdn").rstrip("."), addresses=_addresses(secret))
        for secret in secrets
        if item.labels.items() <= (dig(secret, "metadata", "labels") or {}).items()
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


def address_of(item: Exposure, kind: str) -> str:
    """The `hostname` or `ip` in its status; empty if it has none."""
    return text_at(item.obj, "status", "loadBalancer", "ingress", 0, kind)


def exposure_checks(
    session: Session, item: Exposure, page: Page | None = None, name: Callable[[], str] | None = None
) -> list[Check]:
    """The checks from the exported name to HTTP. `name`: what clients use, if it is not the device's full name.

    Those in the cluster judge the object as it was read last; if that fails, they read it again and judge it anew. An
    item without `spec` was not read yet.
    """
    service, seen = exporter_of(session, item), [item] if "spec" in item.obj else []

    def in_cluster(check: str, judge: Callable[[Exposure], Finding], wait: float = 0.0) -> Check:
        def look() -> Finding:
            found = judge(seen[-1]) if seen else None
            if found and found.state is not State.FAILED:
                return found
            now = read_again(session, item)
            if now is None:
                return failed(
                    check, f"{item.subject} is gone", cause=cluster.NOT_THERE, next_step=item.show, final=True
                )
            seen.append(now)
            return judge(now)

        return cluster.make_check(session, check, look, wait=wait)

    checks = [in_cluster(PROXY_IS_READY, proxy_is_ready, PROXY_TAKES)]
    if service:
        checks.insert(0, in_cluster(NAME_AS_EXPORTED, lambda now: asks_for_exported_name(session, now, service)))
    # Only exposed Services and Ingresses have a name that clients connect to.
    if item.kind not in (SERVICE, INGRESS):
        return checks
    checks.append(in_cluster(DEVICE_HAS_NAME, device_has_name, PROXY_TAKES))
    reach = [DEVICE_IS_PEER, NAME_RESOLVES, PORT_CONNECTS, *([HTTP_ANSWERS] if item.kind is INGRESS else [])]
    if session.target.ephemeral:
        return checks + [cluster.untried(check) for check in reach]
    judges: dict[str, Callable[[Device], Finding]] = {
        DEVICE_IS_PEER: lambda device: device_is_peer(device, session.runner),
        NAME_RESOLVES: lambda device: name_resolves(name() if name else device.fqdn, device),
        PORT_CONNECTS: lambda device: port_connects(device.fqdn, seen[-1].ports),
        HTTP_ANSWERS: lambda device: http_answers(device.fqdn, page or first_page(seen[-1])),
    }

    def on_network(check: str) -> Check:
        # The peer check does not decide: it needs a `tailscale` command here, and the next checks try the connection.
        deciding = check != DEVICE_IS_PEER
        wait = CERTIFICATE_TAKES if check == HTTP_ANSWERS else NETWORK_TAKES
        return cluster.make_check(session, check, lambda: judges[check](seen[-1].joined), deciding=deciding, wait=wait)

    return checks + [on_network(check) for check in reach]


def read_again(session: Session, item: Exposure) -> Exposure | None:
    """The object and its device as the cluster has them now; `None` when it is gone. Raises `KubectlFailed`."""
    namespace, name = metadata(item.obj)
    obj = cluster.find_object(session, item.kind.resource, name, namespace)
    if obj is None:
        return None
    now = Exposure(obj=obj)
    secrets = cluster.list_objects(session, "secrets", operator_of(session).namespace, now.selector)
    return replace(now, device=device_of(now, secrets))


def exporter_of(session: Session, item: Exposure) -> Service | None:
    """The service whose stack exports the object's name, or may export it: a stack that cannot be read.

    Its namespace is not known then, as its config may have moved it. The check of the name is then not tried.
    """
    namespace, _ = metadata(item.obj)
    may_export = None
    for service in session.services:
        if item.entry not in service.exposed:
            continue
        try:
            exported = exports_of(session, service).get("k8s_namespace")
        except OpsError:
            may_export = service
        else:
            if namespace == (exported or service.namespace):
                return service
    return may_export


# --- the checks of one object, in their order --------------------------------------------------------------------


def asks_for_exported_name(session: Session, item: Exposure, service: Service) -> Finding:
    """It asks for the exported name, which is a name, an address with a port or a URL; its first label counts.

    Without this check a name changed by hand would pass: the device takes that name, but clients use the exported one.
    """
    output = service.exposed[item.entry]
    try:
        exported = exports_of(session, service).get(output)
    except OpsError as error:
        why = f"the stack of {service.name} cannot be read: {error.summary}"
        return not_tried(NAME_AS_EXPORTED, why, next_step=error.next_step)
    if not isinstance(exported, str):
        return not_tried(NAME_AS_EXPORTED, f"the stack of {service.name} does not export {output}", deciding=False)
    evidence = f"it asks for {item.hostname}, {output} is {exported}"
    label = re.split(r"[./:]", exported.partition("://")[2] or exported)[0]
    if label.casefold() != item.hostname.casefold():
        cause = f"the stack's output and the object disagree, so verify {output}; was the object changed by hand?"
        return failed(NAME_AS_EXPORTED, evidence, cause=cause, next_step=f"./inv repair.{service.name}")
    return passed(NAME_AS_EXPORTED, evidence)


def proxy_is_ready(item: Exposure) -> Finding:
    """Its condition (`Kind.ready`) is true; an Ingress has a hostname in its status. Neither proves a connection."""
    cause = NO_PROXY if item.kind is SERVICE else "the operator has not finished it: its conditions and events say why"
    if dig(item.obj, "metadata", "deletionTimestamp"):
        evidence = f"{item.subject} is terminating"
        cause = "it is being deleted and waits until the operator removes its finalizer"
    elif item.kind is not INGRESS:
        wanted = item.kind.ready_in_group if item.is_in_group else item.kind.ready
        found = condition(item.obj, wanted)
        if text_at(item.obj, "spec", "clusterIP") == "None":
            evidence = "the Service is headless"
        elif found is None or not found.is_true:
            # Why an object on a ProxyGroup is refused stands in another condition, TailscaleIngressSvcValid.
            not_true = [str(each) for each in conditions(item.obj) if not each.is_true]
            evidence = "; ".join(([] if found else [f"no condition {wanted}"]) + not_true)
            if item.kind is SERVICE and item.is_in_group:
                cause = NO_GROUP.format(group=annotations_of(item.obj)[IN_GROUP])
            # The operator's words for a proxy Pod that runs and is not logged in yet.
            cause = NOT_JOINED if "finish auth" in evidence else cause
        else:
            return passed(PROXY_IS_READY, str(found))
    elif ignored := _ignored_hosts(item):
        cause = "HTTP 404 via the Tailscale Ingress: rules[].host must be empty or the same text as tls[0].hosts[0]"
        evidence = f"the operator ignores the rules for {', '.join(ignored)}"
    elif hostname := address_of(item, "hostname"):
        return passed(PROXY_IS_READY, hostname)
    else:
        cause = f"{NO_CONTROLLER}; it makes no proxy for a backend whose Service or port does not exist"
        evidence = "no hostname in status.loadBalancer.ingress"
    return failed(PROXY_IS_READY, evidence, cause=cause, next_step=item.show)


def _ignored_hosts(item: Exposure) -> list[str]:
    """The hosts of rules that the operator skips, if it skips every rule and nothing else is left to serve."""
    if dig(item.obj, "spec", "defaultBackend") or item.is_in_group:
        return []
    wanted = text_at(item.obj, "spec", "tls", 0, "hosts", 0)
    hosts = [text_at(rule, "host") for rule in dig(item.obj, "spec", "rules") or []]
    ignored = [host for host in hosts if host and host.casefold() != wanted.casefold()]
    return ignored if len(ignored) == len(hosts) else []


def device_has_name(item: Exposure) -> Finding:
    """The device's name begins with the wanted name, without a `-1` that the tailnet added."""
    step, device = f"kubectl get pods,secrets -A -l {item.selector}", item.device
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


def device_is_peer(device: Device, runner: Runner) -> Finding:
    """The device is in `tailscale status --json`, matched by `DNSName`, and not expired. `Online` decides nothing."""
    try:
        status = network.tailscale_status(runner)
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


def name_resolves(name: str, device: Device) -> Finding:
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


def port_connects(name: str, ports: Sequence[int]) -> Finding:
    """Every port takes a TCP connection."""
    if not ports:
        return not_tried(PORT_CONNECTS, "it has no TCP port", deciding=False)
    for port in ports:
        try:
            network.connect(name, port)
        except OSError as error:
            cause = "the Service has no ready endpoints" if isinstance(error, ConnectionRefusedError) else NO_GRANT
            return failed(PORT_CONNECTS, f"{name}:{port}: {error}", cause=cause, next_step=f"nc -vz {name} {port}")
    return passed(PORT_CONNECTS, ", ".join(f"{name}:{port}" for port in ports))


LOGIN_WANTED = (401, 403)


def first_page(item: Exposure) -> Page:
    """The page to request: `/`, or the first path of an Ingress that does not serve `/`."""
    path = text_at(item.obj, "spec", "rules", 0, "http", "paths", 0, "path")
    return Page(path="/" if dig(item.obj, "spec", "defaultBackend") else path or "/")


def http_answers(name: str, page: Page) -> Finding:
    """The app answers with a status below 400 and the page's marker. Without a marker, a login prompt passes too."""
    url = f"https://{name}{page.path}"
    try:
        answer = network.fetch(url)
    except OSError as error:
        cause = "HTTPS certificates may be off in the tailnet, or the app does not answer"
        return failed(HTTP_ANSWERS, f"{url}: {error}", cause=cause, next_step=f"curl -v {url}")
    evidence = f"{url}: status {answer.status}"
    if answer.status == 404:
        cause = "HTTP 404 via the Tailscale Ingress: check its rules and backend Service, and that the app is listening"
    elif answer.status >= 400 and (page.marker or answer.status not in LOGIN_WANTED):
        cause = "the proxy works; the app behind it answers with an error, or not at all"
    elif page.marker not in answer.body:
        cause = "another app answers at this name"
        evidence += f", without {page.marker!r}"
    else:
        return passed(HTTP_ANSWERS, evidence)
    return failed(HTTP_ANSWERS, evidence, cause=cause, next_step=f"curl -v {url}")


# --- for the checks of one app ------------------------------------------------------------------------------------


def all_are_exposed(session: Session, service: Service) -> Check:
    """The cluster agrees with `exposed=` of `services.py`; otherwise a missing exposure would go unnoticed."""

    def judge() -> Finding:
        found = exposures(session, service.namespace)
        missing = sorted(set(service.exposed) - {item.entry for item in found})
        if missing:
            cause = "annotations or ingressClassName are not what the operator looks for, or the object does not exist"
            step = f"kubectl -n {service.namespace} get svc,ingress"
            return failed(ALL_EXPOSED, f"not exposed: {', '.join(missing)}", cause=cause, next_step=step)
        return passed(ALL_EXPOSED, ", ".join(sorted(service.exposed)))

    return cluster.make_check(session, ALL_EXPOSED, judge)
