"""The kubernetes provider against the lab's real API server: objects, waits, refusals, charts."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab.engine.cancellation import CancellationToken
from lab.engine.providers import (
    ConstructRequest,
    PartialFailure,
    ProviderError,
    RegisteredResource,
    ResourceOptions,
)
from lab.engine.providers.kubernetes.cluster import Cluster
from lab.engine.providers.kubernetes.provider import KubernetesProvider
from lab.engine.values import UNKNOWN, Secret
from tests.lab.conftest import Lab

pytestmark = pytest.mark.lab

NAMESPACE = "kubernetes:core/v1:Namespace"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
SERVICE = "kubernetes:core/v1:Service"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
CRD = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"


class Host:
    """Keeps what the provider says; ephemeral messages in brackets."""

    def __init__(self, folder: Path) -> None:
        self.cancellation = CancellationToken()
        self.project, self.stack, self.program_folder = "sample", "mx", str(folder)
        self.said: list[str] = []

    def log(self, severity: str, urn: str, message: str, *, ephemeral: bool = False) -> None:
        self.said.append(f"[{severity}: {message}]" if ephemeral else f"{severity}: {message}")


class Stack:
    """Drives one provider like the engine does: check, diff, preview, then the real thing."""

    def __init__(self, lab: Lab, folder: Path, settings: dict[str, Any] | None = None) -> None:
        self.host = Host(folder)
        environment = {"KUBECONFIG": str(lab.kubeconfig), "OPS_STATE": str(lab.state_dir), "PATH": "/usr/bin:/bin"}
        self.provider = KubernetesProvider(self.host, environment)
        self.provider.configure(settings or {})
        self.made: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {}

    @property
    def cluster(self) -> Cluster:
        found = self.provider._cluster
        assert isinstance(found, Cluster)
        return found

    def urn(self, token: str, name: str) -> str:
        return f"urn:pulumi:mx::sample::{token}::{name}"

    def preview(self, token: str, name: str, inputs: dict[str, Any]) -> Any:
        urn = self.urn(token, name)
        checked = self.provider.check(urn, token, None, inputs, autoname_seed=b"").inputs
        return self.provider.create(urn, token, checked, preview=True, timeout=0)

    def up(self, token: str, name: str, inputs: dict[str, Any], *, timeout: float = 30) -> dict[str, Any]:
        """Create, or update in place; the outputs."""
        urn, old = self.urn(token, name), self.made.get(name)
        checked = self.provider.check(urn, token, old[2] if old else None, inputs, autoname_seed=b"").inputs
        if old is None:
            created = self.provider.create(urn, token, dict(checked), preview=False, timeout=timeout)
            self.made[name] = (token, created.id, checked, created.outputs)
            return created.outputs
        for preview in (True, False):
            outputs = self.provider.update(
                urn, token, *old[1:], dict(checked), ignore_changes=(), preview=preview, timeout=timeout
            ).outputs
        self.made[name] = (token, old[1], checked, outputs)
        return outputs

    def diff(self, name: str, inputs: dict[str, Any]) -> dict[str, str]:
        token, known, old, outputs = self.made[name]
        urn = self.urn(token, name)
        checked = self.provider.check(urn, token, old, inputs, autoname_seed=b"").inputs
        found = self.provider.diff(urn, token, known, old, outputs, checked, ())
        return {path: diff.kind for path, diff in found.detailed_diff.items()}

    def read(self, name: str) -> Any:
        token, *recorded = self.made[name]
        return self.provider.read(self.urn(token, name), token, *recorded)

    def down(self, name: str, *, timeout: float = 30) -> None:
        token, *recorded = self.made[name]
        self.provider.delete(self.urn(token, name), token, *recorded, timeout=timeout)
        del self.made[name]


@pytest.fixture
def stack(lab: Lab, tmp_path: Path) -> Iterator[Stack]:
    one = Stack(lab, tmp_path)
    yield one
    one.provider.close()


@pytest.fixture
def namespace(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own."""
    name = request.node.name.partition("[")[0].replace("_", "-")[:50].rstrip("-")
    lab.kubectl("create", "namespace", name)
    yield name
    lab.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def config_map(namespace: str, name: str = "settings", **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(namespace: str, *, image: str = "x", replicas: int = 1, **pod: Any) -> dict[str, Any]:
    limits = {"cpu": "0.5", "memory": "1024Mi"}
    container = {"name": "c", "image": image, "env": [{"name": "E", "value": ""}], "resources": {"limits": limits}}
    template = {"metadata": {"labels": {"w": "web"}}, "spec": {"containers": [container], **pod}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"w": "web"}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": spec,
    }


