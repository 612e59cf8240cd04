"""Tailscale's operator: puts Services and Ingresses on a simulated tailnet, as far as the cluster's objects show.

Works only while the operator's Deployment is available and its Secret `operator-oauth` exists. Every device of the
lab's tailnet `lab.ts.net` answers on 127.0.0.1. Names, labels, conditions and messages as operator 1.102.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.operators import objects
from lab.operators.api import Api
from lab.operators.objects import Object
from lab.operators.work import Controller, Work

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
"""The alphabet of Kubernetes' generated names."""
ASKED_FOR = "lab.homelab-ops/hostname"
"""Annotation of a state Secret: the requested name, which may differ from the device's."""
RETRY = 2.0


@dataclass(frozen=True)
class Exposure:
    """One object on the tailnet and the name that it requests."""

    parent: Object
    type: str
    """`svc` or `ingress`, as in the labels."""
    hostname: str
    https: bool = False

    @property
    def labels(self) -> dict[str, str]:
        meta = self.parent["metadata"]
        return labels_of(meta["namespace"], meta["name"], self.type)


def labels_of(namespace: str, name: str, kind: str) -> dict[str, str]:
    return {MANAGED: "true", PARENT: name, f"{PARENT}-ns": namespace, f"{PARENT}-type": kind}


def controllers(api: Api, work: Work) -> dict[str, Controller]:
    tailscale = Tailscale(api.acting_as(MANAGER), work)
    return {
        "service": tailscale.reconcile_service,
        "ingress": tailscale.reconcile_ingress,
        "exposures": tailscale.reconcile_all,
        "backend": tailscale.reconcile_beside,
    }


