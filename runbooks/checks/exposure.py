"""Proof that something is reachable over the tailnet, check by check: operator, proxy, device, peer, name, connection.

The condition `TailscaleProxyReady` turns True before the device has joined, so it proves nothing alone. Facts from the
Tailscale operator's sources (cmd/k8s-operator: svc.go, ingress.go, sts.go) and its chart 1.102.3. Functions here look
at objects as `kubectl get -o json` and `tailscale status --json` give them; what touches the network comes in as
`Network`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from runbooks.checks.workloads import secret_value
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.tools.kubectl import Json, annotations_of, condition, dig, items, metadata, text_at
from runbooks.tools.network import Network

OPERATOR_DEPLOYMENT = "operator"
INGRESS_CLASS = "tailscale"
INGRESS_CONTROLLER = "tailscale.com/ts-ingress"
EXPOSE = "tailscale.com/expose"
HOSTNAME = "tailscale.com/hostname"
PROXY_GROUP = "tailscale.com/proxy-group"
PROXY_READY = "TailscaleProxyReady"
MANAGED = "tailscale.com/managed=true"
PARENT = "tailscale.com/parent-resource"

OPERATOR_AVAILABLE = "the Tailscale operator is available"
PROXY_IS_READY = "the operator made a proxy for it"
DEVICE_HAS_NAME = "its device joined the tailnet under the wanted name"
DEVICE_IS_PEER = "this machine sees the device as a peer"
NAME_RESOLVES = "its name resolves to the device's address"
PORT_CONNECTS = "its port answers a TCP connection"
HTTP_ANSWERS = "it answers HTTP"
RUNGS = (
    OPERATOR_AVAILABLE,
    PROXY_IS_READY,
    DEVICE_HAS_NAME,
    DEVICE_IS_PEER,
    NAME_RESOLVES,
    PORT_CONNECTS,
    HTTP_ANSWERS,
)
NEEDS_TAILNET = frozenset({DEVICE_IS_PEER, NAME_RESOLVES, PORT_CONNECTS, HTTP_ANSWERS})
"""The checks that only a machine on the tailnet can try."""

NO_PROXY = (
    "no proxy Pod was created: ensure that the annotations are present, the operator is healthy and the Service is "
    "routable (a ClusterIP or LoadBalancer, not headless)"
)
NO_CONTROLLER = "Ingress not reachable: check that ingressClassName is `tailscale` and that the operator is healthy"
NOT_JOINED = "the proxy did not join the tailnet: check the OAuth client's scopes and tags, and device approval"
NO_RESOLUTION = "cannot resolve the name: verify the tailnet's MagicDNS, and that `tailscale.com/hostname` matches"
NO_GRANT = "the tailnet's ACLs grant this machine no access, or the proxy Pod is gone"


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
    def show(self) -> str:
        """The command that shows it."""
        kind = "svc" if self.kind is Kind.SERVICE else "ingress"
        return f"kubectl -n {self.namespace} describe {kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the operator wrote down about a proxy's device."""

    fqdn: str
    """Without the trailing dot; empty until it joined."""
    addresses: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.fqdn.partition(".")[0]


# --- which objects are exposed -----------------------------------------------------------------------------------


def exposed_services(answer: Json) -> list[Exposure]:
    """The Services in a list that the operator exposes: annotated, or of its load balancer class."""
    return [exposure_of(obj) for obj in items(answer) if is_exposed_service(obj)]


def exposed_ingresses(answer: Json) -> list[Exposure]:
    """The Ingresses of the operator's class (the legacy class annotation is not read by it)."""
    return [exposure_of(obj) for obj in items(answer) if text_at(obj, "spec", "ingressClassName") == INGRESS_CLASS]


def is_exposed_service(obj: Json) -> bool:
    by_class = (
        text_at(obj, "spec", "type") == "LoadBalancer" and text_at(obj, "spec", "loadBalancerClass") == INGRESS_CLASS
    )
    return annotations_of(obj).get(EXPOSE) == "true" or by_class


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


# --- checks that read the cluster ---------------------------------------------------------------------------------