def managers(outputs: dict[str, Any]) -> list[tuple[str, str]]:
    return [(entry["manager"], entry["operation"]) for entry in outputs["metadata"]["managedFields"]]


def test_a_create_is_plain_and_the_first_update_takes_over(stack: Stack, namespace: str) -> None:
    inputs = config_map(namespace, colour="blue")
    created = stack.up(CONFIG_MAP, "cm", inputs)
    assert managers(created) == [("pulumi-kubernetes", "Update")]
    assert created["__fieldManager"].startswith("pulumi-kubernetes-")
    labelled = {**inputs, "metadata": {**inputs["metadata"], "labels": {"team": "a"}}}
    assert stack.diff("cm", labelled) == {"metadata.labels": "add"}
    updated = stack.up(CONFIG_MAP, "cm", labelled)
    assert managers(updated) == [(created["__fieldManager"], "Apply")]
    assert stack.diff("cm", labelled) == {}


def test_a_deployment_is_waited_for_and_normal_forms_are_no_difference(stack: Stack, namespace: str) -> None:
    inputs = deployment(namespace)
    outputs = stack.up(DEPLOYMENT, "web", inputs)
    assert outputs["status"]["availableReplicas"] == 1
    assert "[info: Deployment initialization complete]" in stack.host.said
    assert stack.diff("web", inputs) == {}
    changed = deployment(namespace, image="y", replicas=2)
    assert stack.diff("web", changed) == {
        "spec.replicas": "update",
        "spec.template.spec.containers[0].image": "update",
    }
    assert stack.up(DEPLOYMENT, "web", changed)["status"]["availableReplicas"] == 2
    found = stack.read("web")
    assert (found.inputs, found.reasons) == (stack.made["web"][2], ())
    stack.down("web")


def test_what_others_changed_is_seen_by_a_read(stack: Stack, lab: Lab, namespace: str) -> None:
    stack.up(DEPLOYMENT, "web", deployment(namespace))
    lab.kubectl("-n", namespace, "scale", "deployment/web", "--replicas=3")
    lab.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=30s")
    found = stack.read("web")
    assert found.inputs["spec"]["replicas"] == 3
    lab.kubectl("-n", namespace, "delete", "deployment/web")
    assert stack.read("web").id is None


def test_a_deployment_that_does_not_start_is_a_partial_failure(stack: Stack, namespace: str) -> None:
    with pytest.raises(PartialFailure) as caught:
        stack.up(DEPLOYMENT, "web", deployment(namespace, nodeSelector={"no": "where"}), timeout=2)
    urn = stack.urn(DEPLOYMENT, "web")
    assert caught.value.id == f"{namespace}/web"
    assert caught.value.reasons == (
        f'resource "{urn}" was successfully created, but the Kubernetes API server reported that it failed to fully'
        " initialize or become live: 'web' timed out waiting to be Ready",
        "[MinimumReplicasUnavailable] Deployment does not have minimum availability.",
        "Minimum number of live Pods was not attained",
    )
    assert caught.value.outputs["metadata"]["uid"]
    stack.made["web"] = (DEPLOYMENT, caught.value.id, deployment(namespace), caught.value.outputs)
    assert stack.read("web").reasons == (
        "Resource 'web' was created but failed to initialize",
        *caught.value.reasons[1:],
    )


