"""The Cloudflare tunnel's controller: Ingresses with a public name, and the connectors that would carry their traffic.

Works only while the controller's Deployment is available and the Secret it logs in with holds all three values. Nothing
is sent to Cloudflare. Names, finalizer, events and their texts as chart 0.1.0; like the real controller it watches no
Service, so a route whose Service came later is there after the next change of its Ingress.
Source: STRRL/cloudflare-tunnel-ingress-controller, pkg/controller and pkg/cloudflare-controller.
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.operators import objects
from lab.operators.api import Api
from lab.operators.objects import Object
from lab.operators.work import Controller as Look
from lab.operators.work import Work

MANAGER = "cloudflare-tunnel-ingress-controller"
COMMAND = "cloudflare-tunnel-ingress-controller"
"""The first word of the command of the controller's container."""
CONTROLLER_LABELS = {"app.kubernetes.io/name": "cloudflare-tunnel-ingress-controller"}
"""Labels of its Deployment, under any release name."""
FINALIZER = "strrl.dev/cloudflare-tunnel-ingress-controller-controlled"
LEGACY_CLASS = "kubernetes.io/ingress.class"
ANNOTATIONS = "cloudflare-tunnel-ingress-controller.strrl.dev"
CONNECTOR = "controlled-cloudflared-connector"
CONNECTOR_LABELS = {"app": CONNECTOR, "strrl.dev/cloudflare-tunnel-ingress-controller": CONNECTOR}
TOKEN_SECRET = "controlled-cloudflared-token"  # noqa: S105 - a name
TOKEN_KEY = "tunnel-token"  # noqa: S105 - a name
TOKEN_VERSION = "strrl.dev/cloudflare-tunnel-token-secret-version"  # noqa: S105 - a name
METRICS = "0.0.0.0:44483"
PATH_TYPES = ("Prefix", "ImplementationSpecific")
LOGIN = ("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_TUNNEL_NAME")


class RefusedError(Exception):
    """No route can be made from the Ingress; the text is the controller's."""