def proxy_is_ready(exposure: Exposure) -> Finding:
    """Service: condition `TailscaleProxyReady`. Ingress: a hostname in its status. Neither proves a connection."""
    if dig(exposure.obj, "metadata", "deletionTimestamp"):
        cause = "it is being deleted, and waits for the operator to take its finalizer away"
        return failed(PROXY_IS_READY, f"{exposure.subject} is terminating", cause=cause, next_step=exposure.show)
    return _service_is_ready(exposure) if exposure.kind is Kind.SERVICE else _ingress_is_ready(exposure)


def _service_is_ready(exposure: Exposure) -> Finding:
    if text_at(exposure.obj, "spec", "clusterIP") == "None":
        return failed(PROXY_IS_READY, "the Service is headless", cause=NO_PROXY, next_step=exposure.show)
    found = condition(exposure.obj, PROXY_READY)
    if found is None:
        return failed(PROXY_IS_READY, f"no condition {PROXY_READY}", cause=NO_PROXY, next_step=exposure.show)
    if not found.is_true:
        return failed(PROXY_IS_READY, str(found), cause=NO_PROXY, next_step=exposure.show)
    return passed(PROXY_IS_READY, str(found))


def _ingress_is_ready(exposure: Exposure) -> Finding:
    ignored = _ignored_hosts(exposure)
    if ignored:
        cause = "HTTP 404 via the Tailscale Ingress: rules[].host must be empty or the same text as tls[0].hosts[0]"
        told = f"the operator ignores the rules for {', '.join(ignored)}"
        return failed(PROXY_IS_READY, told, cause=cause, next_step=exposure.show)
    hostname = ingress_hostname(exposure)
    if not hostname:
        told = "no hostname in status.loadBalancer.ingress"
        return failed(PROXY_IS_READY, told, cause=NO_CONTROLLER, next_step=exposure.show)
    return passed(PROXY_IS_READY, hostname)


def _ignored_hosts(exposure: Exposure) -> list[str]:
    """Hosts of rules the operator skips, when every rule is one of those and nothing else is left to serve."""
    if dig(exposure.obj, "spec", "defaultBackend"):
        return []
    wanted = text_at(exposure.obj, "spec", "tls", 0, "hosts", 0)
    hosts = [text_at(rule, "host") for rule in dig(exposure.obj, "spec", "rules") or []]
    ignored = [host for host in hosts if host and host != wanted]
    grouped = PROXY_GROUP in annotations_of(exposure.obj)
    return ignored if ignored and len(ignored) == len(hosts) and not grouped else []


def ingress_hostname(exposure: Exposure) -> str:
    return text_at(exposure.obj, "status", "loadBalancer", "ingress", 0, "hostname")


def device_of(exposure: Exposure, secrets: Json) -> Device | None:
    """The device that the operator recorded for it; `None` when it recorded nothing yet.

    A proxy group keeps no such Secret: there the Ingress's status is all there is.
    """
    devices = [
        Device(fqdn=secret_value(secret, "device_fqdn").rstrip("."), addresses=_addresses(secret))
        for secret in items(secrets)
    ]
    joined = [device for device in devices if device.fqdn]
    if joined:
        return joined[0]
    if devices:
        return devices[0]
    if exposure.kind is Kind.INGRESS and PROXY_GROUP in annotations_of(exposure.obj) and ingress_hostname(exposure):
        return Device(fqdn=ingress_hostname(exposure))
    return None


def _addresses(secret: Json) -> tuple[str, ...]:
    try:
        found = json.loads(secret_value(secret, "device_ips") or "[]")
    except ValueError:
        return ()
    return tuple(str(address) for address in found) if isinstance(found, list) else ()