def test_a_wait_ends_within_a_moment_of_its_cancellation(stack: Stack, namespace: str) -> None:
    cancelled_at: list[float] = []

    def cancel() -> None:
        cancelled_at.append(time.monotonic())
        stack.host.cancellation.cancel()

    timer = threading.Timer(1.0, cancel)
    timer.start()
    with pytest.raises(PartialFailure, match='Resource operation was cancelled for "web"'):
        stack.up(DEPLOYMENT, "web", deployment(namespace, nodeSelector={"no": "where"}), timeout=60)
    assert time.monotonic() - cancelled_at[0] < 1.0
    timer.join()


def test_a_changed_port_passes_preview_and_update(stack: Stack, namespace: str) -> None:
    def service(port: int) -> dict[str, Any]:
        metadata = {"name": "s", "namespace": namespace}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": port}]}}

    stack.up(SERVICE, "s", service(80))
    assert stack.diff("s", service(81)) == {"spec.ports[0].port": "update"}
    assert [port["port"] for port in stack.up(SERVICE, "s", service(81))["spec"]["ports"]] == [81]


def test_a_service_waits_for_its_pods(stack: Stack, lab: Lab, namespace: str) -> None:
    metadata = {"name": "s", "namespace": namespace}
    spec = {"selector": {"w": "web"}, "ports": [{"port": 80}]}
    stack.up(DEPLOYMENT, "web", deployment(namespace))
    stack.up(SERVICE, "s", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    assert "[info: Service initialization complete]" in stack.host.said
    assert lab.get("-n", namespace, "endpointslices", "-l", "kubernetes.io/service-name=s")["items"]


def test_the_servers_refusal_is_told(stack: Stack, namespace: str) -> None:
    metadata = {"name": "bad", "namespace": namespace}
    bad = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 99999999}]}}
    with pytest.raises(ProviderError) as caught:
        stack.preview(SERVICE, "bad", bad)
    assert str(caught.value) == (
        f'resource "{stack.urn(SERVICE, "bad")}" was not successfully created by the Kubernetes API server:'
        ' Service "bad" is invalid: [spec.ports[0].port: Invalid value: 99999999: must be between 1 and 65535,'
        " inclusive, spec.ports[0].targetPort: Invalid value: 99999999: must be between 1 and 65535, inclusive]"
    )


def test_an_object_that_exists_passes_preview_and_fails_the_update(stack: Stack, lab: Lab, namespace: str) -> None:
    lab.kubectl("-n", namespace, "create", "configmap", "taken")
    assert stack.preview(CONFIG_MAP, "taken", config_map(namespace, "taken")).id == ""
    assert '[info: Retry #0; creation failed: configmaps "taken" already exists]' in stack.host.said
    with pytest.raises(ProviderError, match="set upsertExistingObjects on the provider"):
        stack.up(CONFIG_MAP, "taken", config_map(namespace, "taken"))


def test_existing_objects_are_adopted_when_asked_for(lab: Lab, tmp_path: Path, namespace: str) -> None:
    lab.kubectl("-n", namespace, "create", "configmap", "taken")
    stack = Stack(lab, tmp_path, {"upsertExistingObjects": "true"})
    outputs = stack.up(CONFIG_MAP, "taken", config_map(namespace, "taken", a="1"))
    assert (outputs["__fieldManager"], "Apply") in managers(outputs)
    stack.provider.close()


def test_a_missing_namespace_is_no_failure_of_a_preview(stack: Stack) -> None:
    inputs = config_map("not-there-yet", a="1")
    assert stack.preview(CONFIG_MAP, "cm", inputs).outputs == inputs


def test_fields_of_others_are_not_taken(stack: Stack, lab: Lab, namespace: str) -> None:
    inputs = config_map(namespace, colour="blue")
    stack.up(CONFIG_MAP, "cm", inputs)
    stack.up(CONFIG_MAP, "cm", {**inputs, "metadata": {**inputs["metadata"], "labels": {"a": "b"}}})
    patch = '{"data":{"colour":"red"}}'
    lab.kubectl("-n", namespace, "patch", "configmap", "settings", "--field-manager=somebody", "-p", patch)
    forced = {**inputs["metadata"], "annotations": {"pulumi.com/patchForce": "true"}}
    with pytest.raises(ProviderError) as caught:
        stack.up(CONFIG_MAP, "cm", config_map(namespace, colour="green"))
    assert "server-side apply field conflict detected" in str(caught.value)
    assert 'conflict with "somebody" using v1: .data.colour' in str(caught.value)
    outputs = stack.up(CONFIG_MAP, "cm", config_map(namespace, colour="green") | {"metadata": forced})
    assert outputs["data"] == {"colour": "green"}


