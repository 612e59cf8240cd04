"""Tailscale's operator: Services and Ingresses on the tailnet, as far as the cluster's objects show it.

Works only while the operator's Deployment is available and its Secret `operator-oauth` exists. Every device of the
lab's tailnet `lab.ts.net` answers on 127.0.0.1. Names, labels, conditions and messages as operator 1.102.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.operators.api import (
    DEPLOYMENT,
    INGRESS,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Api,
    Kind,
    Object,
    decode,
    encode,
    is_true,
    runs,
    with_condition,
)
from lab.operators.finalizers import add_finalizer, has_finalizer, remove_finalizer
from lab.operators.work import Work

log = logging.getLogger("lab.operators.tailscale")

MANAGER = "tailscale-operator"
NAMESPACE = "tailscale"
TAILNET = "lab.ts.net"
DEVICE_IP = "127.0.0.1"
FINALIZER = "tailscale.com/finalizer"
READY = "TailscaleProxyReady"
MANAGED = "tailscale.com/managed"
PARENT = "tailscale.com/parent-resource"
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
NO_DEVICE = "no Tailscale hostname known yet, waiting for proxy pod to finish auth"
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of Kubernetes' generated names."""
ASKED_FOR = "lab.homelab-ops/hostname"
"""Annotation of a state Secret: the name that was asked for, whatever name the device got."""
RETRY = 2.0


@dataclass(frozen=True)
class Exposure:
    """One thing on the tailnet: the object it belongs to and the name it asks for."""

    parent: Object
    type: str
    """`svc` or `ingress`, as in the labels."""
    hostname: str
    https: bool = False

    @property
    def labels(self) -> dict[str, str]:
        meta = self.parent["metadata"]
        return labels_of(meta["namespace"], meta["name"], self.type)


@dataclass(frozen=True)
class Device:
    """A machine of the tailnet; `fqdn` without the dot at the end."""

    fqdn: str
    ips: tuple[str, ...]


def labels_of(namespace: str, name: str, kind: str) -> dict[str, str]:
    return {MANAGED: "true", PARENT: name, f"{PARENT}-ns": namespace, f"{PARENT}-type": kind}


class Proxies:
    """What the operator makes in its own namespace for an exposure: StatefulSet, headless Service, state Secret."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._naming = threading.Lock()

    def operator_is_ready(self) -> bool:
        """Its Deployment is available and has its login; without the Secret no real pod would start."""
        found = [
            deployment
            for deployment in self._api.list(DEPLOYMENT, NAMESPACE)
            if deployment["metadata"]["name"] == "operator"
            or (deployment["metadata"].get("labels") or {}).get("app") == "operator"
        ]
        if not any(runs(deployment) for deployment in found):
            return False
        return self._api.get(SECRET, NAMESPACE, "operator-oauth") is not None

    def provision(self, exposure: Exposure) -> Device | None:
        """Make or keep the proxy; its device once the proxy's pod is ready, None until then."""
        found = self._api.list(STATEFUL_SET, NAMESPACE, exposure.labels)
        name = found[0]["metadata"]["name"] if found else _generated_name(exposure)
        for wanted in (_headless_service(name, exposure), _stateful_set(name, exposure)):
            self._api.apply(wanted, MANAGER)
        pod = self._api.get(POD, NAMESPACE, f"{name}-0")
        joined = pod is not None and is_true(pod, "Ready")
        with self._naming:
            return self._keep_state(f"{name}-0", exposure, pod if joined else None)

    def _keep_state(self, name: str, exposure: Exposure, pod: Object | None) -> Device | None:
        """Write the state Secret; the device joins with its pod and takes a new name when another is asked for."""
        found = self._api.get(SECRET, NAMESPACE, name)
        values = decode(found)
        asked = (found or {"metadata": {}})["metadata"].get("annotations") or {}
        fqdn = values.get("device_fqdn", "").rstrip(".")
        if pod is not None and asked.get(ASKED_FOR) != exposure.hostname:
            fqdn = self._free_name(exposure.hostname, name)
            values |= _device(fqdn, pod)
            values["https_endpoint"] = fqdn if exposure.https else "no-https"
            asked = {ASKED_FOR: exposure.hostname}
        meta = {"name": name, "namespace": NAMESPACE, "labels": exposure.labels, "annotations": asked}
        self._api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encode(values)}, MANAGER)
        return Device(fqdn, tuple(json.loads(values["device_ips"]))) if fqdn else None

    def _free_name(self, hostname: str, state: str) -> str:
        """`<hostname>.<tailnet>`, with a number where another device has the name."""
        others = [
            decode(secret).get("device_fqdn", "").rstrip(".")
            for secret in self._api.list(SECRET, NAMESPACE, {MANAGED: "true"})
            if secret["metadata"]["name"] != state
        ]
        names = (f"{hostname}{suffix}.{TAILNET}" for suffix in ("", *(f"-{number}" for number in range(1, 1000))))
        return next(name for name in names if name not in others)

    def remove(self, namespace: str, name: str, kind: str) -> bool:
        """Delete what belongs to an exposure; True once nothing is left."""
        left = False
        for resource in (STATEFUL_SET, SERVICE, SECRET):
            for found in self._api.list(resource, NAMESPACE, labels_of(namespace, name, kind)):
                left = True
                if not found["metadata"].get("deletionTimestamp"):
                    self._api.delete(resource, NAMESPACE, found["metadata"]["name"])
        return not left


