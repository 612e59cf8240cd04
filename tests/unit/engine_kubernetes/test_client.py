"""Requests, errors and discovery against a small server on loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from lab.engine.providers.kubernetes.client import ApiClient, ApiError, ConnectionFailed
from lab.engine.providers.kubernetes.discovery import Discovery, NoMatch, namespaced_by_table
from lab.engine.providers.kubernetes.kubeconfig import ClusterAccess
from tests.unit.engine_kubernetes.server import Served, serving, status


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as one:
        yield one


@pytest.fixture
def client(served: Served) -> Iterator[ApiClient]:
    one = ApiClient(ClusterAccess(served.url, token="t0ken"))
    yield one
    one.close()


def test_requests_carry_the_token_and_the_body(served: Served, client: ApiClient) -> None:
    served.answer("PATCH /api/v1/namespaces/n", 200, {"kind": "Namespace"})
    answer = client.request(
        "PATCH",
        "/api/v1/namespaces/n",
        query={"fieldManager": "m"},
        body={"kind": "Namespace"},
        content_type="application/apply-patch+yaml",
    )
    method, path, headers, body = served.requests[0]
    assert answer == {"kind": "Namespace"}
    assert (method, path) == ("PATCH", "/api/v1/namespaces/n?fieldManager=m")
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert json.loads(body) == {"kind": "Namespace"}


def test_a_status_answer_becomes_an_error_with_its_message(served: Served, client: ApiClient) -> None:
    served.answer("POST /x", 409, status(409, "AlreadyExists", 'configmaps "taken" already exists', kind="configmaps"))
    with pytest.raises(ApiError) as caught:
        client.request("POST", "/x", body={})
    assert str(caught.value) == 'configmaps "taken" already exists'
    assert caught.value.is_already_exists
    assert not caught.value.is_conflict


def test_a_missing_namespace_is_told_from_a_missing_object(served: Served, client: ApiClient) -> None:
    served.answer("GET /a", 404, status(404, "NotFound", 'namespaces "n" not found', kind="namespaces"))
    served.answer("GET /b", 404, status(404, "NotFound", 'pods "p" not found', kind="pods"))
    for path, expected in (("/a", True), ("/b", False)):
        with pytest.raises(ApiError) as caught:
            client.get(path)
        assert caught.value.is_not_found
        assert caught.value.is_missing_namespace is expected


def test_turned_away_requests_are_repeated_as_the_server_asks(served: Served, client: ApiClient) -> None:
    served.answer("POST /x", 429, status(429, "TooManyRequests", "later"), Retry_After="0")
    served.answer("POST /x", 201, {"kind": "Made"})
    assert client.request("POST", "/x", body={}) == {"kind": "Made"}
    assert len(served.requests) == 2


def test_lists_are_read_page_by_page(served: Served, client: ApiClient) -> None:
    first = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"continue": "c"},
        "items": [{"metadata": {"name": "a"}}],
    }
    last = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "b"}}],
    }
    served.answer("GET /pods", 200, first)
    served.answer("GET /pods", 200, last)
    items, version = client.items("/pods")
    assert [(item["kind"], item["metadata"]["name"]) for item in items] == [("Pod", "a"), ("Pod", "b")]
    assert version == "7"


def test_a_refused_connection_reads_like_go() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        client = ApiClient(ClusterAccess(f"https://127.0.0.1:{port}"))
        with pytest.raises(ConnectionFailed) as caught:
            client.get("/version")
    assert str(caught.value) == (
        f'Get "https://127.0.0.1:{port}/version": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )


def discovery(*kinds: tuple[str, str, str, str]) -> dict[str, object]:
    """``(group, version, kind, scope)``: an aggregated discovery answer."""
    items = [
        {
            "metadata": {"name": group},
            "versions": [
                {
                    "version": version,
                    "resources": [{"resource": kind.lower() + "s", "responseKind": {"kind": kind}, "scope": scope}],
                }
            ],
        }
        for group, version, kind, scope in kinds
    ]
    return {"kind": "APIGroupDiscoveryList", "items": items}


def test_kinds_have_paths(served: Served, client: ApiClient) -> None:
    served.answer("GET /api", 200, discovery(("", "v1", "Pod", "Namespaced")))
    served.answer(
        "GET /apis", 200, discovery(("apps", "v1", "Deployment", "Namespaced"), ("x.io", "v1", "Thing", "Cluster"))
    )
    found = Discovery(client)
    assert found.find("core/v1", "Pod").path("n", "p") == "/api/v1/namespaces/n/pods/p"
    assert found.find("apps/v1", "Deployment").path("n") == "/apis/apps/v1/namespaces/n/deployments"
    assert found.find("x.io/v1", "Thing").path("n", "t") == "/apis/x.io/v1/things/t"
    assert found.api_versions() == ["apps/v1", "apps/v1/Deployment", "v1", "v1/Pod", "x.io/v1", "x.io/v1/Thing"]


def test_a_missing_kind_is_looked_up_again_after_a_definition_was_made(served: Served, client: ApiClient) -> None:
    served.answer("GET /api", 200, discovery())
    served.answer("GET /apis", 200, discovery())
    served.answer("GET /apis", 200, discovery(("postgresql.cnpg.io", "v1", "Cluster", "Namespaced")))
    found = Discovery(client)
    found.read()
    with pytest.raises(NoMatch) as caught:
        found.find("postgresql.cnpg.io/v1", "Cluster")
    assert str(caught.value) == 'no matches for kind "Cluster" in version "postgresql.cnpg.io/v1"'
    found.forget()
    assert found.find("postgresql.cnpg.io/v1", "Cluster").namespaced


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        ("v1", "Namespace", False),
        ("core/v1", "Secret", True),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", False),
        ("cert-manager.io/v1", "ClusterIssuer", None),
    ],
)
def test_scopes_of_built_in_kinds_are_known_without_a_server(version: str, kind: str, expected: bool | None) -> None:
    assert namespaced_by_table(version, kind) is expected