@dataclass(frozen=True)
class Tailscale:
    """The controller of exposed Services and of Ingresses of class `tailscale`."""

    api: Api
    work: Work
    _naming: threading.Lock = field(default_factory=threading.Lock)

    def reconcile_all(self, _namespace: str, _name: str) -> None:
        """Ask for a look at everything that may be exposed, when the operator starts or stops."""
        self.work.add_each("service", self.api.list(objects.SERVICE))
        self.work.add_each("ingress", self.api.list(objects.INGRESS))

    def reconcile_beside(self, namespace: str, _name: str) -> None:
        """Ask for a look at the Ingresses in a Service's namespace, which may wait for that Service."""
        self.work.add_each("ingress", self.api.list(objects.INGRESS, namespace))

    # -- Services -----------------------------------------------------------------------------------------------------

    def reconcile_service(self, namespace: str, name: str) -> float | None:
        service = self.api.get(objects.SERVICE, namespace, name)
        if service is None or mark(service, "proxy-group"):
            return None
        leaving = objects.is_leaving(service) or not is_exposed(service)
        if leaving and not objects.has_finalizer(service, FINALIZER) and not _condition(service):
            return None
        if not self._operator_is_ready():
            return None
        return self._clean_up_service(service) if leaving else self._expose_service(service)

    def _expose_service(self, service: Object) -> float | None:
        violations = violations_of(service)
        if violations:
            message = f"unable to provision proxy resources: invalid Service: {', '.join(violations)}"
            if _condition(service) != ("ProxyInvalid", message):
                self.api.warn(service, "INVALIDSERVICE", message)
            self._report_service(service, reason="ProxyInvalid", message=message)
            return None
        service = self.api.add_finalizer(service, FINALIZER)
        fqdn = self._provision(Exposure(service, "svc", hostname_of_service(service)))
        if not _has_own_class(service):
            self._report_service(service, reason="ProxyCreated")
        elif fqdn:
            ingress = [{"hostname": fqdn}, {"ip": DEVICE_IP, "ipMode": "VIP"}]
            self._report_service(service, reason="ProxyCreated", ingress=ingress)
        else:
            self._report_service(service, reason="ProxyPending", message=NO_DEVICE, ingress=[])
        return None if fqdn else RETRY

    def _clean_up_service(self, service: Object) -> float | None:
        meta = service["metadata"]
        if objects.has_finalizer(service, FINALIZER):
            if not self._remove(meta["namespace"], meta["name"], "svc"):
                return 0.2
            # Changes the object, so its condition is removed at the next look.
            self.api.remove_finalizer(service, FINALIZER)
            return 0.0
        kept = [one for one in objects.conditions(service) if one.get("type") != READY]
        self.api.update_status(service, {"conditions": kept})
        return None

    def _report_service(
        self, service: Object, *, reason: str, message: str = "", ingress: list[Object] | None = None
    ) -> None:
        """Write the condition, True without a `message`, and the addresses if they are given."""
        ready = objects.condition(service, READY, not message, reason=reason, message=message or reason)
        change: Object = {"conditions": objects.with_conditions(service, ready)}
        if ingress is not None and objects.addresses(service) != ingress:
            change["loadBalancer"] = {"ingress": ingress}
        self.api.update_status(service, change)

    # -- Ingresses ----------------------------------------------------------------------------------------------------

    def reconcile_ingress(self, namespace: str, name: str) -> float | None:
        ingress = self.api.get(objects.INGRESS, namespace, name)
        if ingress is None:
            return None
        ours = ingress["spec"].get("ingressClassName") == "tailscale" and not mark(ingress, "proxy-group")
        leaving = objects.is_leaving(ingress) or not ours
        if leaving and not objects.has_finalizer(ingress, FINALIZER):
            return None
        if not self._operator_is_ready():
            return None
        if not leaving:
            return self._expose_ingress(ingress)
        if not self._remove(namespace, name, "ingress"):
            return 0.2
        self.api.remove_finalizer(ingress, FINALIZER)
        return None

    def _expose_ingress(self, ingress: Object) -> float | None:
        ingress = self.api.add_finalizer(ingress, FINALIZER)
        if not self._has_backends(ingress):
            self.api.warn(ingress, "NoValidBackends", "no valid backends")
            return None
        fqdn = self._provision(Exposure(ingress, "ingress", hostname_of_ingress(ingress), https=True))
        wanted = [{"hostname": fqdn, "ports": [{"protocol": "TCP", "port": 443}]}] if fqdn else []
        if objects.addresses(ingress) != wanted:
            self.api.patch(ingress, {"status": {"loadBalancer": {"ingress": wanted}}}, status=True)
        return None if fqdn else RETRY

    def _has_backends(self, ingress: Object) -> bool:
        """Whether any backend is usable. An Event names those that are left out, as with the real operator."""
        backends = [("/", ingress["spec"]["defaultBackend"])] if ingress["spec"].get("defaultBackend") else []
        host = tls_host(ingress)
        for rule in ingress["spec"].get("rules") or ():
            if rule.get("host") and rule["host"] != host:
                message = f'rule with host "{rule["host"]}" ignored, unsupported'
                self.api.warn(ingress, "InvalidIngressBackend", message)
                continue
            paths = (rule.get("http") or {}).get("paths") or ()
            backends += [(path.get("path") or "/", path["backend"]) for path in paths]
        problems = [self._problem(ingress["metadata"]["namespace"], path, backend) for path, backend in backends]
        for problem in filter(None, problems):
            self.api.warn(ingress, "InvalidIngressBackend", problem)
        return not all(problems)

    def _problem(self, namespace: str, path: str, backend: Mapping[str, Any]) -> str:
        """Why a backend is left out; empty if it is used."""
        wanted = backend.get("service")
        if not wanted:
            return f'backend for path "{path}" is missing service'
        service = self.api.get(objects.SERVICE, namespace, wanted["name"])
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

    # -- what the operator makes in its own namespace: StatefulSet, headless Service, state Secret --------------------

    def _operator_is_ready(self) -> bool:
        """Whether the operator is available and its login's Secret exists, without which no real pod would start."""
        running = (found["metadata"] for found in self.api.list(objects.DEPLOYMENT, NAMESPACE) if objects.runs(found))
        if not any("operator" in (meta["name"], (meta.get("labels") or {}).get("app")) for meta in running):
            return False
        return self.api.get(objects.SECRET, NAMESPACE, "operator-oauth") is not None

    def _provision(self, exposure: Exposure) -> str:
        """Make or keep the proxy; return its device's name once the proxy's pod is ready, empty until then."""
        found = self.api.list(objects.STATEFUL_SET, NAMESPACE, exposure.labels)
        suffix = "".join(secrets.choice(ALPHABET) for _ in range(5))
        name = found[0]["metadata"]["name"] if found else f"ts-{exposure.parent['metadata']['name'][:40]}-{suffix}"
        headless = {"clusterIP": "None", "selector": {"app": exposure.parent["metadata"]["uid"]}}
        meta = {"name": name, "namespace": NAMESPACE, "labels": exposure.labels}
        self.api.apply(objects.SERVICE.new(meta, spec=headless))
        self.api.apply(_stateful_set(name, exposure))
        pod = self.api.get(objects.POD, NAMESPACE, f"{name}-0")
        joined = pod is not None and objects.is_true(pod, "Ready")
        # Two devices must not get one name, and exposures are provisioned in several threads.
        with self._naming:
            return self._keep_state(f"{name}-0", exposure, pod if joined else None)

    def _keep_state(self, name: str, exposure: Exposure, pod: Object | None) -> str:
        """Write the state Secret; the device joins with its pod and takes a new name when another is asked for."""
        found = self.api.get(objects.SECRET, NAMESPACE, name)
        values = objects.decode(found)
        asked = (found or {"metadata": {}})["metadata"].get("annotations") or {}
        fqdn = values.get("device_fqdn", "").rstrip(".")
        if pod is not None and asked.get(ASKED_FOR) != exposure.hostname:
            fqdn = self._free_name(exposure.hostname, name)
            values |= {
                "device_id": f"n{secrets.token_hex(8)}CNTRL",
                "device_fqdn": f"{fqdn}.",
                "device_ips": json.dumps([DEVICE_IP]),
                "tailscale_capver": "125",
                "pod_uid": pod["metadata"]["uid"],
                "https_endpoint": fqdn if exposure.https else "no-https",
            }
            asked = {ASKED_FOR: exposure.hostname}
        meta = {"name": name, "namespace": NAMESPACE, "labels": exposure.labels, "annotations": asked}
        self.api.apply(objects.SECRET.new(meta, data=objects.encode(values)))
        return fqdn

    def _free_name(self, hostname: str, state: str) -> str:
        """`<hostname>.<tailnet>` in lower case, with a number where another device has the name."""
        others = [
            objects.decode(secret).get("device_fqdn", "").rstrip(".")
            for secret in self.api.list(objects.SECRET, NAMESPACE, {MANAGED: "true"})
            if secret["metadata"]["name"] != state
        ]
        wanted = hostname.lower()  # as the tailnet has every name
        names = (f"{wanted}{suffix}.{TAILNET}" for suffix in ("", *(f"-{number}" for number in range(1, 1000))))
        return next(name for name in names if name not in others)

    def _remove(self, namespace: str, name: str, kind: str) -> bool:
        """Delete the objects of an exposure; return whether none is left."""
        made, labels = (objects.STATEFUL_SET, objects.SERVICE, objects.SECRET), labels_of(namespace, name, kind)
        left = [self.api.delete_each(resource, NAMESPACE, labels) for resource in made]
        return not any(left)


