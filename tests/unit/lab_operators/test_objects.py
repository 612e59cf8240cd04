"""What the controllers derive from objects, without a server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from lab.operators import clickhouse, cnpg_objects, tailscale, tunnel
from lab.operators.clickhouse import hosts_of
from lab.operators.cnpg import imposed_port
from lab.operators.objects import CLUSTER, SERVICE, path_of, with_conditions
from lab.operators.parameters import Parameters

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


def test_only_the_platforms_own_cluster_has_an_imposed_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_POSTGRES_PORT", "7001")
    assert imposed_port(tmp_path, "postgresql", "postgresql-cluster") == 7001
    (tmp_path / "target.json").write_text('{"settings": {"postgresql": {"postgresql:port": "7002"}}}')
    assert imposed_port(tmp_path, "postgresql", "postgresql-cluster") == 7002
    assert imposed_port(tmp_path, "other", "postgresql-cluster") is None


# -- the tunnel -----------------------------------------------------------------------------------------------------


def deployment(*command: str) -> dict[str, Any]:
    container = {"name": "c", "command": list(command), "env": [{"name": "CLOUDFLARED_IMAGE", "value": "image:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": tunnel.COMMAND, "namespace": "tunnel", "uid": "u"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def test_the_connectors_follow_the_controllers_flags_and_the_version_of_their_token() -> None:
    made = deployment(tunnel.COMMAND, "--cluster-domain=home.lan")
    assert tunnel.is_controller(made) and not tunnel.is_controller(deployment("cloudflared"))
    one, other = (tunnel.Controller(made, account, "homelab") for account in ("a", "b"))
    assert one.domain != other.domain and one.domain.endswith(".cfargotunnel.com")
    assert (one.flag("cluster-domain"), one.flag("none", "x"), one.variable("NONE", "y")) == ("home.lan", "x", "y")
    found = tunnel.connectors(one, "17")["spec"]["template"]
    assert found["metadata"]["annotations"][tunnel.TOKEN_VERSION] == "17"
    assert found["spec"]["containers"][0]["image"] == "image:1"
    assert "value" not in found["spec"]["containers"][0]["env"][0], "the token is read from its Secret"


@pytest.mark.parametrize("text", ["", "nonsense", "bm9uc2Vuc2U=", "W10="])
def test_an_invalid_token_has_no_tunnel(text: str) -> None:
    assert tunnel.tunnel_of(text) == ""


# -- ClickHouse -----------------------------------------------------------------------------------------------------


def installation(*clusters: dict[str, Any], **templates: Any) -> dict[str, Any]:
    names = {"serviceTemplate": "service", "podTemplate": "pod", "dataVolumeClaimTemplate": "data"}
    return {
        "apiVersion": "clickhouse.altinity.com/v1",
        "kind": "ClickHouseInstallation",
        "metadata": {"name": "main", "namespace": "shop", "uid": "u"},
        "spec": {
            "defaults": {"templates": names}, "templates": templates, "configuration": {"clusters": list(clusters)},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cluster", "names"),
    [
        ({}, ["0-0"]),
        ({"layout": {"replicasCount": 2}}, ["0-0", "0-1"]),
        ({"layout": {"shardsCount": 2}}, ["0-0", "1-0"]),
        ({"layout": {"shards": [{}, {}]}}, ["0-0", "1-0"]),
    ],
)
def test_hosts(cluster: dict[str, Any], names: list[str]) -> None:
    found = list(hosts_of(installation({"name": "all", **cluster})))
    assert [host.name for host in found] == [f"chi-main-all-{name}" for name in names]
    status = clickhouse.status_of(installation({"name": "all", **cluster}), found, ready=len(found), errors=[])
    assert (status["status"], status["hosts"]) == ("Completed", len(names))


def test_an_installation_without_a_host_is_never_completed() -> None:
    assert clickhouse.status_of(installation(), [], ready=0, errors=[])["status"] == "InProgress"


def test_the_service_is_headless_without_a_template_and_claims_go_with_the_installation_without_a_policy() -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    found = installation({"name": "all"}, volumeClaimTemplates=[{"name": "data", "spec": claim}])
    assert clickhouse.service(found)["spec"]["clusterIP"] == "None"
    template = {"name": "service", "spec": {"type": "ClusterIP", "ports": [{"name": "http", "port": 8123}]}}
    assert "clusterIP" not in clickhouse.service(installation({"name": "all"}, serviceTemplates=[template]))["spec"]
    (host,) = hosts_of(found)
    (made,) = clickhouse.claim_templates(host)
    assert made["metadata"]["labels"]["clickhouse.altinity.com/reclaimPolicy"] == "Delete"
