"""Manifests: reading as Go reads them, default namespaces, order and registration."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lab.engine.providers import ProviderError, RegisteredResource, ResourceOptions
from lab.engine.providers.kubernetes.client import ApiClient
from lab.engine.providers.kubernetes.discovery import Discovery
from lab.engine.providers.kubernetes.kubeconfig import ClusterAccess
from lab.engine.providers.kubernetes.manifests import (
    Registration,
    complete,
    in_order,
    parse_manifests,
    register_all,
    type_token,
)
from lab.engine.values import UNKNOWN, Secret
from tests.unit.engine_kubernetes.server import serving
from tests.unit.engine_kubernetes.test_client import discovery as answer


@pytest.fixture
def discovery() -> Iterator[Discovery]:
    """A server with one custom kind."""
    with serving() as served:
        served.answer("GET /api", 200, answer())
        served.answer("GET /apis", 200, answer(("x.io", "v1", "Thing", "Cluster")))
        client = ApiClient(ClusterAccess(served.url))
        found = Discovery(client)
        found.read()
        yield found
        client.close()


def thing(kind: str, name: str = "o", version: str = "v1", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


CRD = thing(
    "CustomResourceDefinition",
    "widgets.w.io",
    "apiextensions.k8s.io/v1",
    spec={"group": "w.io", "scope": "Namespaced", "names": {"kind": "Widget"}},
)


def test_scalars_are_read_as_go_reads_them() -> None:
    text = "{a: yes, b: 12:30, c: 2024-01-01, d: 1e3, e: 0x10, f: 010, g: 1.5, h: ~, i: '1', j: 1_000, k: 08}"
    (found,) = parse_manifests(text)
    assert list(found.values()) == [True, "12:30", "2024-01-01", 1000.0, 16, 8, 1.5, None, "1", 1000, "08"]


def test_empty_documents_are_skipped_and_broken_ones_refused() -> None:
    assert parse_manifests("---\n# nothing\n---\nkind: A\n---\n") == [{"kind": "A"}]
    with pytest.raises(ProviderError, match="decoding YAML"):
        parse_manifests("a: [")


def test_default_namespaces_go_where_they_belong(discovery: Discovery) -> None:
    objects, unresolved = complete(
        [
            thing("ConfigMap"),
            thing("ClusterRole", version="rbac.authorization.k8s.io/v1"),
            thing("Thing", version="x.io/v1"),
            CRD,
            thing("Widget", version="w.io/v1"),
            thing("Secret", version="core/v1", metadata={"name": "s", "namespace": "own"}),
            thing("List", items=[thing("Service")]),
            thing("Mystery", version="m.io/v1"),
        ],
        "team",
        discovery,
    )
    placed = {one["kind"]: one["metadata"].get("namespace") for one in objects}
    assert placed == {
        "ConfigMap": "team",
        "ClusterRole": None,
        "Thing": None,
        "CustomResourceDefinition": None,
        "Widget": "team",
        "Secret": "own",
        "Service": "team",
        "Mystery": None,
    }
    assert unresolved == ["m.io/v1, Kind=Mystery"]
    assert [one["apiVersion"] for one in objects if one["kind"] == "Secret"] == ["v1"]


@pytest.mark.parametrize("broken", [{"kind": "A", "metadata": {"name": "n"}}, {"kind": "A", "apiVersion": "v1"}])
def test_objects_without_identity_are_refused(broken: dict[str, Any], discovery: Discovery) -> None:
    with pytest.raises(ProviderError, match="Kubernetes resources require"):
        complete([broken], "n", discovery)


def test_definitions_and_namespaces_come_first() -> None:
    widget, namespace = thing("Widget", version="w.io/v1"), thing("Namespace", "team")
    widget["metadata"]["namespace"] = "team"
    annotated = thing("ConfigMap", "late")
    annotated["metadata"]["annotations"] = {"config.kubernetes.io/depends-on": "w.io/namespaces/team/Widget/o"}
    objects = [annotated, widget, CRD, namespace, thing("Service")]
    ordered = [objects[index]["kind"] for index in in_order(objects)]
    assert ordered == ["Namespace", "CustomResourceDefinition", "Service", "Widget", "ConfigMap"]


def test_a_circle_is_refused() -> None:
    one, two = thing("ConfigMap", "one"), thing("ConfigMap", "two")
    one["metadata"]["annotations"] = {"config.kubernetes.io/depends-on": "/ConfigMap/two"}
    two["metadata"]["annotations"] = {"config.kubernetes.io/depends-on": "/ConfigMap/one"}
    with pytest.raises(ProviderError, match="circle: one, two"):
        in_order([one, two])


class Monitor:
    """Keeps registrations; the first one of a kind in ``failing`` fails."""

    def __init__(self, *failing: str) -> None:
        self.made: list[tuple[str, str, dict[str, Any], ResourceOptions]] = []
        self._failing = failing
        self._lock = threading.Lock()

    def register(
        self, token: str, name: str, inputs: dict[str, Any], options: ResourceOptions, *, custom: bool = True
    ) -> RegisteredResource:
        with self._lock:
            self.made.append((token, name, inputs, options))
        if token.rpartition(":")[2] in self._failing:
            raise ProviderError(f"{name} failed")
        return RegisteredResource(f"urn::{name}", UNKNOWN, {})

    def register_outputs(self, urn: str, outputs: dict[str, Any]) -> None:
        return


HOW = Registration(parent="urn::chart", prefix="mini", skip_await=False, options=ResourceOptions(version="4.34.2"))


def test_objects_are_registered_under_their_component_with_dependencies() -> None:
    monitor = Monitor()
    widget = thing("Widget", version="w.io/v1")
    widget["metadata"]["namespace"] = "team"
    references = register_all([widget, CRD, thing("Secret", stringData={"a": "x"})], HOW, monitor)
    made = {token: (name, inputs, options) for token, name, inputs, options in monitor.made}
    name, _, options = made["kubernetes:w.io/v1:Widget"]
    assert name == "mini:team/o"
    assert options.parent == "urn::chart"
    assert options.depends_on == ("urn::mini:widgets.w.io",)
    assert options.version == "4.34.2"
    assert made["kubernetes:core/v1:Secret"][1]["stringData"] == Secret({"a": "x"})
    assert {reference.urn for reference in references} == {"urn::mini:team/o", "urn::mini:widgets.w.io", "urn::mini:o"}


def test_what_depends_on_a_failure_is_not_registered() -> None:
    monitor = Monitor("CustomResourceDefinition")
    with pytest.raises(ProviderError, match=r"widgets\.w\.io failed"):
        register_all([thing("Widget", version="w.io/v1"), CRD], HOW, monitor)
    assert [token for token, *_ in monitor.made] == ["kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"]


def test_tokens() -> None:
    assert type_token(thing("Secret")) == "kubernetes:core/v1:Secret"
    assert type_token(thing("Deployment", version="apps/v1")) == "kubernetes:apps/v1:Deployment"