def _stateful_set(name: str, exposure: Exposure) -> Object:
    app = {"app": exposure.parent["metadata"]["uid"]}
    environment = {"TS_KUBE_SECRET": f"{name}-0", "TS_HOSTNAME": exposure.hostname}
    container = {
        "name": "tailscale",
        "image": "tailscale/tailscale:stable",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": {"privileged": True},
    }
    spec = {
        "replicas": 1,
        "serviceName": name,
        "selector": {"matchLabels": app},
        "template": {
            "metadata": {"labels": app | exposure.labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
        },
    }
    return objects.STATEFUL_SET.new({"name": name, "namespace": NAMESPACE, "labels": exposure.labels}, spec=spec)


def mark(thing: Object, name: str) -> str:
    return objects.annotation(thing, f"tailscale.com/{name}")


def _has_own_class(service: Object) -> bool:
    spec = service["spec"]
    return bool(spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") == "tailscale")


def is_exposed(service: Object) -> bool:
    return mark(service, "expose") == "true" or _has_own_class(service) or _is_egress(service)


def _is_egress(service: Object) -> bool:
    return bool(mark(service, "tailnet-fqdn") or mark(service, "tailnet-ip"))


def _condition(service: Object) -> tuple[str, str] | None:
    for entry in objects.conditions(service):
        if entry.get("type") == READY:
            return str(entry.get("reason")), str(entry.get("message"))
    return None


def hostname_of_service(service: Object) -> str:
    meta = service["metadata"]
    return mark(service, "hostname") or f"{meta['namespace']}-{meta['name']}"


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
        if mark(service, "hostname"):
            found.append(f'invalid Tailscale hostname specified "{hostname}": {problem}')
        else:
            how = 'use "tailscale.com/hostname" annotation to override'
            found.append(f'invalid Tailscale hostname "{hostname}", {how}: {problem}')
    tags = [tag.strip() for tag in mark(service, "tags").split(",") if tag.strip()]
    found += [f'invalid tag "{tag}": tags must start with "tag:"' for tag in tags if not tag.startswith("tag:")]
    return found


def tls_host(ingress: Object) -> str:
    """`tls[0].hosts[0]`, the only place a name is taken from; empty without one."""
    tls = ingress["spec"].get("tls") or [{}]
    hosts = tls[0].get("hosts") or [""]
    return str(hosts[0])


def hostname_of_ingress(ingress: Object) -> str:
    meta = ingress["metadata"]
    return tls_host(ingress).partition(".")[0] or f"{meta['namespace']}-{meta['name']}-ingress"
