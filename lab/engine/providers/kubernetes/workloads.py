"""When Deployments, StatefulSets, DaemonSets, Jobs and Pods are ready, in the real provider's terms and words."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import (
    annotation,
    is_owned_by,
    name_of,
    namespace_of,
    pluck,
    text,
)
from lab.engine.providers.kubernetes.pods import display_name, find_condition, pod_steps, pod_warnings
from lab.engine.providers.kubernetes.waiting import StatusLog, WaitFailed, ended, not_initialized
from lab.engine.providers.kubernetes.watching import Event

REVISION = "deployment.kubernetes.io/revision"


def collection(api: str, namespace: str, plural: str) -> str:
    """Path of a collection of Kubernetes' own kinds; ``api`` is ``api/v1`` or ``apis/<group>/<version>``."""
    return f"/{api}/namespaces/{namespace}/{plural}"


def count(obj: Any, *path: str) -> int:
    value = pluck(obj, *path)
    return value if isinstance(value, int) else 0


class _OwnedPods:
    """Pods that belong to one object, with their warnings."""

    def __init__(self) -> None:
        self._pods: dict[str, Object] = {}

    def observe(self, event: Event) -> None:
        if event.type == "DELETED":
            self._pods.pop(name_of(event.object), None)
        else:
            self._pods[name_of(event.object)] = event.object

    def warnings(self, owner: Object | None) -> list[str]:
        return pod_warnings(pod for pod in self._pods.values() if is_owned_by(pod, owner))


class _OwnerWait:
    """Common part: the object itself, newest state only, and the Pods around it."""

    def __init__(self, live: Object, last: Object | None, log: StatusLog, plural: str, api: str) -> None:
        self.live = live
        self.last = last
        self.log = log
        self._generation = count(live, "metadata", "generation")
        self._own = collection(api, namespace_of(live), plural)
        self._pods_path = collection("api/v1", namespace_of(live), "pods")
        self.pods = _OwnedPods()

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._own, self._pods_path)

    def is_news(self, event: Event) -> bool:
        """Whether the event is about this object, and not older than what was asked for."""
        is_own = event.path == self._own and name_of(event.object) == name_of(self.live)
        return is_own and event.type != "DELETED" and count(event.object, "metadata", "generation") >= self._generation

    def problems(self) -> list[str]:
        return []

    def report(self) -> None:
        for problem in self.pods.warnings(self.live):
            self.log("warning", problem)

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        return ended(self.live, self.problems(), is_cancelled=is_cancelled)