def definition(group: str) -> dict[str, Any]:
    names = {"kind": "Widget", "plural": "widgets"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": spec,
    }


def widget(group: str, namespace: str, **annotations: str) -> dict[str, Any]:
    metadata = {"name": "w", "namespace": namespace, "annotations": annotations}
    return {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": metadata, "spec": {"a": "0.50"}}


def test_a_kind_and_its_first_object_can_come_together(stack: Stack, lab: Lab, namespace: str) -> None:
    group = "together.example.org"
    token = f"kubernetes:{group}/v1:Widget"
    assert stack.preview(token, "w", widget(group, namespace)).id == ""
    try:
        stack.up(CRD, "crd", definition(group))
        stack.up(token, "w", widget(group, namespace))
        assert stack.diff("w", widget(group, namespace)) == {}
        assert stack.diff("crd", definition(group)) == {}
        stack.down("w")
    finally:
        lab.kubectl("delete", "crd", f"widgets.{group}", "--ignore-not-found")


def test_a_missing_kind_is_retried_and_then_told(stack: Stack, namespace: str) -> None:
    stack.cluster.operations.retry_seconds = (0.05, 0.05)
    token = "kubernetes:postgresql.cnpg.io/v1:Absent"
    inputs = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Absent",
        "metadata": {"name": "c", "namespace": namespace},
    }
    with pytest.raises(ProviderError) as caught:
        stack.up(token, "cr", inputs)
    assert str(caught.value) == (
        f'creation of resource "{stack.urn(token, "cr")}" with kind postgresql.cnpg.io/v1/Absent failed because the'
        " Kubernetes API server reported that the apiVersion for this resource does not exist. Verify that any required"
        ' CRDs have been created: no matches for kind "Absent" in version "postgresql.cnpg.io/v1"'
    )
    complaint = 'creation failed: no matches for kind "Absent" in version "postgresql.cnpg.io/v1"]'
    assert [line for line in stack.host.said if line.endswith(complaint)]


def test_an_annotation_decides_what_is_waited_for(stack: Stack, lab: Lab, namespace: str) -> None:
    group = "waits.example.org"
    token = f"kubernetes:{group}/v1:Widget"
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    stack.up(CRD, "crd", definition(group))

    def make_ready() -> None:
        lab.kubectl("-n", namespace, "wait", "--for=create", "widget/w", "--timeout=60s")
        patch = str(ready).replace("'", '"')
        lab.kubectl("-n", namespace, "patch", "widget/w", "--subresource=status", "--type=merge", "-p", patch)

    thread = threading.Thread(target=make_ready)
    thread.start()
    try:
        outputs = stack.up(token, "w", widget(group, namespace, **{"pulumi.com/waitFor": "condition=Ready"}))
        assert outputs["status"] == ready["status"]
        never = widget(
            group, namespace, **{"pulumi.com/waitFor": "jsonpath={.status.x}=1", "pulumi.com/timeoutSeconds": "1"}
        )
        with pytest.raises(PartialFailure, match="timed out waiting for the condition"):
            stack.up(token, "w", never, timeout=0)
    finally:
        thread.join()
        lab.kubectl("delete", "crd", f"widgets.{group}", "--ignore-not-found")


def test_warnings_about_the_object_are_told(stack: Stack, lab: Lab, namespace: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "p", "namespace": namespace, "annotations": {"pulumi.com/waitFor": "jsonpath={.x}"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "absent",
        },
    }
    with pytest.raises(PartialFailure):
        stack.up("kubernetes:core/v1:PersistentVolumeClaim", "p", claim, timeout=3)
    assert [line for line in stack.host.said if line.startswith("[warning: ProvisioningFailed: ")]


