"""Which wait belongs to which kind, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab.engine.providers.kubernetes.client import ApiClient, ApiError, Object
from lab.engine.providers.kubernetes.conditions import ExpectedWait, read_expectations
from lab.engine.providers.kubernetes.discovery import Discovery
from lab.engine.providers.kubernetes.networking import IngressWait, ServiceWait
from lab.engine.providers.kubernetes.objects import (
    SKIP_AWAIT,
    api_version_of,
    full_kind,
    is_annotated,
    kind_of,
    namespace_of,
    pluck,
    text,
    timeout_of,
)
from lab.engine.providers.kubernetes.storage import (
    CLAIM_SECONDS,
    QUOTA_SECONDS,
    TOKEN_SECONDS,
    VOLUME_SECONDS,
    StateWait,
    claim_is_settled,
    quota_is_in_force,
    token_is_there,
    volume_is_usable,
)
from lab.engine.providers.kubernetes.waiting import StatusLog, Wait, Waiter, not_initialized
from lab.engine.providers.kubernetes.watching import Event
from lab.engine.providers.kubernetes.workloads import (
    DaemonSetWait,
    DeploymentWait,
    JobWait,
    PodWait,
    StatefulSetWait,
)

DEFAULT_SECONDS = 600.0

BuiltIn = Callable[[Object, Object | None, StatusLog], Wait]

BUILT_IN: dict[str, BuiltIn] = {
    "apps/v1/DaemonSet": DaemonSetWait,
    "apps/v1/Deployment": DeploymentWait,
    "apps/v1/StatefulSet": StatefulSetWait,
    "batch/v1/Job": JobWait,
    "networking.k8s.io/v1/Ingress": IngressWait,
    "v1/Pod": PodWait,
    "v1/Service": ServiceWait,
}
"""Waits that also say, at a refresh, whether the object is healthy."""

AT_REST: dict[str, BuiltIn] = {
    **BUILT_IN,
    "networking.k8s.io/v1/Ingress": lambda live, last, log: IngressWait(live, last, log, settle=0.0),
    "v1/Service": lambda live, last, log: ServiceWait(live, last, log, settle=0.0),
}
"""The same for a look at what is there now: nothing to settle."""


@dataclass
class Readiness:
    """Waits for created and updated objects, and looks at existing ones."""

    client: ApiClient
    discovery: Discovery
    waiter: Waiter

    def until_ready(self, inputs: Object, live: Object, last: Object | None, timeout: float, log: StatusLog) -> Object:
        """Block until ``live`` is ready; its last state. ``last``: its state before an update.

        ``waitFor`` takes the built-in wait's place, ``skipAwait`` both. Raises ``WaitFailed``.
        """
        if is_annotated(inputs, SKIP_AWAIT):
            return live
        tests = read_expectations(live)
        if tests:
            wait: Wait = ExpectedWait(live, tests, log, self._path(live))
            return self.waiter.run(wait, timeout_of(inputs, timeout, DEFAULT_SECONDS), log)
        if full_kind(live) in BUILT_IN:
            wait = BUILT_IN[full_kind(live)](live, last, log)
            return self.waiter.run(wait, timeout_of(inputs, timeout, DEFAULT_SECONDS), log)
        short = self._short_wait(live, log)
        if short is None:
            return live
        return self.waiter.run(short[0], timeout_of(inputs, timeout, short[1]), log)

    def look(self, inputs: Object, live: Object, log: StatusLog) -> None:
        """Raises ``WaitFailed`` when the existing object is unhealthy in the eyes of its built-in wait."""
        make = AT_REST.get(full_kind(live))
        if make is None or is_annotated(inputs, SKIP_AWAIT):
            return
        wait = make(live, None, log)
        for path in wait.paths:
            for obj in self._listed(path):
                wait.observe(Event(path, "ADDED", obj))
        if not wait.is_ready():
            raise not_initialized(wait.live, wait.problems())

    def _path(self, live: Object) -> str:
        return self.discovery.find(api_version_of(live), kind_of(live)).path(namespace_of(live))

    def _listed(self, path: str) -> list[Object]:
        try:
            return self.client.items(path)[0]
        except ApiError:
            return []

    def _short_wait(self, live: Object, log: StatusLog) -> tuple[Wait, float] | None:
        kind = full_kind(live)
        if kind == "v1/PersistentVolumeClaim":
            return StateWait(live, claim_is_settled(self._bind_mode), self._path(live)), CLAIM_SECONDS
        if kind == "v1/PersistentVolume":
            return StateWait(live, volume_is_usable(log), self._path(live)), VOLUME_SECONDS
        if kind == "v1/ResourceQuota":
            return StateWait(live, quota_is_in_force, self._path(live)), QUOTA_SECONDS
        if kind == "v1/Secret" and live.get("type") == "kubernetes.io/service-account-token":
            return StateWait(live, token_is_there, self._path(live)), TOKEN_SECONDS
        return None

    def _bind_mode(self, claim: Object) -> str:
        name = text(pluck(claim, "spec", "storageClassName"))
        if not name:
            return ""
        try:
            return text(self.client.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}").get("volumeBindingMode"))
        except ApiError:
            return ""
