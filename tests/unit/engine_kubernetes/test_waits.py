"""The built-in waits, fed with the events that controllers cause."""

from __future__ import annotations

from typing import Any

import pytest

from lab.engine.providers.kubernetes.networking import NO_ADDRESS, NO_PODS, IngressWait, ServiceWait
from lab.engine.providers.kubernetes.storage import claim_is_settled
from lab.engine.providers.kubernetes.waiting import StatusLog, Wait, WaitFailed, ended
from lab.engine.providers.kubernetes.watching import Event
from lab.engine.providers.kubernetes.workloads import (
    DaemonSetWait,
    DeploymentWait,
    JobWait,
    PodWait,
    StatefulSetWait,
)

NS = "/namespaces/n"
DEPLOYMENTS, SETS = f"/apis/apps/v1{NS}/deployments", f"/apis/apps/v1{NS}/replicasets"
PODS, CLAIMS = f"/api/v1{NS}/pods", f"/api/v1{NS}/persistentvolumeclaims"
SERVICES, ENDPOINTS = f"/api/v1{NS}/services", f"/api/v1{NS}/endpoints"


class Said(list[str]):
    """Collects progress messages."""

    def log(self) -> StatusLog:
        return StatusLog(lambda severity, message: self.append(f"{severity}: {message}"))


def obj(name: str = "o", *, generation: int = 1, uid: str = "u", owner: str = "", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "generation": generation, "uid": uid, "annotations": {}}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner}]
    return {"metadata": metadata, **fields}