def device_has_name(exposure: Exposure, secrets: Json) -> Finding:
    """`device_fqdn` is in the state Secret and begins with the wanted name, without a `-1` of the tailnet's making."""
    look = f"kubectl get pods,secrets -A -l {exposure.labels}"
    found = items(secrets)
    device = device_of(exposure, secrets)
    if device is None:
        told = "no state Secret carries its labels"
        return failed(DEVICE_HAS_NAME, told, cause=NO_PROXY, next_step=look)
    if not device.fqdn:
        told = f"state Secret {metadata(found[0])[1]} has no device_fqdn yet"
        return failed(DEVICE_HAS_NAME, told, cause=NOT_JOINED, next_step=look)
    if re.fullmatch(re.escape(exposure.hostname) + r"-\d+", device.label):
        cause = (
            f"another device of the tailnet holds the name {exposure.hostname!r}, perhaps one of an earlier operator"
        )
        next_step = "remove the old device in the Tailscale admin console, then delete this proxy's state"
        return failed(DEVICE_HAS_NAME, f"the device is called {device.fqdn}", cause=cause, next_step=next_step)
    if device.label != exposure.hostname:
        cause = "the proxy has not taken up a changed name, or `tailscale.com/hostname` is not what you meant"
        told = f"the device is called {device.fqdn}, not {exposure.hostname}"
        return failed(DEVICE_HAS_NAME, told, cause=cause, next_step=exposure.show)
    return passed(DEVICE_HAS_NAME, ", ".join((device.fqdn, *device.addresses)))


# --- checks that need a machine on the tailnet --------------------------------------------------------------------


def device_is_peer(device: Device, status: Json | None) -> Finding:
    """The device is in `tailscale status --json`, matched by `DNSName`, and not expired. `Online` decides nothing."""
    if status is None:
        why = "there is no `tailscale` command here; the earlier checks decide"
        return not_tried(DEVICE_IS_PEER, why, deciding=False)
    state = text_at(status, "BackendState")
    if state != "Running":
        cause = "tailscale is not connected on this machine"
        return failed(
            DEVICE_IS_PEER, f"tailscale is {state or 'in no known state'}", cause=cause, next_step="tailscale up"
        )
    peers = dig(status, "Peer")
    for peer in peers.values() if isinstance(peers, dict) else []:
        if text_at(peer, "DNSName").rstrip(".").casefold() == device.fqdn.casefold():
            return _peer_counts(peer)
    told = f"{device.fqdn} is not among its {len(peers or {})} peers"
    return failed(DEVICE_IS_PEER, told, cause=NO_GRANT, next_step="tailscale status")


def _peer_counts(peer: Json) -> Finding:
    name = text_at(peer, "DNSName").rstrip(".")
    if dig(peer, "Expired") is True:
        cause = "the device's key expired: tagged devices have no expiry, so its tags may be gone"
        return failed(DEVICE_IS_PEER, f"{name} is expired", cause=cause, next_step="tailscale status")
    online = "online" if dig(peer, "Online") is True else "not online, as the control plane sees it"
    return passed(DEVICE_IS_PEER, f"{name}, {online}")


def name_resolves(name: str, device: Device, network: Network) -> Finding:
    """The name resolves, and one of the answers is the device's own address."""
    try:
        answers = network.resolve(name)
    except OSError as error:
        return failed(NAME_RESOLVES, f"{name}: {error}", cause=NO_RESOLUTION, next_step=f"dig {name}")
    if device.addresses and not set(answers) & set(device.addresses):
        cause = "another machine answers to this name: a device of that name outside the operator, or a stale DNS entry"
        told = f"{name} is {', '.join(answers)}; the device is {', '.join(device.addresses)}"
        return failed(NAME_RESOLVES, told, cause=cause, next_step=f"dig {name}")
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
    next_step = f"curl -v {url}"
    try:
        answer = network.fetch(url)
    except OSError as error:
        cause = "HTTPS certificates may be off in the tailnet, or the app does not answer"
        return failed(HTTP_ANSWERS, f"{url}: {error}", cause=cause, next_step=next_step)
    if answer.status == 404:
        cause = "HTTP 404 via the Tailscale Ingress: check its rules and backend Service, and that the app is listening"
        return failed(HTTP_ANSWERS, f"{url}: status 404", cause=cause, next_step=next_step)
    if answer.status >= 400:
        cause = "the proxy is there; the app behind it answers with an error, or not at all"
        return failed(HTTP_ANSWERS, f"{url}: status {answer.status}", cause=cause, next_step=next_step)
    if marker and marker not in answer.body:
        cause = "something else answers at this name"
        return failed(
            HTTP_ANSWERS, f"{url}: status {answer.status}, without {marker!r}", cause=cause, next_step=next_step
        )
    return passed(HTTP_ANSWERS, f"{url}: status {answer.status}")
