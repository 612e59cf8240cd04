"""What the controllers derive from objects, without a server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from lab.operators import cnpg_objects, tailscale
from lab.operators.cnpg import imposed_port
from lab.operators.objects import CLUSTER, SERVICE, path_of, with_conditions
from lab.operators.parameters import Parameters, read_spec

CLUSTER_OBJECT: dict[str, Any] = {
    "apiVersion": "postgresql.cnpg.io/v1",
    "kind": "Cluster",
    "metadata": {"name": "postgresql-cluster", "namespace": "postgresql", "uid": "u-1"},
    "spec": {"instances": 1, "storage": {"size": "10Gi", "storageClass": "fast"}},
}


def service(annotations: dict[str, str], **spec: Any) -> dict[str, Any]:
    marks = {f"tailscale.com/{key}": value for key, value in annotations.items()}
    return {"metadata": {"name": "web", "namespace": "shop", "annotations": marks}, "spec": spec}


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (service({"expose": "true"}), True),
        (service({"expose": "yes"}), False),
        (service({}, type="LoadBalancer", loadBalancerClass="tailscale"), True),
        (service({}, type="LoadBalancer"), False),
    ],
)
def test_exposed(thing: dict[str, Any], expected: bool) -> None:
    assert tailscale.is_exposed(thing) is expected


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (service({"hostname": "web"}), []),
        (service({}, clusterIP="None"), ["headless Services are not supported."]),
        (service({"hostname": "a.b"}), ['invalid Tailscale hostname specified "a.b": is not a valid DNS label']),
        (service({"tags": "tag:x,y"}), ['invalid tag "y": tags must start with "tag:"']),
    ],
)
def test_violations(thing: dict[str, Any], expected: list[str]) -> None:
    assert tailscale.violations_of(thing) == expected


@pytest.mark.parametrize(
    ("tls", "hostname"),
    [
        ([{"hosts": ["photos"]}], "photos"),
        ([{"hosts": ["photos.example.org", "other"]}, {"hosts": ["third"]}], "photos"),
        ([], "shop-web-ingress"),
        ([{"secretName": "x"}], "shop-web-ingress"),
    ],
)
def test_the_name_of_an_ingress_is_its_first_tls_host(tls: list[dict[str, Any]], hostname: str) -> None:
    ingress = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"tls": tls}}
    assert tailscale.hostname_of_ingress(ingress) == hostname


def test_superuser_secret_names_database_star() -> None:
    secret = cnpg_objects.login_secret(CLUSTER_OBJECT, "s", "postgres", "pw", "*")
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert values["uri"] == "postgresql://postgres:pw@postgresql-cluster-rw.postgresql:5432/*"
    host = "postgresql-cluster-rw.postgresql.svc.cluster.local"
    assert values["fqdn-jdbc-uri"] == f"jdbc:postgresql://{host}:5432/*?password=pw&user=postgres"
    assert values["pgpass"] == "postgresql-cluster-rw:5432:*:postgres:pw\n"


def test_claims_follow_the_storage_of_the_cluster() -> None:
    spec = CLUSTER_OBJECT["spec"] | {"walStorage": {"size": "1Gi"}}
    data, wal = cnpg_objects.claims(CLUSTER_OBJECT | {"spec": spec}, 1)
    assert (data["metadata"]["name"], wal["metadata"]["name"]) == ("postgresql-cluster-1", "postgresql-cluster-1-wal")
    assert data["spec"]["storageClassName"] == "fast"
    assert wal["spec"]["resources"]["requests"]["storage"] == "1Gi"


def template_of(image: str, address: str) -> str:
    cluster = CLUSTER_OBJECT | {"spec": CLUSTER_OBJECT["spec"] | {"imageName": image}}
    return cnpg_objects.pod(cluster, 1, address)["metadata"]["annotations"][cnpg_objects.TEMPLATE]


def test_a_pods_template_changes_with_the_image_and_not_with_the_port() -> None:
    first = template_of("postgresql:18.4", "127.0.0.1:1")
    assert template_of("postgresql:18.4", "127.0.0.1:2") == first
    assert template_of("other:18.4", "127.0.0.1:1") != first


def test_a_conditions_time_moves_with_its_status_only() -> None:
    before = [{"type": "Ready", "status": "True", "message": "a", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    thing = {"status": {"conditions": before}}
    same = with_conditions(thing, {"type": "Ready", "status": "True", "message": "b"})
    assert same == [before[0] | {"message": "b"}]
    other = with_conditions(thing, {"type": "Ready", "status": "False", "message": "b"})
    assert other[0]["lastTransitionTime"] > "2025"
    assert with_conditions({}, *same) != same
    more = {"type": "Issuing", "status": "True"}
    assert [one["type"] for one in with_conditions(thing, more)] == ["Ready", "Issuing"]


def test_kinds_know_their_paths() -> None:
    assert path_of(CLUSTER_OBJECT) == CLUSTER.path("postgresql", "postgresql-cluster")
    assert CLUSTER.path("ns", "x") == "/apis/postgresql.cnpg.io/v1/namespaces/ns/clusters/x"
    assert (SERVICE.group, SERVICE.version, SERVICE.path()) == ("", "v1", "/api/v1/services")


def test_parameters_are_quoted_for_the_settings_file() -> None:
    text = Parameters({"search_path": "it's \\ here", "a": "1"}).text()
    assert text == "a = '1'\nsearch_path = 'it''s \\\\ here'\n"


def test_preloaded_libraries_are_one_parameter() -> None:
    asked = read_spec({"parameters": {"Work_Mem": "8MB"}, "shared_preload_libraries": ["a", "b"]})
    assert asked == {"work_mem": "8MB", "shared_preload_libraries": "a,b"}


def test_only_the_platforms_own_cluster_has_an_imposed_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_POSTGRES_PORT", "7001")
    assert imposed_port(tmp_path, "postgresql", "postgresql-cluster") == 7001
    (tmp_path / "target.json").write_text('{"settings": {"postgresql": {"postgresql:port": "7002"}}}')
    assert imposed_port(tmp_path, "postgresql", "postgresql-cluster") == 7002
    assert imposed_port(tmp_path, "other", "postgresql-cluster") is None