@dataclass(frozen=True)
class Controller:
    """The settings of the controller's Deployment, as its pod would read them, and its tunnel."""

    deployment: Object
    account: str
    tunnel: str

    @property
    def container(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.deployment["spec"]["template"]["spec"]["containers"][0]
        return found

    @property
    def namespace(self) -> str:
        return str(self.deployment["metadata"]["namespace"])

    @property
    def tunnel_id(self) -> str:
        """The tunnel's id, derived from account and name: Cloudflare would make the tunnel only once."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cloudflare:{self.account}/{self.tunnel}"))

    @property
    def domain(self) -> str:
        return f"{self.tunnel_id}.cfargotunnel.com"

    def flag(self, name: str, default: str = "") -> str:
        marks = [word.partition("=")[2] for word in self.container["command"] if word.startswith(f"--{name}=")]
        return marks[0] if marks else default

    def variable(self, name: str, default: str = "") -> str:
        return next((str(entry["value"]) for entry in _environment(self.container, name) if "value" in entry), default)


def _environment(container: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in container.get("env") or () if entry["name"] == name]


def is_controller(deployment: Object) -> bool:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return bool((containers[0].get("command") or [""])[0] == COMMAND)


def controllers(api: Api, work: Work) -> dict[str, Look]:
    tunnels = Tunnels(api.acting_as(MANAGER), work)
    return {
        "tunnel": tunnels.reconcile,
        "tunnels": tunnels.reconcile_all,
        "connectors": tunnels.reconcile_connectors,
        "tunnel-secret": tunnels.reconcile_users_of_secret,
    }


@dataclass(frozen=True)
class Tunnels:
    """The controller of Ingresses of its classes, and of the connectors in its own namespace."""

    api: Api
    work: Work
    _reported: dict[str, tuple[int, str]] = field(default_factory=dict)
    """uid of an Ingress → generation and tunnel for which events were written."""

    def reconcile_all(self, _namespace: str = "", _name: str = "") -> None:
        """Ask for a look at the connectors and every Ingress, when the controller starts or stops."""
        self.work.add("connectors")
        self.work.add_each("tunnel", self.api.list(objects.INGRESS))

    def reconcile_users_of_secret(self, namespace: str, name: str) -> None:
        """Ask for a look at everything if the Secret may be the login or the token."""
        for deployment in self.api.list(objects.DEPLOYMENT, namespace, CONTROLLER_LABELS):
            if name == TOKEN_SECRET or name in str(deployment["spec"]["template"]["spec"]["containers"][0].get("env")):
                self.reconcile_all()

    def controller(self) -> Controller | None:
        """The controller that runs and is logged in: without its Secret no real pod would start."""
        for deployment in self.api.list(objects.DEPLOYMENT, labels=CONTROLLER_LABELS):
            if is_controller(deployment) and objects.runs(deployment):
                token, account, tunnel = (self._value(deployment, name) for name in LOGIN)
                return Controller(deployment, account, tunnel) if token and account and tunnel else None
        return None

    def _value(self, deployment: Object, name: str) -> str:
        """An environment variable of the controller's container, also from a Secret; empty without one."""
        for entry in _environment(deployment["spec"]["template"]["spec"]["containers"][0], name):
            wanted = (entry.get("valueFrom") or {}).get("secretKeyRef") or {}
            secret = self.api.get(objects.SECRET, deployment["metadata"]["namespace"], wanted.get("name", ""))
            return str(entry.get("value") or objects.decode(secret).get(wanted.get("key", ""), ""))
        return ""

    # -- Ingresses ----------------------------------------------------------------------------------------------------

    def reconcile(self, namespace: str, name: str) -> None:
        ingress = self.api.get(objects.INGRESS, namespace, name)
        # Spares a look at the controller for the Ingresses of others.
        if ingress is None:
            return
        if ingress["spec"].get("ingressClassName") == "tailscale" and not objects.has_finalizer(ingress, FINALIZER):
            return
        controller = self.controller()
        if controller is None or not self._is_ours(ingress, controller):
            return
        if objects.is_leaving(ingress):
            self._reported.pop(ingress["metadata"]["uid"], None)
            self.api.remove_finalizer(ingress, FINALIZER)
            return
        ingress = self.api.add_finalizer(ingress, FINALIZER)
        self._write_events(ingress, controller)
        self._report(ingress, controller.domain)

    def _is_ours(self, ingress: Object, controller: Controller) -> bool:
        legacy = objects.annotation(ingress, LEGACY_CLASS)
        if legacy and legacy == controller.flag("ingress-class"):
            return True
        classes = [
            found["metadata"]["name"]
            for found in self.api.list(objects.INGRESS_CLASS)
            if found["spec"].get("controller") == controller.flag("controller-class")
        ]
        return ingress["spec"].get("ingressClassName") in classes

    def _write_events(self, ingress: Object, controller: Controller) -> None:
        """Write the Ingress's events once for each generation; the real controller repeats them at every look."""
        meta = ingress["metadata"]
        now = (meta.get("generation", 0), controller.domain)
        if self._reported.get(meta["uid"]) == now:
            return
        if ingress["spec"].get("tls"):
            message = "ingress has tls specified, SSL Passthrough is not supported, it will be ignored"
            self.api.warn(ingress, "TLSIgnored", message)
        rules = ingress["spec"].get("rules") or ()
        for host in [rule["host"] for rule in rules if rule.get("host") and not rule.get("http")]:
            self.api.warn(ingress, "RuleSkipped", f"rule for host {host} has no http section, skipped")
        try:
            self.routes(ingress, controller.flag("cluster-domain", "cluster.local"))
        except RefusedError as problem:
            self.api.warn(ingress, "TransformFailed", str(problem))
        done = "cloudflare tunnel config and DNS records are up to date"
        self.api.warn(ingress, "CloudflareSynced", done, normal=True)
        self._reported[meta["uid"]] = now

    def _report(self, ingress: Object, domain: str) -> None:
        """Write the tunnel's domain, as the real controller does, also for an Ingress without any route."""
        if any(entry.get("hostname") == domain for entry in objects.addresses(ingress)):
            return
        address = {"hostname": domain, "ports": [{"protocol": "TCP", "port": 443}]}
        self.api.patch(ingress, {"status": {"loadBalancer": {"ingress": [address]}}}, status=True)

    def routes(self, ingress: Object, cluster_domain: str) -> list[tuple[str, str, str]]:
        """Host, path and address of each route. One wrong rule raises `RefusedError`, and the Ingress has no route."""
        found = []
        for rule in ingress["spec"].get("rules") or ():
            if not rule.get("host"):
                raise RefusedError(f"host in ingress {_name(ingress)} is empty")
            for path in (rule.get("http") or {}).get("paths") or ():
                target = self._target(ingress, path, cluster_domain)
                found.append((rule["host"], path.get("path") or "", target))
        return found

    def _target(self, ingress: Object, path: Mapping[str, Any], cluster_domain: str) -> str:
        namespace, wanted = ingress["metadata"]["namespace"], path["backend"].get("service")
        if not wanted:
            raise RefusedError(f"the lab supports only a Service as backend: ingress {_name(ingress)}")
        full = f"{namespace}/{wanted['name']}"
        service = self.api.get(objects.SERVICE, namespace, wanted["name"])
        if service is None:
            raise RefusedError(f'fetch service {full}: Service "{wanted["name"]}" not found')
        spec = service["spec"]
        if spec.get("clusterIP") == "None":
            raise RefusedError(f"service {full} has None for cluster ip, headless service is not supported")
        port = _port(spec, wanted.get("port") or {}, full)
        if path.get("pathType") not in PATH_TYPES:
            kind = path.get("pathType")
            raise RefusedError(f"path type in ingress {_name(ingress)} is {kind}, which is not supported")
        external = spec.get("externalName") if spec.get("type") == "ExternalName" else None
        host = external or f"{wanted['name']}.{namespace}.svc.{cluster_domain}"
        scheme = objects.annotation(ingress, f"{ANNOTATIONS}/backend-protocol") or "http"
        return f"{scheme}://{host}:{port}"

    # -- connectors ---------------------------------------------------------------------------------------------------

    def reconcile_connectors(self, _namespace: str, _name: str) -> None:
        """Make the connectors' Deployment and the Secret with their token; both are deleted with the controller."""
        controller = self.controller()
        if controller is None:
            return
        secret = self.api.get(objects.SECRET, controller.namespace, TOKEN_SECRET)
        if secret is None or tunnel_of(objects.decode(secret).get(TOKEN_KEY, "")) != controller.tunnel_id:
            # As Cloudflare's: account, tunnel and the tunnel's own secret.
            content = {"a": controller.account, "t": controller.tunnel_id, "s": secrets.token_hex(32)}
            token = base64.b64encode(json.dumps(content).encode()).decode("ascii")
            labels = {key: value for key, value in CONNECTOR_LABELS.items() if key != "app"}
            meta = _metadata(controller, TOKEN_SECRET, labels)
            secret = self.api.apply(objects.SECRET.new(meta, data=objects.encode({TOKEN_KEY: token})))
        self.api.apply(connectors(controller, secret["metadata"]["resourceVersion"]))


def _name(ingress: Object) -> str:
    return f"{ingress['metadata']['namespace']}/{ingress['metadata']['name']}"


def _port(spec: Mapping[str, Any], wanted: Mapping[str, Any], service: str) -> int:
    if not wanted.get("name"):
        return int(wanted.get("number") or 0)
    named = {entry.get("name"): entry["port"] for entry in spec.get("ports") or ()}
    if wanted["name"] not in named:
        raise RefusedError(f"service {service} has no port named {wanted['name']}")
    return int(named[wanted["name"]])


def tunnel_of(token: str) -> str:
    """The tunnel of a token; empty for an invalid one."""
    try:
        content = json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        return ""
    return str(content.get("t", "")) if isinstance(content, dict) else ""


def _metadata(controller: Controller, name: str, labels: Mapping[str, str]) -> Object:
    reference = objects.owner_reference(controller.deployment)
    owner = {key: reference[key] for key in ("apiVersion", "kind", "name", "uid")}
    return {"name": name, "namespace": controller.namespace, "labels": labels, "ownerReferences": [owner]}


def connectors(controller: Controller, token_version: str) -> Object:
    """The Deployment of cloudflared; its pods restart when the token changes."""
    container = {
        "name": CONNECTOR,
        "image": controller.variable("CLOUDFLARED_IMAGE", "cloudflare/cloudflared:latest"),
        "command": [
            *("cloudflared", "--protocol", controller.flag("cloudflared-protocol", "auto"), "--no-autoupdate"),
            *("tunnel", "--metrics", METRICS, "run"),
        ],
        "env": [{"name": "TUNNEL_TOKEN", "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": TOKEN_KEY}}}],
    }
    marks = {"labels": CONNECTOR_LABELS, "annotations": {TOKEN_VERSION: token_version}}
    spec = {
        "replicas": int(controller.variable("CLOUDFLARED_REPLICA_COUNT", "1")),
        "selector": {"matchLabels": CONNECTOR_LABELS},
        "template": {"metadata": marks, "spec": {"containers": [container]}},
    }
    return objects.DEPLOYMENT.new(_metadata(controller, CONNECTOR, CONNECTOR_LABELS), spec=spec)
