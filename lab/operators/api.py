"""The controllers' client of the API server: read, apply, patch, delete, events. Plain HTTP with the lab's token.

Objects are dictionaries as the API answers them. Calls may come from several threads. Why not kr8s: decision 15.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import kopf

from lab.operators import objects
from lab.operators.objects import Kind, Object, path_of

TIMEOUT = 15.0
"""Seconds for one call; the server is on this machine."""
MISSING = 404
PASSING = frozenset({409, 429, 503})
"""Status codes to retry after: conflict, too many requests, not available yet."""


class ApiError(Exception):
    """The API server refused. `status` is the HTTP code, `reason` its word for it (`Conflict`, `Forbidden`, …)."""

    def __init__(self, answer: httpx.Response) -> None:
        body = _body(answer)
        self.status, self.reason = answer.status_code, str(body.get("reason", ""))
        message = str(body.get("message", answer.text[:200]))
        super().__init__(f"{self.status} {self.reason}: {message}")
        self.is_passing = self.status in PASSING or "because it is being terminated" in message
        """Whether to try again: a conflict, a server that is starting, a namespace that is being deleted."""


def _body(answer: httpx.Response) -> Object:
    body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    return body if isinstance(body, dict) else {}


def connect(login: kopf.ConnectionInfo) -> httpx.Client:
    """Connect to the API server with the token and the authority (base64) that kopf read from the kubeconfig."""
    return httpx.Client(
        base_url=login.server,
        headers={"Authorization": f"Bearer {login.token}", "Accept": "application/json"},
        verify=ssl.create_default_context(cadata=base64.b64decode(str(login.ca_data)).decode("ascii")),
        timeout=TIMEOUT,
        trust_env=False,
    )


@dataclass(frozen=True)
class Api:
    """A small client. `manager` is the field manager that its writes are recorded under, and the source of events."""

    http: httpx.Client
    manager: str = ""

    def acting_as(self, manager: str) -> Api:
        return replace(self, manager=manager)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Read the object; None if the server answers that the object or its resource does not exist."""
        return self._call("GET", kind.path(namespace, name), missing_ok=True)

    def is_gone(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether the object is certainly gone: the server knows its kind but not the object, or not even the kind.

        A bare 404 is not enough: a server that is still starting gives it for every custom resource.
        """
        answer = self.http.get(kind.path(namespace, name))
        if answer.status_code != MISSING:
            return False
        if (_body(answer).get("details") or {}).get("name") == name:
            return True
        return self.get(objects.CRD, "", f"{kind.plural}.{kind.group}") is None

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """List all objects of a kind, of one namespace or of all; empty if the kind is not served (yet)."""
        chosen = ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())
        parameters = {"labelSelector": chosen} if chosen else {}
        found = self._call("GET", kind.path(namespace), params=parameters, missing_ok=True) or {}
        marks = {"apiVersion": kind.api_version, "kind": kind.kind}
        return [marks | item for item in found.get("items") or []]

    def apply(self, wanted: Object) -> Object:
        """Server-side apply: the given fields become ours, all others stay unchanged."""
        parameters = {"fieldManager": self.manager, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self._call("PATCH", path_of(wanted), json=wanted, headers=headers, params=parameters) or {}

    def create(self, wanted: Object) -> Object | None:
        """Create an object; None if the name exists already."""
        path = path_of(wanted).rpartition("/")[0]
        try:
            return self._call("POST", path, json=wanted, params={"fieldManager": self.manager})
        except ApiError as problem:
            if problem.reason == "AlreadyExists":
                return None
            raise

    def patch(self, current: Object, change: Object, *, status: bool = False) -> Object | None:
        """Merge patch on the object as it was read. A change by others since then is a conflict. None if it is gone."""
        meta = current["metadata"]
        # The uid too: an object that was made anew under the same name is another one.
        pinned = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        return self._call(
            "PATCH",
            path_of(current) + ("/status" if status else ""),
            json=change | {"metadata": change.get("metadata", {}) | pinned},
            headers={"Content-Type": "application/merge-patch+json"},
            params={"fieldManager": self.manager},
            missing_ok=True,
        )

    def update_status(self, current: Object, status: Mapping[str, Any]) -> Object:
        """Write the parts of the status that differ; return the new object."""
        before = current.get("status") or {}
        change = {key: value for key, value in status.items() if before.get(key) != value}
        return (self.patch(current, {"status": change}, status=True) if change else None) or current

    def add_finalizer(self, thing: Object, finalizer: str) -> Object:
        """Add the finalizer, before anything is created outside the object; return the new object."""
        present = thing["metadata"].get("finalizers") or []
        if finalizer in present:
            return thing
        return self.patch(thing, {"metadata": {"finalizers": [*present, finalizer]}}) or thing

    def remove_finalizer(self, thing: Object, finalizer: str) -> None:
        if objects.has_finalizer(thing, finalizer):
            kept = [entry for entry in thing["metadata"]["finalizers"] if entry != finalizer]
            self.patch(thing, {"metadata": {"finalizers": kept}})

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete in the background. An object that is gone already is not an error."""
        self._call("DELETE", kind.path(namespace, name), params={"propagationPolicy": "Background"}, missing_ok=True)

    def delete_each(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> bool:
        """Delete all objects of a kind with these labels; return whether any existed, also ones being deleted."""
        found = self.list(kind, namespace, labels)
        for one in found:
            if not objects.is_leaving(one):
                self.delete(kind, namespace, one["metadata"]["name"])
        return bool(found)

    def runs(self, labels: Mapping[str, str]) -> bool:
        """Whether a Deployment with these labels runs, which is the operator that a controller simulates."""
        return any(objects.runs(found) for found in self.list(objects.DEPLOYMENT, labels=labels))

    def warn(self, about: Object, reason: str, message: str, *, normal: bool = False) -> None:
        """Write an Event on an object. A repeated reason and message increases its count."""
        meta, now = about["metadata"], objects.timestamp()
        digest = hashlib.sha256(f"{meta['uid']} {reason} {message}".encode()).hexdigest()[:12]
        name, namespace = f"{meta['name'][:200]}.{digest}", meta.get("namespace") or "default"
        known = self.get(objects.EVENT, namespace, name)
        if known is not None:
            self.patch(known, {"count": known.get("count", 1) + 1, "lastTimestamp": now})
            return
        involved = {key: meta.get(key) for key in ("name", "namespace", "uid", "resourceVersion") if meta.get(key)}
        self.create(
            objects.EVENT.new(
                {"name": name, "namespace": namespace},
                involvedObject={"apiVersion": about["apiVersion"], "kind": about["kind"]} | involved,
                type="Normal" if normal else "Warning",
                reason=reason,
                message=message[:1000],
                source={"component": self.manager},
                firstTimestamp=now,
                lastTimestamp=now,
                count=1,
            )
        )

    def _call(self, method: str, path: str, *, missing_ok: bool = False, **request: Any) -> Object | None:
        answer = self.http.request(method, path, **request)
        if answer.is_success:
            found: Object = answer.json()
            return found
        if answer.status_code == MISSING and missing_ok:
            return None
        raise ApiError(answer)