def condition(name: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": name, "status": status, "reason": reason, "message": message}


def deployment(*conditions: dict[str, str], revision: str = "1", generation: int = 1, **status: Any) -> dict[str, Any]:
    made = obj(
        generation=generation, status={"observedGeneration": generation, "conditions": list(conditions), **status}
    )
    made["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = revision
    return made


def replica_set(ready: int, *, revision: str = "1", wanted: int = 1) -> dict[str, Any]:
    made = obj(
        f"rs-{revision}", uid=f"rs-{revision}", owner="u", spec={"replicas": wanted}, status={"readyReplicas": ready}
    )
    made["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = revision
    return made


UNAVAILABLE = condition(
    "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
)
AVAILABLE = condition("Available", "True", "MinimumReplicasAvailable")
ROLLED_OUT = condition("Progressing", "True", "NewReplicaSetAvailable")
ROLLING = condition("Progressing", "True", "ReplicaSetUpdated")


def feed(wait: Wait, *events: tuple[str, dict[str, Any]]) -> None:
    for path, changed in events:
        wait.observe(Event(path, "MODIFIED", changed))


def test_a_deployment_is_ready_with_its_replica_set() -> None:
    said = Said()
    wait = DeploymentWait(obj(), None, said.log())
    feed(wait, (DEPLOYMENTS, deployment(UNAVAILABLE)), (SETS, replica_set(0)))
    assert not wait.is_ready()
    assert said == [
        "warning: [MinimumReplicasUnavailable] Deployment does not have minimum availability.",
        "info: Waiting for app ReplicaSet to be available (0/1 Pods available)",
    ]
    feed(wait, (SETS, replica_set(1)), (DEPLOYMENTS, deployment(AVAILABLE, ROLLED_OUT)))
    assert wait.is_ready()
    assert said[-1] == "info: Deployment initialization complete"


def test_a_deployment_that_is_given_up_says_what_is_missing() -> None:
    wait = DeploymentWait(obj("slow"), None, Said().log())
    slow = deployment(UNAVAILABLE)
    slow["metadata"]["name"] = "slow"
    feed(wait, (DEPLOYMENTS, slow), (SETS, replica_set(0)))
    cancelled = wait.ending(is_cancelled=True)
    assert cancelled is not None
    assert cancelled.reasons == (
        'Resource operation was cancelled for "slow"',
        "[MinimumReplicasUnavailable] Deployment does not have minimum availability.",
        "Minimum number of live Pods was not attained",
    )
    assert str(wait.ending(is_cancelled=False)) == "'slow' timed out waiting to be Ready"


def test_a_new_revision_must_be_rolled_out() -> None:
    wait = DeploymentWait(obj(generation=2), deployment(revision="1"), Said().log())
    feed(
        wait,
        (SETS, replica_set(1, revision="2")),
        (DEPLOYMENTS, deployment(AVAILABLE, ROLLING, revision="2", generation=2)),
    )
    assert not wait.is_ready()
    assert wait.problems() == ["Minimum number of Pods to consider the application live was not attained"]
    feed(wait, (DEPLOYMENTS, deployment(AVAILABLE, ROLLED_OUT, revision="2", generation=2)))
    assert wait.is_ready()


def test_an_older_state_of_the_deployment_is_not_looked_at() -> None:
    wait = DeploymentWait(obj(generation=2), None, Said().log())
    feed(wait, (SETS, replica_set(1)), (DEPLOYMENTS, deployment(AVAILABLE, ROLLED_OUT, generation=1)))
    assert not wait.is_ready()


def test_claims_of_a_deployment_must_be_bound() -> None:
    wait = DeploymentWait(obj(), None, Said().log())
    mounting = deployment(AVAILABLE, ROLLED_OUT)
    mounting["spec"] = {"template": {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}}}
    feed(wait, (DEPLOYMENTS, mounting), (SETS, replica_set(1)), (CLAIMS, obj("data", status={"phase": "Pending"})))
    assert not wait.is_ready()
    assert wait.problems() == ['Failed to bind PersistentVolumeClaim(s): "data"']
    feed(wait, (CLAIMS, obj("data", status={"phase": "Bound"})), (CLAIMS, obj("other", status={"phase": "Pending"})))
    assert wait.is_ready()


def test_warnings_of_pods_are_told() -> None:
    wait = DeploymentWait(obj(), None, Said().log())
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    status = {
        "conditions": [
            condition("PodScheduled", "True"),
            condition("Initialized", "True"),
            condition("Ready", "False", "ContainersNotReady", "containers with unready status: [c]"),
        ],
        "containerStatuses": [{"name": "c", "ready": False, "state": {"waiting": waiting}}],
    }
    feed(
        wait,
        (DEPLOYMENTS, deployment(UNAVAILABLE)),
        (SETS, replica_set(0)),
        (PODS, obj("p", owner="rs-1", status=status)),
    )
    assert wait.problems()[-1] == (
        "[Pod n/p]: containers with unready status: [c][ImagePullBackOff] Back-off pulling image"
    )


def stateful_set(ready: int, *, generation: int = 1, update: str = "a", **status: Any) -> dict[str, Any]:
    found = {"observedGeneration": generation, "replicas": 2, "readyReplicas": ready, "currentReplicas": 2}
    revisions = {"currentRevision": "a", "updateRevision": update}
    return obj(generation=generation, spec={"replicas": 2}, status=found | revisions | status)


def test_a_stateful_set_needs_all_replicas_of_the_newest_revision() -> None:
    said, path = Said(), f"/apis/apps/v1{NS}/statefulsets"
    wait = StatefulSetWait(obj(), None, said.log())
    feed(wait, (path, stateful_set(1)))
    assert not wait.is_ready()
    assert said[-1] == "info: [1/2] Waiting for StatefulSet to create Pods (1/2 Pods ready)"
    assert wait.problems() == ["1 out of 2 replicas succeeded readiness checks"]
    feed(wait, (path, stateful_set(2)))
    assert wait.is_ready()
    feed(wait, (path, stateful_set(2, generation=2, update="b")))
    assert not wait.is_ready()
    assert wait.problems() == ['StatefulSet controller failed to advance from revision "a" to revision "b"']


def test_a_daemon_set_needs_a_ready_pod_on_every_node() -> None:
    said, path = Said(), f"/apis/apps/v1{NS}/daemonsets"
    wait = DaemonSetWait(obj(), None, said.log())
    counts = {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2}
    full = counts | {"updatedNumberScheduled": 2, "numberAvailable": 2}
    feed(wait, (path, obj(status=full | {"numberReady": 1})))
    assert not wait.is_ready()
    assert said[-1] == "info: Ready: 1/2"
    feed(wait, (path, obj(status=full | {"numberReady": 2})))
    assert wait.is_ready()


def test_a_job_is_ready_when_complete_and_fails_at_once_when_it_gave_up() -> None:
    path = f"/apis/batch/v1{NS}/jobs"
    wait = JobWait(obj("job"), None, Said().log())
    feed(wait, (path, obj("job", status={"startTime": "t", "active": 1})))
    assert not wait.is_ready()
    feed(wait, (path, obj("job", status={"startTime": "t", "conditions": [condition("Complete", "True")]})))
    assert wait.is_ready()
    failed = condition("Failed", "True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    with pytest.raises(WaitFailed) as caught:
        feed(wait, (path, obj("job", status={"startTime": "t", "conditions": [failed]})))
    assert caught.value.reasons == (
        "Resource 'job' was created but failed to initialize",
        "[BackoffLimitExceeded] Job has reached the specified backoff limit",
    )


def test_a_pod_is_ready_after_its_three_steps() -> None:
    wait = PodWait(obj(), None, Said().log())
    assert not wait.is_ready()
    done = [condition(step, "True") for step in ("PodScheduled", "Initialized", "Ready")]
    feed(wait, (PODS, obj(status={"conditions": done})))
    assert wait.is_ready()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def service(**spec: Any) -> dict[str, Any]:
    return obj("s", spec={"selector": {"a": "b"}, **spec})


def endpoints(*, ready: bool = False, pending: bool = False) -> dict[str, Any]:
    subset = ({"addresses": [{}]} if ready else {}) | ({"notReadyAddresses": [{}]} if pending else {})
    return obj("s", subsets=[subset] if subset else [])


def test_a_service_waits_until_its_endpoints_have_settled() -> None:
    clock = Clock()
    wait = ServiceWait(service(), None, Said().log(), settle=1.0, clock=clock)
    feed(wait, (SERVICES, service()))
    assert not wait.is_ready()
    feed(wait, (ENDPOINTS, endpoints(pending=True)))
    clock.now = 2.0
    assert not wait.is_ready()
    assert wait.problems() == [NO_PODS]
    feed(wait, (ENDPOINTS, endpoints(ready=True)))
    assert not wait.is_ready()
    clock.now = 3.0
    assert wait.is_ready()


@pytest.mark.parametrize(
    "made",
    [service(clusterIP="None"), service(type="ExternalName"), obj("s", spec={"ports": []})],
    ids=["headless", "external name", "no selector"],
)
def test_services_without_pods_of_their_own_are_not_waited_for(made: dict[str, Any]) -> None:
    wait = ServiceWait(made, None, Said().log())
    feed(wait, (SERVICES, made))
    assert wait.is_ready()


def test_a_load_balancer_needs_an_address() -> None:
    wait = ServiceWait(service(type="LoadBalancer"), None, Said().log(), settle=0.0)
    feed(wait, (SERVICES, service(type="LoadBalancer")), (ENDPOINTS, endpoints(ready=True)))
    assert not wait.is_ready()
    assert wait.problems() == [NO_ADDRESS]
    feed(
        wait,
        (SERVICES, service(type="LoadBalancer") | {"status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}}),
    )
    assert wait.is_ready()


def ingress(backend: str, *, address: str = "") -> dict[str, Any]:
    path = {"path": "/", "backend": {"service": {"name": backend}}}
    status = {"loadBalancer": {"ingress": [{"hostname": address}]}} if address else {}
    return obj("i", spec={"rules": [{"host": "h", "http": {"paths": [path]}}]}, status=status)


def test_an_ingress_needs_its_backend_and_an_address() -> None:
    said, path = Said(), f"/apis/networking.k8s.io/v1{NS}/ingresses"
    wait = IngressWait(ingress("s"), None, said.log())
    feed(wait, (path, ingress("s")))
    assert not wait.is_ready()
    assert wait.problems()[0] == "Ingress has at least one rule with an unavailable target endpoint."
    feed(wait, (ENDPOINTS, endpoints(ready=True)))
    assert not wait.is_ready()
    assert said[-1] == "info: [2/3] Waiting for update of .status.loadBalancer with hostname/IP"
    feed(wait, (path, ingress("s", address="label.tailnet.ts.net")))
    assert wait.is_ready()


def test_a_pending_claim_is_good_enough_when_its_class_waits_for_a_consumer() -> None:
    pending, bound = {"status": {"phase": "Pending"}}, {"status": {"phase": "Bound"}}
    assert claim_is_settled(lambda _: "WaitForFirstConsumer")(pending)
    assert not claim_is_settled(lambda _: "Immediate")(pending)
    assert claim_is_settled(lambda _: "Immediate")(bound)


def test_the_sentences_of_an_ending() -> None:
    assert str(ended(obj("x"), [], is_cancelled=True)) == 'Resource operation was cancelled for "x"'
    assert str(ended(obj("x"), [], is_cancelled=False)) == "'x' timed out waiting to be Ready"
