"""When Services and Ingresses can be reached."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import name_of, namespace_of, pluck, text
from lab.engine.providers.kubernetes.waiting import StatusLog, WaitFailed, ended
from lab.engine.providers.kubernetes.watching import Event
from lab.engine.providers.kubernetes.workloads import collection

SETTLE_SECONDS = 1.0
"""Rest after the last change of endpoints. The real provider takes 10 s; in the lab nothing joins late."""
NO_ENDPOINTS_SECONDS = 60.0
"""After this long without any endpoints an Ingress's backends count as settled."""

NO_PODS = (
    "Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not match labels"
    " on any Pods"
)
NO_ADDRESS = "Service was not allocated an IP address; does your cloud provider support this?"
NO_BACKEND = "Ingress has at least one rule with an unavailable target endpoint."
NO_INGRESS_ADDRESS = (
    "Ingress .status.loadBalancer field was not updated with a hostname/IP address. "
    "\n    for more information about this error, see https://pulumi.io/xdv72s"
)


class ServiceWait:
    """Ready when its endpoints have settled with none pending; a LoadBalancer also needs an address.

    Headless and ``ExternalName`` Services and those without a selector are not waited for.
    """

    def __init__(
        self,
        live: Object,
        last: Object | None,
        log: StatusLog,
        *,
        settle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        del last
        self.live = live
        self.log = log
        self._settle = SETTLE_SECONDS if settle is None else settle
        self._clock = clock
        self._own = collection("api/v1", namespace_of(live), "services")
        self._endpoints = collection("api/v1", namespace_of(live), "endpoints")
        self._type = text(pluck(live, "spec", "type")) or "ClusterIP"
        self._is_service_ready = False
        self._has_endpoints = self._has_pending = False
        self._settles_at: float | None = None
        log("info", "[1/3] Finding Pods to direct traffic to")

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._own, self._endpoints)

    def observe(self, event: Event) -> None:
        if name_of(event.object) != name_of(self.live):
            return
        if event.path == self._endpoints:
            self._observe_endpoints(event)
        elif event.type == "DELETED":
            self._is_service_ready = False
        else:
            self.live = event.object
            addresses = pluck(event.object, "status", "loadBalancer", "ingress")
            self._is_service_ready = self._type != "LoadBalancer" or bool(addresses)

    def is_ready(self) -> bool:
        if not self._waits_for_pods():
            return self._is_service_ready
        if self._is_service_ready and self._is_settled() and not self._has_pending:
            self.log("info", "Service initialization complete")
            return True
        if self._is_settled() and self._has_endpoints:
            self.log("info", "[2/3] Attempting to allocate IP address to Service")
        return False

    def problems(self) -> list[str]:
        if self._type == "ExternalName" or pluck(self.live, "spec", "clusterIP") == "None":
            return []
        found = [] if self._has_endpoints else [NO_PODS]
        if self._type == "LoadBalancer" and not self._is_service_ready:
            found.append(NO_ADDRESS)
        return found

    def report(self) -> None:
        return

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        if self._is_service_ready and not self._has_pending:
            return None
        return ended(self.live, self.problems(), is_cancelled=is_cancelled)

    def _observe_endpoints(self, event: Event) -> None:
        self._settles_at = self._clock() + self._settle
        subsets = [] if event.type == "DELETED" else event.object.get("subsets") or []
        self._has_endpoints = any(subset.get("addresses") for subset in subsets)
        self._has_pending = any(subset.get("notReadyAddresses") for subset in subsets)

    def _is_settled(self) -> bool:
        return self._settles_at is not None and self._clock() >= self._settles_at

    def _waits_for_pods(self) -> bool:
        is_headless = pluck(self.live, "spec", "clusterIP") == "None"
        return self._type != "ExternalName" and not is_headless and bool(pluck(self.live, "spec", "selector"))


class IngressWait:
    """Ready when every backend Service has endpoints and the controller gave an address."""

    def __init__(
        self,
        live: Object,
        last: Object | None,
        log: StatusLog,
        *,
        settle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        del last
        self.live = live
        self.log = log
        self._settle = SETTLE_SECONDS if settle is None else settle
        self._clock = clock
        self._own = collection("apis/networking.k8s.io/v1", namespace_of(live), "ingresses")
        self._endpoints = collection("api/v1", namespace_of(live), "endpoints")
        self._services = collection("api/v1", namespace_of(live), "services")
        self._known: set[str] = set()
        self._external: set[str] = set()
        self._has_address = False
        self._settles_at = clock() + (NO_ENDPOINTS_SECONDS if settle is None else settle)
        log("info", "[1/3] Finding a matching service for each Ingress path")

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._own, self._endpoints, self._services)

    def observe(self, event: Event) -> None:
        name, is_gone = name_of(event.object), event.type == "DELETED"
        if event.path == self._endpoints:
            self._settles_at = self._clock() + self._settle
            (self._known.discard if is_gone else self._known.add)(name)
        elif event.path == self._services:
            is_external = not is_gone and pluck(event.object, "spec", "type") == "ExternalName"
            (self._external.add if is_external else self._external.discard)(name)
        elif name == name_of(self.live):
            self._has_address = not is_gone and bool(pluck(event.object, "status", "loadBalancer", "ingress"))
            self.live = self.live if is_gone else event.object

    def is_ready(self) -> bool:
        if not self._has_backends():
            return False
        if self._has_address:
            self.log("info", "Ingress initialization complete")
            return True
        self.log("info", "[2/3] Waiting for update of .status.loadBalancer with hostname/IP")
        return False

    def problems(self) -> list[str]:
        found = [] if self._has_backends() else [NO_BACKEND]
        return found if self._has_address else [*found, NO_INGRESS_ADDRESS]

    def report(self) -> None:
        return

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        if self._has_address and self._has_backends():
            return None
        return ended(self.live, self.problems(), is_cancelled=is_cancelled)

    def _has_backends(self) -> bool:
        for rule in pluck(self.live, "spec", "rules") or []:
            for path in pluck(rule, "http", "paths") or []:
                service = text(pluck(path, "backend", "service", "name"))
                if not service or service in self._external or service in self._known:
                    continue
                if self._clock() < self._settles_at:
                    return False
                where = text(rule.get("host")) + text(path.get("path"))
                shown = f'"{where}"' if where else '"" (default path)'
                self.log("warning", f'No matching service found for ingress rule: {shown} -> "{service}"')
        return True