class DeploymentWait(_OwnerWait):
    """Ready when available, and the ReplicaSet of the newest revision has all its Pods ready.

    After the first revision the controller must also say ``NewReplicaSetAvailable``. Claims that the Pods mount must be
    bound.
    """

    def __init__(self, live: Object, last: Object | None, log: StatusLog) -> None:
        super().__init__(live, last, log, "deployments", "apis/apps/v1")
        self._sets_path = collection("apis/apps/v1", namespace_of(live), "replicasets")
        self._claims_path = collection("api/v1", namespace_of(live), "persistentvolumeclaims")
        self._sets: dict[str, Object] = {}
        self._claims: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._revision = "0"
        self._is_reconciled = False
        self._is_available = False
        self._is_rolled_out = False

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._own, self._sets_path, self._pods_path, self._claims_path)

    def observe(self, event: Event) -> None:
        if self.is_news(event):
            self._observe_deployment(event.object)
        elif event.path == self._sets_path and is_owned_by(event.object, self.live):
            self._observe_set(event)
        elif event.path == self._pods_path:
            self.pods.observe(event)
        elif event.path == self._claims_path:
            self._observe_claim(event)

    def is_ready(self) -> bool:
        ready = self._is_reconciled and self._is_available and self._is_set_ready() and not self._unbound()
        if ready and self._revision != "1" and not self._is_rolled_out:
            ready = False
        if ready:
            self.log("info", "Deployment initialization complete")
        return ready

    def problems(self) -> list[str]:
        found = list(self._errors.values())
        if self._unbound():
            found.append(f'Failed to bind PersistentVolumeClaim(s): "{",".join(self._unbound())}"')
        if not self._is_available:
            found.append("Minimum number of live Pods was not attained")
        elif self._revision != "1" and not self._is_rolled_out:
            found.append("Minimum number of Pods to consider the application live was not attained")
        elif not self._is_set_ready():
            found.append(
                "Minimum number of Pods to consider the application live was not attained"
                if self._revision == "1"
                else "Attempted to roll forward to new ReplicaSet, but minimum number of Pods did not become live"
            )
        return found + self.pods.warnings(self._sets.get(self._revision))

    def report(self) -> None:
        for problem in self.pods.warnings(self._sets.get(self._revision)):
            self.log("warning", problem)

    def _observe_deployment(self, obj: Object) -> None:
        if count(obj, "status", "observedGeneration") == count(obj, "metadata", "generation"):
            self._is_reconciled = True
        self.live = obj
        self._errors = {}
        self._revision = annotation(obj, REVISION) or "0"
        progressing = find_condition(obj, "Progressing")
        if progressing is not None:
            self._is_rolled_out = progressing.get("status") == "True" and (
                progressing.get("reason") == "NewReplicaSetAvailable"
            )
            self._note(progressing)
        available = find_condition(obj, "Available")
        if available is not None:
            self._is_available = available.get("status") == "True"
            self._note(available)
        self._tell_progress()

    def _note(self, condition: dict[str, Any]) -> None:
        reason, message = text(condition.get("reason")), text(condition.get("message"))
        if condition.get("status") != "True" and reason and message:
            self._errors[reason] = f"[{reason}] {message}"
            self.log("warning", self._errors[reason])

    def _observe_set(self, event: Event) -> None:
        revision = annotation(event.object, REVISION)
        if event.type == "DELETED":
            self._sets.pop(revision, None)
        else:
            self._sets[revision] = event.object
        self._tell_progress()

    def _observe_claim(self, event: Event) -> None:
        volumes = pluck(self.live, "spec", "template", "spec", "volumes") or []
        mounted = {pluck(volume, "persistentVolumeClaim", "claimName") for volume in volumes}
        name = name_of(event.object)
        if name not in mounted:
            return
        if event.type == "DELETED":
            self._claims.pop(name, None)
            return
        self._claims[name] = text(pluck(event.object, "status", "phase"))
        if self._claims[name] != "Bound":
            self.log(
                "warning",
                f"PersistentVolumeClaim: [{name}] is not ready. status.phase currently at: {self._claims[name]}",
            )

    def _unbound(self) -> list[str]:
        return [name for name, phase in self._claims.items() if phase != "Bound"]

    def _is_set_ready(self) -> bool:
        current = self._sets.get(self._revision)
        return current is not None and count(current, "status", "readyReplicas") >= _wanted(current)

    def _tell_progress(self) -> None:
        current = self._sets.get(self._revision)
        if current is not None and not self._is_set_ready():
            ready = count(current, "status", "readyReplicas")
            self.log("info", f"Waiting for app ReplicaSet to be available ({ready}/{_wanted(current)} Pods available)")


def _wanted(replica_set: Object) -> int:
    replicas = pluck(replica_set, "spec", "replicas")
    return replicas if isinstance(replicas, int) else 1


class StatefulSetWait(_OwnerWait):
    """Ready when the controller saw the newest generation, all replicas are ready and the revision is the newest."""

    def __init__(self, live: Object, last: Object | None, log: StatusLog) -> None:
        super().__init__(live, last, log, "statefulsets", "apis/apps/v1")
        self._are_replicas_ready = False
        self._is_revision_ready = False
        self._ready = self._wanted = 0

    def observe(self, event: Event) -> None:
        if event.path == self._pods_path:
            self.pods.observe(event)
        elif self.is_news(event):
            self._observe_set(event.object)

    def is_ready(self) -> bool:
        if self._are_replicas_ready and self._is_revision_ready:
            self.log("info", "StatefulSet initialization complete")
            return True
        if count(self.live, "metadata", "generation") <= 1:
            step = f"[1/2] Waiting for StatefulSet to create Pods ({self._ready}/{self._wanted} Pods ready)"
        elif not self._are_replicas_ready:
            step = f"[1/3] Waiting for StatefulSet update to roll out ({self._ready}/{self._wanted} Pods ready)"
        else:
            step = "[2/3] Waiting for StatefulSet to update .status.currentRevision"
        self.log("info", step)
        return False

    def problems(self) -> list[str]:
        found: list[str] = []
        if not self._are_replicas_ready:
            found.append(f"{self._ready} out of {self._wanted} replicas succeeded readiness checks")
        if not self._is_revision_ready:
            status = self.live.get("status") or {}
            before, wanted = text(status.get("currentRevision")), text(status.get("updateRevision"))
            found.append(f'StatefulSet controller failed to advance from revision "{before}" to revision "{wanted}"')
        return found + self.pods.warnings(self.live)

    def _observe_set(self, obj: Object) -> None:
        self.live = obj
        self._are_replicas_ready = self._is_revision_ready = False
        status = obj.get("status") or {}
        generation = count(obj, "metadata", "generation")
        if count(status, "observedGeneration") < generation:
            return
        self._wanted = count(obj, "spec", "replicas")
        ready, updated = count(status, "readyReplicas"), count(status, "updatedReplicas")
        are_ready = self._wanted == count(status, "replicas") == ready
        if generation > 1 and pluck(obj, "spec", "updateStrategy", "type") == "OnDelete":
            self._is_revision_ready, self._are_replicas_ready = True, are_ready
        else:
            revision = text(status.get("currentRevision"))
            self._is_revision_ready = bool(revision) and revision == status.get("updateRevision")
            self._are_replicas_ready = are_ready and self._wanted == count(status, "currentReplicas")
        self._ready = ready if self._is_revision_ready else min(ready, updated)