def _generated_name(exposure: Exposure) -> str:
    suffix = "".join(secrets.choice(ALPHABET) for _ in range(5))
    return f"ts-{exposure.parent['metadata']['name'][:40]}-{suffix}"


def _headless_service(name: str, exposure: Exposure) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": exposure.labels},
        "spec": {"clusterIP": "None", "selector": {"app": exposure.parent["metadata"]["uid"]}},
    }


def _stateful_set(name: str, exposure: Exposure) -> Object:
    app = {"app": exposure.parent["metadata"]["uid"]}
    environment = {"TS_KUBE_SECRET": f"{name}-0", "TS_HOSTNAME": exposure.hostname}
    container = {
        "name": "tailscale",
        "image": "tailscale/tailscale:stable",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": {"privileged": True},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": exposure.labels},
        "spec": {
            "replicas": 1,
            "serviceName": name,
            "selector": {"matchLabels": app},
            "template": {
                "metadata": {"labels": app | exposure.labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def _device(fqdn: str, pod: Object) -> dict[str, str]:
    return {
        "device_id": f"n{secrets.token_hex(8)}CNTRL",
        "device_fqdn": f"{fqdn}.",
        "device_ips": json.dumps([DEVICE_IP]),
        "tailscale_capver": "125",
        "pod_uid": pod["metadata"]["uid"],
    }


def annotation(thing: Object, name: str) -> str:
    return str((thing["metadata"].get("annotations") or {}).get(f"tailscale.com/{name}") or "")


class Services:
    """The controller of exposed Services."""

    def __init__(self, api: Api, proxies: Proxies) -> None:
        self._api = api
        self._proxies = proxies

    def reconcile(self, namespace: str, name: str) -> float | None:
        service = self._api.get(SERVICE, namespace, name)
        if service is None or annotation(service, "proxy-group"):
            return None
        leaving = bool(service["metadata"].get("deletionTimestamp")) or not is_exposed(service)
        if leaving and not has_finalizer(service, FINALIZER) and not _condition(service):
            return None
        if not self._proxies.operator_is_ready():
            return None
        return self._clean_up(service) if leaving else self._provision(service)

    def _provision(self, service: Object) -> float | None:
        violations = violations_of(service)
        if violations:
            message = f"unable to provision proxy resources: invalid Service: {', '.join(violations)}"
            if _condition(service) != ("ProxyInvalid", message):
                self._api.warn(service, "INVALIDSERVICE", message, MANAGER)
            self._report(service, ok=False, reason="ProxyInvalid", message=message)
            return None
        service = add_finalizer(self._api, service, FINALIZER, MANAGER)
        device = self._proxies.provision(Exposure(service, "svc", hostname_of_service(service)))
        if not _has_own_class(service):
            self._report(service, ok=True, reason="ProxyCreated", message="ProxyCreated")
        elif device is None:
            self._report(service, ok=False, reason="ProxyPending", message=NO_DEVICE, ingress=[])
        else:
            ingress = [{"hostname": device.fqdn}, *({"ip": ip, "ipMode": "VIP"} for ip in device.ips)]
            self._report(service, ok=True, reason="ProxyCreated", message="ProxyCreated", ingress=ingress)
        return RETRY if device is None else None

    def _clean_up(self, service: Object) -> float | None:
        meta = service["metadata"]
        if has_finalizer(service, FINALIZER):
            if not self._proxies.remove(meta["namespace"], meta["name"], "svc"):
                return 0.2
            remove_finalizer(self._api, service, FINALIZER, MANAGER)
            return 0.0
        conditions = (service.get("status") or {}).get("conditions") or []
        kept = [entry for entry in conditions if entry.get("type") != READY]
        self._api.patch(service, {"status": {"conditions": kept}}, MANAGER, status=True)
        return None

    def _report(
        self, service: Object, *, ok: bool, reason: str, message: str, ingress: list[Object] | None = None
    ) -> None:
        status = service.get("status") or {}
        condition = {"type": READY, "status": "True" if ok else "False", "reason": reason, "message": message}
        condition["observedGeneration"] = service["metadata"].get("generation", 0)
        before = status.get("conditions") or []
        after = with_condition(before, condition)
        change: Object = {} if after == before else {"conditions": after}
        if ingress is not None and ((status.get("loadBalancer") or {}).get("ingress") or []) != ingress:
            change["loadBalancer"] = {"ingress": ingress}
        if change:
            self._api.patch(service, {"status": change}, MANAGER, status=True)


def _has_own_class(service: Object) -> bool:
    spec = service["spec"]
    return bool(spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") == "tailscale")


def is_exposed(service: Object) -> bool:
    return annotation(service, "expose") == "true" or _has_own_class(service) or _is_egress(service)


def _is_egress(service: Object) -> bool:
    return bool(annotation(service, "tailnet-fqdn") or annotation(service, "tailnet-ip"))


def _condition(service: Object) -> tuple[str, str] | None:
    for entry in (service.get("status") or {}).get("conditions") or []:
        if entry.get("type") == READY:
            return str(entry.get("reason")), str(entry.get("message"))
    return None


def hostname_of_service(service: Object) -> str:
    meta = service["metadata"]
    return annotation(service, "hostname") or f"{meta['namespace']}-{meta['name']}"


def violations_of(service: Object) -> list[str]:
    """Why a Service cannot be exposed, in the operator's words."""
    found = []
    if service["spec"].get("clusterIP") == "None":
        found.append("headless Services are not supported.")
    if _is_egress(service):
        found.append("the lab does not know egress (tailscale.com/tailnet-fqdn, tailscale.com/tailnet-ip).")
    hostname = hostname_of_service(service)
    if not LABEL.fullmatch(hostname):
        problem = "is not a valid DNS label"
        if annotation(service, "hostname"):
            found.append(f'invalid Tailscale hostname specified "{hostname}": {problem}')
        else:
            how = 'use "tailscale.com/hostname" annotation to override'
            found.append(f'invalid Tailscale hostname "{hostname}", {how}: {problem}')
    tags = [tag.strip() for tag in annotation(service, "tags").split(",") if tag.strip()]
    found += [f'invalid tag "{tag}": tags must start with "tag:"' for tag in tags if not tag.startswith("tag:")]
    return found


class Ingresses:
    """The controller of Ingresses of class `tailscale`."""

    def __init__(self, api: Api, proxies: Proxies) -> None:
        self._api = api
        self._proxies = proxies

    def reconcile(self, namespace: str, name: str) -> float | None:
        ingress = self._api.get(INGRESS, namespace, name)
        if ingress is None:
            return None
        ours = ingress["spec"].get("ingressClassName") == "tailscale" and not annotation(ingress, "proxy-group")
        leaving = bool(ingress["metadata"].get("deletionTimestamp")) or not ours
        if leaving and not has_finalizer(ingress, FINALIZER):
            return None
        if not self._proxies.operator_is_ready():
            return None
        return self._clean_up(ingress) if leaving else self._provision(ingress)

    def _provision(self, ingress: Object) -> float | None:
        ingress = add_finalizer(self._api, ingress, FINALIZER, MANAGER)
        if not self._has_backends(ingress):
            self._api.warn(ingress, "NoValidBackends", "no valid backends", MANAGER)
            return None
        device = self._proxies.provision(Exposure(ingress, "ingress", hostname_of_ingress(ingress), https=True))
        ports = [{"protocol": "TCP", "port": 443}]
        wanted = [{"hostname": device.fqdn, "ports": ports}] if device else []
        if (((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []) != wanted:
            self._api.patch(ingress, {"status": {"loadBalancer": {"ingress": wanted}}}, MANAGER, status=True)
        return RETRY if device is None else None

    def _clean_up(self, ingress: Object) -> float | None:
        meta = ingress["metadata"]
        if not self._proxies.remove(meta["namespace"], meta["name"], "ingress"):
            return 0.2
        remove_finalizer(self._api, ingress, FINALIZER, MANAGER)
        return None

    def _has_backends(self, ingress: Object) -> bool:
        """Whether anything is left to proxy; what is left out is told as an Event, as the operator does."""
        backends = [("/", ingress["spec"]["defaultBackend"])] if ingress["spec"].get("defaultBackend") else []
        host = tls_host(ingress)
        for rule in ingress["spec"].get("rules") or ():
            if rule.get("host") and rule["host"] != host:
                message = f'rule with host "{rule["host"]}" ignored, unsupported'
                self._api.warn(ingress, "InvalidIngressBackend", message, MANAGER)
                continue
            paths = (rule.get("http") or {}).get("paths") or ()
            backends += [(path.get("path") or "/", path["backend"]) for path in paths]
        good = [self._is_usable(ingress, path, backend) for path, backend in backends]
        return any(good)

    def _is_usable(self, ingress: Object, path: str, backend: Mapping[str, Any]) -> bool:
        problem = self._problem(ingress["metadata"]["namespace"], path, backend)
        if problem:
            self._api.warn(ingress, "InvalidIngressBackend", problem, MANAGER)
        return not problem

    def _problem(self, namespace: str, path: str, backend: Mapping[str, Any]) -> str:
        wanted = backend.get("service")
        if not wanted:
            return f'backend for path "{path}" is missing service'
        service = self._api.get(SERVICE, namespace, wanted["name"])
        if service is None:
            missing = f'Service "{wanted["name"]}" not found'
            return f'failed to get service "{wanted["name"]}" for path "{path}": {missing}'
        if service["spec"].get("clusterIP") in (None, "", "None"):
            return f'backend for path "{path}" has invalid ClusterIP'
        port = wanted.get("port") or {}
        named = {entry.get("name"): entry["port"] for entry in service["spec"].get("ports") or ()}
        if not (port.get("number") or named.get(port.get("name"))):
            return f'backend for path "{path}" has invalid port'
        return ""


def tls_host(ingress: Object) -> str:
    """`tls[0].hosts[0]`, the only place a name is taken from; empty without one."""
    tls = ingress["spec"].get("tls") or [{}]
    hosts = tls[0].get("hosts") or [""]
    return str(hosts[0])


def hostname_of_ingress(ingress: Object) -> str:
    meta = ingress["metadata"]
    return tls_host(ingress).partition(".")[0] or f"{meta['namespace']}-{meta['name']}-ingress"


class Exposures:
    """Asks for a look at everything exposed, when the operator comes or goes."""

    def __init__(self, api: Api, work: Work) -> None:
        self._api = api
        self._work = work

    def backend_changed(self, namespace: str, _name: str) -> None:
        """Ask for a look at the Ingresses beside a Service; it may be what they wait for."""
        for found in self._api.list(INGRESS, namespace):
            self._work.add("ingress", namespace, found["metadata"]["name"])

    def reconcile_all(self, _namespace: str, _name: str) -> None:
        chosen: list[tuple[str, Kind]] = [("service", SERVICE), ("ingress", INGRESS)]
        for controller, kind in chosen:
            for found in self._api.list(kind):
                self._work.add(controller, found["metadata"]["namespace"], found["metadata"]["name"])
