"""What `data/analytics/clickhouse` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "data/analytics/clickhouse"
PASSWORDS = {
    "clickhouse:admin_password": "admin-of-the-test",
    "clickhouse:user_password": "user-of-the-test",
    "clickhouse:operator_password": "operator-of-the-test",
}


@pytest.fixture
def clickhouse(run_program):
    return run_program(FOLDER, secrets=PASSWORDS)


def server(recording):
    return recording["Chart", "clickhouse"]["inputs"]["values"]["clickhouse"]


def test_the_operator_comes_first_and_goes_last(clickhouse):
    assert clickhouse.error is None
    assert set(clickhouse.names()) == {
        ("Namespace", "clickhouse"),
        ("Secret", "altinity-clickhouse-operator"),
        ("Secret", "clickhouse-default"),
        ("Secret", "clickhouse-user"),
        ("Chart", "altinity-clickhouse-operator"),
        ("Chart", "clickhouse"),
    }
    assert clickhouse["Chart", "altinity-clickhouse-operator"]["after"] == ["altinity-clickhouse-operator"]
    assert set(clickhouse["Chart", "clickhouse"]["after"]) == {
        "altinity-clickhouse-operator",
        "clickhouse-default",
        "clickhouse-user",
    }


@pytest.mark.parametrize(
    ("secret", "username", "password"),
    [
        ("altinity-clickhouse-operator", "clickhouse_operator", "operator-of-the-test"),
        ("clickhouse-default", "default", "admin-of-the-test"),
        ("clickhouse-user", "analytics", "user-of-the-test"),
    ],
)
def test_each_user_has_a_secret_of_its_own(clickhouse, secret, username, password):
    made = clickhouse["Secret", secret]
    assert made["secret_inputs"] == ["stringData"]
    assert made["inputs"]["stringData"] == {"username": username, "password": password}
    assert made["inputs"]["metadata"]["namespace"] == "clickhouse"


def test_the_charts_get_names_of_secrets_and_no_value(clickhouse):
    for name in ("altinity-clickhouse-operator", "clickhouse"):
        assert clickhouse["Chart", name]["secret_inputs"] == []
        assert "of-the-test" not in str(clickhouse["Chart", name])


def test_the_operator_has_no_hook_and_not_the_password_of_its_chart(clickhouse):
    assert clickhouse["Chart", "altinity-clickhouse-operator"]["inputs"]["values"] == {
        "crdHook": {"enabled": False},
        "secret": {"create": False},
        "serviceMonitor": {"enabled": False},
    }


def test_apps_may_log_in_from_the_networks_of_pods_and_the_admin_from_nowhere_else(clickhouse):
    assert server(clickhouse)["defaultUser"] == {
        "password_secret_name": "clickhouse-default",
        "hostIP": "127.0.0.1/32",
        "allowExternalAccess": False,
    }
    assert server(clickhouse)["users"] == [
        {
            "name": "analytics",
            "hostIP": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
            "accessManagement": 0,
            "password_secret_name": "clickhouse-user",
        }
    ]


def test_the_installation_brings_no_second_operator(clickhouse):
    values = clickhouse["Chart", "clickhouse"]["inputs"]["values"]
    assert values["operator"] == values["keeper"] == {"enabled": False}
    assert (server(clickhouse)["replicasCount"], server(clickhouse)["shardsCount"]) == (1, 1)


def test_its_objects_are_awaited_and_the_installation_is_protected(run_program, clickhouse):
    operator = clickhouse["Chart", "altinity-clickhouse-operator"]["children"]
    assert operator["CustomResourceDefinition"]["pulumi.com/waitFor"] == "condition=Established"
    wait = {
        "pulumi.com/waitFor": "jsonpath={.status.status}=Completed",
        "pulumi.com/timeoutSeconds": "900",
    }
    assert clickhouse["Chart", "clickhouse"]["children"]["ClickHouseInstallation"] == wait | {"protect": "true"}
    assert clickhouse["Namespace", "clickhouse"]["protect"] is True
    loose = run_program(FOLDER, {"clickhouse:protect": "false"}, PASSWORDS)
    assert loose["Chart", "clickhouse"]["children"]["ClickHouseInstallation"] == wait
    assert loose["Namespace", "clickhouse"]["protect"] is False


def test_exports(clickhouse):
    assert clickhouse.exports == {
        "host": {"value": "clickhouse-clickhouse.clickhouse.svc.cluster.local", "secret": False},
        "http_port": {"value": 8123, "secret": False},
        "native_port": {"value": 9000, "secret": False},
        "username": {"value": "analytics", "secret": False},
        "password": {"value": "user-of-the-test", "secret": True},
        "k8s_namespace": {"value": "clickhouse", "secret": False},
    }


def test_settings_reach_the_chart(run_program):
    chosen = {
        "clickhouse:user": "reader",
        "clickhouse:networks": '["10.42.0.0/16"]',
        "clickhouse:image_tag": "25.8.1.1.altinitystable",
        "clickhouse:storage_size": "1Ti",
        "clickhouse:storage_class": "fast",
        "clickhouse:monitoring": "true",
    }
    made = run_program(FOLDER, chosen, PASSWORDS)
    assert server(made)["users"][0]["name"] == "reader"
    assert server(made)["users"][0]["hostIP"] == ["10.42.0.0/16"]
    assert server(made)["image"] == {"tag": "25.8.1.1.altinitystable"}
    assert server(made)["persistence"] == {"enabled": True, "size": "1Ti", "storageClass": "fast"}
    assert made["Secret", "clickhouse-user"]["inputs"]["stringData"]["username"] == "reader"
    operator = made["Chart", "altinity-clickhouse-operator"]["inputs"]["values"]
    assert operator["serviceMonitor"] == {"enabled": True}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("networks", '["everywhere"]', "a list of networks such as 10.0.0.0/8"),
        ("networks", '["10.0.0.1"]', "a list of networks such as 10.0.0.0/8"),
        ("user", "Analytics", "a name of a-z, 0-9 and _"),
    ],
)
def test_a_wrong_setting_is_named(run_program, key, value, expected):
    failed = run_program(FOLDER, {f"clickhouse:{key}": value}, PASSWORDS)
    assert failed.resources == ()
    assert f"clickhouse:{key}: found {value!r}\n  expected  {expected}" in failed.error
