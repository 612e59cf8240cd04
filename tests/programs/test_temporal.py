"""What `data/workflow/temporal` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "data/workflow/temporal"
PLAIN = {"temporal:postgres_stack": "organization/postgresql/test"}
PASSWORD = {"temporal:database_password": "role-of-the-test"}


@pytest.fixture
def temporal(run_program, postgres_stack):
    return run_program(FOLDER, PLAIN, PASSWORD, postgres_stack)


def values(recording):
    return recording["Chart", "temporal"]["inputs"]["values"]


def test_it_makes_these_objects_and_the_chart_after_what_it_needs(temporal):
    assert temporal.error is None
    assert temporal.names() == {
        ("Namespace", "temporal"),
        ("postgresql", "postgresql"),
        ("Role", "temporal"),
        ("Database", "temporal"),
        ("Database", "temporal_visibility"),
        ("Secret", "temporal-database"),
        ("Chart", "temporal"),
        ("Ingress", "temporal-web"),
        ("Service", "temporal-grpc"),
    }
    assert temporal.after("Chart", "temporal") == {
        ("Database", "temporal"),
        ("Database", "temporal_visibility"),
        ("Secret", "temporal-database"),
    }
    for exposed in (("Ingress", "temporal-web"), ("Service", "temporal-grpc")):
        assert temporal.after(*exposed) == {("Chart", "temporal")}


def test_one_role_owns_both_databases(temporal):
    for name in ("temporal", "temporal_visibility"):
        assert temporal["Database", name]["inputs"]["owner"] == "temporal"
        assert temporal["Database", name]["protect"] is True
    assert "createDatabase" not in temporal["Role", "temporal"]["inputs"]


def test_each_store_has_its_database_and_the_name_of_the_secret(temporal):
    persistence = values(temporal)["server"]["config"]["persistence"]
    assert (persistence["defaultStore"], persistence["visibilityStore"]) == ("default", "visibility")
    assert persistence["numHistoryShards"] == 512
    stores = {name: store["sql"] for name, store in persistence["datastores"].items()}
    assert {name: store["databaseName"] for name, store in stores.items()} == {
        "default": "temporal",
        "visibility": "temporal_visibility",
    }
    for store in stores.values():
        assert store["connectAddr"] == "postgresql-cluster-rw.db.svc.cluster.local:5432"
        assert store["user"] == "temporal"
        assert (store["existingSecret"], store["secretKey"]) == ("temporal-database", "password")
        assert "password" not in store
    assert temporal["Secret", "temporal-database"]["inputs"]["stringData"] == {"password": "role-of-the-test"}
    assert temporal["Chart", "temporal"]["secret_inputs"] == []
    assert "of-the-test" not in str(temporal["Chart", "temporal"])


def test_the_jobs_for_schema_and_namespaces_are_no_hooks_and_stay(temporal):
    assert values(temporal)["schema"] == {"useHelmHooks": False, "ttlSecondsAfterFinished": "2147483647"}
    assert values(temporal)["server"]["config"]["namespaces"] == {
        "create": True,
        "useHelmHooks": False,
        "namespace": [{"name": "default", "retention": "3d"}],
    }
    for store in values(temporal)["server"]["config"]["persistence"]["datastores"].values():
        assert (store["sql"]["createDatabase"], store["sql"]["manageSchema"]) == (False, True)


def test_the_web_interface_is_on_the_tailnet(temporal):
    spec = temporal["Ingress", "temporal-web"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert spec["tls"] == [{"hosts": ["temporal"]}]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "temporal-web", "port": {"number": 8080}}}
    assert values(temporal)["web"] == {"ingress": {"enabled": False}}


def test_the_frontend_is_a_service_on_the_tailnet(temporal):
    service = temporal["Service", "temporal-grpc"]["inputs"]
    assert service["metadata"]["annotations"] == {
        "tailscale.com/expose": "true",
        "tailscale.com/hostname": "temporal-grpc",
        "pulumi.com/waitFor": "condition=TailscaleProxyReady",
        "pulumi.com/timeoutSeconds": "300",
    }
    assert service["spec"] == {
        "type": "ClusterIP",
        "selector": {
            "app.kubernetes.io/name": "temporal",
            "app.kubernetes.io/instance": "temporal",
            "app.kubernetes.io/component": "frontend",
        },
        "ports": [{"name": "grpc", "port": 7233, "targetPort": 7233}],
    }


def test_it_is_given_time_until_the_schema_is_there(temporal):
    children = temporal["Chart", "temporal"]["children"]
    assert children["Deployment"] == children["Service"] == children["Job"] == {"pulumi.com/timeoutSeconds": "900"}


def test_all_its_servers_together_leave_connections_for_others(temporal):
    stores = values(temporal)["server"]["config"]["persistence"]["datastores"].values()
    assert 4 * sum(store["sql"]["maxConns"] for store in stores) <= 60


def test_settings_reach_the_chart(run_program, postgres_stack):
    chosen = {
        **PLAIN,
        "temporal:namespaces": '["home", "work"]',
        "temporal:retention": "72h",
        "temporal:grpc_host": "workflows",
        "temporal:monitoring": "true",
        "temporal:protect": "false",
    }
    made = run_program(FOLDER, chosen, PASSWORD, postgres_stack)
    assert values(made)["server"]["config"]["namespaces"]["namespace"] == [
        {"name": "home", "retention": "72h"},
        {"name": "work", "retention": "72h"},
    ]
    assert values(made)["server"]["metrics"] == {"serviceMonitor": {"enabled": True}}
    annotations = made["Service", "temporal-grpc"]["inputs"]["metadata"]["annotations"]
    assert annotations["tailscale.com/hostname"] == "workflows"
    assert made["Database", "temporal"]["protect"] is False
    assert made.exports["grpc_address"]["value"] == "workflows:7233"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("retention", "3 days", "hours or days such as 3d"),
        ("namespaces", "default", "a list of names of a-z, 0-9 and -"),
        ("grpc_host", "temporal.grpc", "one DNS label"),
    ],
)
def test_a_wrong_setting_is_named(run_program, postgres_stack, key, value, expected):
    failed = run_program(FOLDER, {**PLAIN, f"temporal:{key}": value}, PASSWORD, postgres_stack)
    assert failed.resources == ()
    assert f"temporal:{key}: found {value!r}\n  expected  {expected}" in failed.error
