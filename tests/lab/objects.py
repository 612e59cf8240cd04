"""Objects of Kubernetes as the tests of the lab's controllers apply them, and waiting for what becomes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab.command_line import Lab, until

Object = dict[str, Any]


def apply(lab: Lab, *things: Object) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": things}
    lab.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(listed))


@contextmanager
def temporary_namespace(lab: Lab, test_name: str) -> Iterator[str]:
    words = re.sub(r"[^a-z0-9]+", "-", test_name.removeprefix("test_").lower())
    name = f"o-{words[:24].strip('-')}-{words[-24:].strip('-')}"
    lab.kubectl("create", "namespace", name)
    yield name
    lab.kubectl("delete", "namespace", name, "--wait=false")


def condition(thing: Object, kind: str) -> Object:
    found = [entry for entry in thing.get("status", {}).get("conditions", []) if entry["type"] == kind]
    return found[0] if found else {}


def made(api_version: str, kind: str, namespace: str, name: str, **content: Any) -> Object:
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name} | where, **content}


def definition(group: str, plural: str, kind: str, scope: str = "Namespaced", short: str = "") -> Object:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    version["subresources"] = {"status": {}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "shortNames": [short] if short else []}
    spec = {"group": group, "scope": scope, "names": names, "versions": [version]}
    return made("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", f"{plural}.{group}", spec=spec)


def deployment(namespace: str, name: str, labels: dict[str, str], **container: Any) -> Object:
    containers = [{"name": "operator", "image": "operator", **container}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    thing = made("apps/v1", "Deployment", namespace, name)
    thing["metadata"]["labels"] = labels
    return thing | {"spec": {"selector": {"matchLabels": labels}, "template": template}}


def secret(namespace: str, name: str, **values: str) -> Object:
    return made("v1", "Secret", namespace, name, stringData=values)


def service(namespace: str, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    thing = made("v1", "Service", namespace, name, spec={"ports": [{"port": 80}], "selector": {"app": name}, **spec})
    thing["metadata"]["annotations"] = annotations or {}
    return thing


def backend(service: str = "web", **port: Any) -> Object:
    """Of an Ingress: port 80 of the Service, or the given one."""
    return {"service": {"name": service, "port": port or {"number": 80}}}


def ingress(namespace: str, ingress_class: str, host: str = "", tls: str = "", **path: Any) -> Object:
    """An Ingress `web` with one rule, which leads to port 80 of the Service `web`."""
    rule: Object = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend()} | path]}}
    spec = {"ingressClassName": ingress_class, "rules": [rule | ({"host": host} if host else {})]}
    hosts = {"tls": [{"hosts": [tls]}]} if tls else {}
    return made("networking.k8s.io/v1", "Ingress", namespace, "web", spec=spec | hosts)


def hostname(lab: Lab, namespace: str, name: str = "web") -> str:
    """What an Ingress got."""
    path = "--output=jsonpath={.status.loadBalancer.ingress[0].hostname}"
    return lab.kubectl("-n", namespace, "get", "ingress", name, path)


def reasons(lab: Lab, namespace: str, wanted: str) -> dict[str, str]:
    """The Events of a namespace by reason, once the wanted one is among them."""

    def found() -> dict[str, str] | None:
        reported = {item["reason"]: item["message"] for item in lab.get("-n", namespace, "events")["items"]}
        return reported if wanted in reported else None

    return until(found)


def controllers_have_looked(lab: Lab, namespace: str, mark: str = "mark") -> None:
    """A Service that is applied last gets its address: what was applied before it has been seen."""
    apply(lab, service(namespace, mark, type="LoadBalancer"))
    path = "--output=jsonpath={.status.loadBalancer.ingress[0].ip}"
    assert until(lambda: lab.kubectl("-n", namespace, "get", "service", mark, path)) == "127.0.0.1"


def await_available(lab: Lab, namespace: str) -> None:
    lab.kubectl("-n", namespace, "wait", "deployment", "--all", "--for=condition=Available", "--timeout=180s")