class DaemonSetWait(_OwnerWait):
    """Ready when every node that should has an updated, available, ready Pod."""

    def __init__(self, live: Object, last: Object | None, log: StatusLog) -> None:
        super().__init__(live, last, log, "daemonsets", "apis/apps/v1")

    def observe(self, event: Event) -> None:
        if event.path == self._pods_path:
            self.pods.observe(event)
        elif self.is_news(event):
            self.live = event.object

    def is_ready(self) -> bool:
        is_done, message = daemon_set_status(self.live)
        self.log("info", message)
        return is_done

    def problems(self) -> list[str]:
        return self.pods.warnings(self.live)

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        del is_cancelled  # the real provider has one sentence for both
        return WaitFailed("timed out waiting for the condition", self.live)


def daemon_set_status(obj: Object) -> tuple[bool, str]:
    """Whether the rollout is complete, and where it stands (the words of kstatus)."""
    generation, status = count(obj, "metadata", "generation"), obj.get("status") or {}
    observed = count(status, "observedGeneration")
    if observed != generation:
        return False, f"DaemonSet generation is {generation}, but latest observed generation is {observed}"
    wanted = count(status, "desiredNumberScheduled")
    for field, word in (
        ("currentNumberScheduled", "Current"),
        ("updatedNumberScheduled", "Updated"),
        ("numberAvailable", "Available"),
        ("numberReady", "Ready"),
    ):
        if count(status, field) < wanted:
            return False, f"{word}: {count(status, field)}/{wanted}"
    return True, f"All replicas scheduled as expected. Replicas: {wanted}"


class PodWait(_OwnerWait):
    """Ready when scheduled, initialized and ready (or run to a successful end)."""

    def __init__(self, live: Object, last: Object | None, log: StatusLog) -> None:
        super().__init__(live, last, log, "pods", "api/v1")
        self._steps = pod_steps(live)

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._own,)

    def observe(self, event: Event) -> None:
        if self.is_news(event):
            self.live = event.object
            self._steps = pod_steps(event.object)

    def is_ready(self) -> bool:
        for step in self._steps:
            self.log("info", step.waiting)
        return all(step.is_ok for step in self._steps)

    def problems(self) -> list[str]:
        return [step.message for step in self._steps if step.message and step.severity == "warning"]


class JobWait(_OwnerWait):
    """Ready when complete; fails at once when the Job gave up."""

    def __init__(self, live: Object, last: Object | None, log: StatusLog) -> None:
        super().__init__(live, last, log, "jobs", "apis/batch/v1")
        self._failure = ""

    def observe(self, event: Event) -> None:
        if event.path == self._pods_path:
            self.pods.observe(event)
        elif self.is_news(event):
            self.live = event.object
            self._failure = _job_failure(event.object)
            if self._failure:
                raise not_initialized(self.live, self.problems())

    def is_ready(self) -> bool:
        self.log("info", f'Waiting for Job "{display_name(self.live)}" to start')
        status = self.live.get("status") or {}
        if not status.get("startTime"):
            return False
        counts = (count(status, "active"), count(status, "succeeded"), count(status, "failed"))
        progress = "(Active: {} | Succeeded: {} | Failed: {})".format(*counts)
        self.log("info", f'Waiting for Job "{display_name(self.live)}" to succeed {progress}')
        return job_is_complete(self.live)

    def problems(self) -> list[str]:
        return [problem for problem in (self._failure, *self.pods.warnings(self.live)) if problem]


def job_is_complete(job: Object) -> bool:
    condition = find_condition(job, "Complete")
    return condition is not None and condition.get("status") == "True"


def _job_failure(job: Object) -> str:
    condition = find_condition(job, "Failed")
    if condition is None or condition.get("status") != "True":
        return ""
    if condition.get("reason") not in ("BackoffLimitExceeded", "DeadlineExceeded"):
        return ""
    return f"[{condition['reason']}] {condition.get('message', '')}"