def test_a_delete_waits_for_finalizers(stack: Stack, lab: Lab, namespace: str) -> None:
    inputs = config_map(namespace)
    stack.up(CONFIG_MAP, "cm", {**inputs, "metadata": {**inputs["metadata"], "finalizers": ["example.org/hold"]}})
    with pytest.raises(ProviderError, match="timed out waiting for the condition"):
        stack.down("cm", timeout=1)
    assert "warning: finalizers might be preventing deletion (example.org/hold)" in stack.host.said
    release = '{"metadata":{"finalizers":null}}'
    timer = threading.Timer(0.5, lab.kubectl, ("-n", namespace, "patch", "cm", "settings", "-p", release))
    timer.start()
    stack.down("cm", timeout=20)
    timer.join()


def test_deleting_what_is_gone_is_a_success(stack: Stack, lab: Lab, namespace: str) -> None:
    stack.up(CONFIG_MAP, "cm", config_map(namespace))
    lab.kubectl("-n", namespace, "delete", "configmap", "settings")
    stack.down("cm")


def test_an_object_of_the_cluster_can_be_read_by_its_id(stack: Stack) -> None:
    found = stack.provider.read(stack.urn(NAMESPACE, "get"), NAMESPACE, "kube-system", None, None)
    assert found.id == "kube-system"
    assert found.inputs["metadata"]["name"] == "kube-system"
    assert "uid" not in found.inputs["metadata"]
    assert found.outputs["metadata"]["uid"]
    assert stack.provider.read(stack.urn(NAMESPACE, "get"), NAMESPACE, "absent", None, None).id is None


class Monitor:
    """Registers children by creating them, as the engine would in an update or a preview."""

    def __init__(self, stack: Stack, *, preview: bool) -> None:
        self._stack = stack
        self._preview = preview
        self.options: dict[str, ResourceOptions] = {}
        self.inputs: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, Any] = {}

    def register(
        self, token: str, name: str, inputs: dict[str, Any], options: ResourceOptions, *, custom: bool = True
    ) -> RegisteredResource:
        self.options[name], self.inputs[name] = options, inputs
        if custom and self._preview:
            self._stack.preview(token, name, inputs)
        elif custom:
            self._stack.up(token, name, inputs)
        return RegisteredResource(self._stack.urn(token, name), UNKNOWN, {})

    def register_outputs(self, urn: str, outputs: dict[str, Any]) -> None:
        raise AssertionError("the real components record no outputs")


TEMPLATE = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-cm
  annotations: {helm.sh/resource-policy: keep}
data:
  colour: {{ .Values.colour }}
  version: {{ .Capabilities.KubeVersion.Version }}
  has: "{{ .Capabilities.APIVersions.Has "apps/v1/Deployment" }}"
  uid: {{ (lookup "v1" "Namespace" "" "kube-system").metadata.uid }}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: {{ .Release.Namespace }}}
stringData: {a: {{ .Values.colour }}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hook, annotations: {helm.sh/hook: post-install}}
"""


def write_chart(folder: Path, template: str) -> None:
    (folder / "mini" / "templates").mkdir(parents=True)
    (folder / "mini" / "Chart.yaml").write_text("apiVersion: v2\nname: mini\nversion: 0.1.0\n")
    (folder / "mini" / "templates" / "all.yaml").write_text(template)


def construct(stack: Stack, inputs: dict[str, Any], *, preview: bool, token: str = "helm.sh/v4:Chart") -> Monitor:
    monitor = Monitor(stack, preview=preview)
    request = ConstructRequest(f"kubernetes:{token}", "mini", inputs, ResourceOptions(), preview)
    monitor.outputs = stack.provider.construct(request, monitor).outputs
    return monitor


def test_a_chart_becomes_objects(stack: Stack, lab: Lab, namespace: str, tmp_path: Path) -> None:
    write_chart(tmp_path, TEMPLATE)
    inputs = {"chart": "./mini", "namespace": namespace, "values": Secret({"colour": "red"})}
    for preview in (True, False):
        monitor = construct(stack, inputs, preview=preview)
    assert set(monitor.inputs) == {"mini", f"mini:{namespace}/mini-cm", f"mini:{namespace}/key"}
    assert monitor.options[f"mini:{namespace}/mini-cm"].retain_on_delete
    assert monitor.inputs[f"mini:{namespace}/key"]["stringData"] == Secret({"a": "red"})
    assert len(monitor.outputs["resources"]) == 2
    data = lab.get("-n", namespace, "configmap", "mini-cm")["data"]
    assert data.pop("version").startswith("v1.")
    assert data == {"colour": "red", "has": "true", "uid": lab.target["cluster_uid"]}
    # A second rendering finds the objects there, and not made by helm.
    assert set(construct(stack, inputs, preview=True).inputs) == set(monitor.inputs)


@contextmanager
def chart_repository(folder: Path, login: str = "") -> Iterator[str]:
    """Serves ``folder`` on loopback, to those who log in when ``login`` (``user:password``) is given; the address."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "Basic " + base64.b64encode(login.encode()).decode()
            if login and self.headers.get("Authorization") != wanted:
                self.send_error(401)
            else:
                super().do_GET()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


