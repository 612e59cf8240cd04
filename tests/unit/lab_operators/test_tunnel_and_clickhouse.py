"""What the tunnel's and ClickHouse's controllers derive from objects, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from lab.operators import clickhouse, tunnel
from lab.operators.clickhouse import hosts_of, status_of
from lab.operators.tunnel import Controller, connectors, is_controller, tunnel_of


def deployment(*command: str, env: list[dict[str, str]] | None = None) -> dict[str, Any]:
    container = {"name": "c", "command": list(command), "env": env or []}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "cloudflare-tunnel-ingress-controller", "namespace": "tunnel", "uid": "u"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def controller(*words: str, account: str = "account", name: str = "homelab") -> Controller:
    env = [{"name": "CLOUDFLARED_REPLICA_COUNT", "value": "3"}, {"name": "CLOUDFLARED_IMAGE", "value": "image:1"}]
    return Controller(deployment(tunnel.COMMAND, *words, env=env), account, name)


def test_the_controller_is_known_by_its_command() -> None:
    assert is_controller(deployment("cloudflare-tunnel-ingress-controller", "--x=y"))
    assert not is_controller(deployment("cloudflared"))
    assert not is_controller(deployment())


def test_a_tunnel_has_one_id_for_ever() -> None:
    assert controller().tunnel_id == controller("--other").tunnel_id
    others = {controller(account="b").tunnel_id, controller(name="b").tunnel_id}
    assert controller().tunnel_id not in others
    assert len(others) == 2
    assert controller().domain == f"{controller().tunnel_id}.cfargotunnel.com"


def test_flags_and_variables_are_read_as_the_pod_would() -> None:
    found = controller("--ingress-class=public", "--cluster-domain=home.lan")
    assert (found.flag("ingress-class"), found.flag("cluster-domain")) == ("public", "home.lan")
    assert found.flag("cloudflared-protocol", "auto") == "auto"
    assert found.variable("CLOUDFLARED_IMAGE") == "image:1"
    assert found.variable("NOBODY", "x") == "x"


def test_the_connectors_are_the_controllers_own() -> None:
    made = connectors(controller("--cloudflared-protocol=quic"), "17")
    assert made["spec"]["replicas"] == 3
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:4] == ["cloudflared", "--protocol", "quic", "--no-autoupdate"]
    assert "value" not in container["env"][0]
    # Another version of the token restarts the pods.
    assert made["spec"]["template"]["metadata"]["annotations"][tunnel.TOKEN_VERSION] == "17"


@pytest.mark.parametrize("text", ["", "nonsense", "bm9uc2Vuc2U=", "W10="])
def test_an_invalid_token_has_no_tunnel(text: str) -> None:
    assert tunnel_of(text) == ""


# -- ClickHouse -----------------------------------------------------------------------------------------------------


def installation(layout: dict[str, Any] | None = None, **templates: Any) -> dict[str, Any]:
    names = {"serviceTemplate": "service", "podTemplate": "pod", "dataVolumeClaimTemplate": "data"}
    return {
        "apiVersion": "clickhouse.altinity.com/v1",
        "kind": "ClickHouseInstallation",
        "metadata": {"name": "main", "namespace": "shop", "uid": "u"},
        "spec": {
            "defaults": {"templates": names},
            "templates": templates,
            "configuration": {"clusters": [{"name": "all", **({"layout": layout} if layout else {})}]},
        },
    }


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (None, ["chi-main-all-0-0"]),
        ({"replicasCount": 2}, ["chi-main-all-0-0", "chi-main-all-0-1"]),
        ({"shardsCount": 2}, ["chi-main-all-0-0", "chi-main-all-1-0"]),
        ({"shards": [{}, {}]}, ["chi-main-all-0-0", "chi-main-all-1-0"]),
    ],
)
def test_hosts(layout: dict[str, Any] | None, names: list[str]) -> None:
    assert [host.name for host in hosts_of(installation(layout))] == names


@pytest.mark.parametrize(
    ("ready", "errors", "state"), [(2, [], "Completed"), (1, [], "InProgress"), (2, ["no Secret"], "InProgress")]
)
def test_status(ready: int, errors: list[str], state: str) -> None:
    found = installation({"replicasCount": 2})
    status = status_of(found, list(hosts_of(found)), ready=ready, errors=errors)
    assert status["status"] == state
    assert (status["hosts"], status["hostsCompleted"], status["shards"]) == (2, ready, 1)
    assert status["endpoint"] == "clickhouse-main.shop.svc.cluster.local"
    assert status["error"] == (errors[0] if errors else None)


def test_an_installation_without_a_host_is_never_completed() -> None:
    found = installation()
    found["spec"]["configuration"]["clusters"] = []
    assert status_of(found, [], ready=0, errors=[])["status"] == "InProgress"


def test_the_service_is_the_templates_or_headless() -> None:
    default = clickhouse.service(installation())
    assert default["metadata"]["name"] == "clickhouse-main"
    assert default["spec"]["clusterIP"] == "None"
    spec = {"type": "ClusterIP", "selector": {"extra": "x"}, "ports": [{"name": "http", "port": 8123}]}
    chosen = clickhouse.service(installation(serviceTemplates=[{"name": "service", "spec": spec}]))
    assert "clusterIP" not in chosen["spec"]
    assert chosen["spec"]["selector"] == {
        "extra": "x",
        "clickhouse.altinity.com/app": "chop",
        "clickhouse.altinity.com/chi": "main",
        "clickhouse.altinity.com/namespace": "shop",
        "clickhouse.altinity.com/ready": "yes",
    }


def test_claims_say_whether_they_outlive_the_installation() -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    for policy, label in (("Retain", "Retain"), (None, "Delete")):
        entry = {"name": "data", "spec": claim} | ({"reclaimPolicy": policy} if policy else {})
        (host,) = hosts_of(installation(volumeClaimTemplates=[entry]))
        (made,) = clickhouse.claim_templates(host)
        assert made["metadata"]["labels"]["clickhouse.altinity.com/reclaimPolicy"] == label