@pytest.mark.parametrize("login", ["", "user:hunter2"], ids=["open", "with a login"])
def test_a_chart_can_come_from_a_repository(stack: Stack, lab: Lab, tmp_path: Path, login: str) -> None:
    write_chart(tmp_path, TEMPLATE)
    helm = lab.target["tools"]["helm"]
    repository = tmp_path / "repository"
    subprocess.run(
        [helm, "package", "mini", "--destination", "repository"], cwd=tmp_path, check=True, capture_output=True
    )
    shutil.rmtree(tmp_path / "mini")
    with chart_repository(repository, login) as url:
        argv = [helm, "repo", "index", "repository", "--url", url]
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
        user, _, password = login.partition(":")
        options = {"repo": url} | ({"username": user, "password": Secret(password)} if login else {})
        inputs = {"chart": "mini-chart", "version": "0.1.0", "repositoryOpts": options, "values": {"colour": "red"}}
        with pytest.raises(ProviderError, match="unable to locate the chart"):
            construct(stack, inputs, preview=True)
        monitor = construct(stack, inputs | {"chart": "mini"}, preview=True)
    assert monitor.inputs["mini:default/mini-cm"]["data"]["colour"] == "red"


def test_unknown_values_leave_a_chart_unexpanded(stack: Stack, tmp_path: Path) -> None:
    write_chart(tmp_path, TEMPLATE)
    monitor = construct(stack, {"chart": "./mini", "values": {"colour": UNKNOWN}}, preview=True)
    assert monitor.outputs == {"resources": []}
    assert "warning: Input properties have unknown values. Preview is incomplete." in stack.host.said


@pytest.mark.parametrize(
    ("chart", "complaint"),
    [("./absent", 'unable to locate the chart: path "./absent" not found'), ("./mini", "nil pointer evaluating")],
)
def test_a_chart_that_cannot_be_rendered_says_why(stack: Stack, tmp_path: Path, chart: str, complaint: str) -> None:
    write_chart(tmp_path, "a: {{ .Values.x.y.z }}")
    with pytest.raises(ProviderError, match=complaint):
        construct(stack, {"chart": chart}, preview=True)


def test_a_config_group_takes_objects_and_texts(stack: Stack, lab: Lab, namespace: str) -> None:
    inputs = {
        "objs": [config_map(namespace, "one", a="1")],
        "yaml": "{apiVersion: v1, kind: ServiceAccount, metadata: {name: two}}",
    }
    monitor = construct(stack, inputs, preview=True, token="yaml/v2:ConfigGroup")
    assert set(monitor.inputs) == {"mini", f"mini:{namespace}/one", "mini:default/two"}


def test_forty_objects_are_previewed_in_a_moment(stack: Stack, namespace: str) -> None:
    objects = [config_map(namespace, f"cm-{number}", a="1") for number in range(40)]
    started = time.monotonic()
    construct(stack, {"objs": objects}, preview=True, token="yaml/v2:ConfigGroup")
    assert time.monotonic() - started < 3.0
