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


def spec_of(recording):
    return recording["ClickHouseInstallation", "clickhouse"]["inputs"]["spec"]


def users(recording):
    return spec_of(recording)["configuration"]["users"]


def chosen_template(recording, plural, use):
    """The one template of that kind, which is the one in use."""
    (template,) = spec_of(recording)["templates"][plural]
    assert spec_of(recording)["defaults"]["templates"][use] == template["name"]
    return template


def test_the_operator_comes_first_and_goes_last(clickhouse):
    assert clickhouse.error is None
    assert clickhouse.names() == {
        ("Namespace", "clickhouse"),
        ("Secret", "altinity-clickhouse-operator"),
        ("Secret", "clickhouse-default"),
        ("Secret", "clickhouse-user"),
        ("Chart", "altinity-clickhouse-operator"),
        ("ClickHouseInstallation", "clickhouse"),
    }
    assert clickhouse.after("Chart", "altinity-clickhouse-operator") == {("Secret", "altinity-clickhouse-operator")}
    assert clickhouse.after("ClickHouseInstallation", "clickhouse") == {
        ("Chart", "altinity-clickhouse-operator"),
        ("Secret", "clickhouse-default"),
        ("Secret", "clickhouse-user"),
    }
    for secret in ("altinity-clickhouse-operator", "clickhouse-default", "clickhouse-user"):
        assert clickhouse.after("Secret", secret) == {("Namespace", "clickhouse")}


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


def test_operator_and_installation_get_names_of_secrets_and_no_value(clickhouse):
    for made in (
        clickhouse["Chart", "altinity-clickhouse-operator"],
        clickhouse["ClickHouseInstallation", "clickhouse"],
    ):
        assert made["secret_inputs"] == []
        assert "of-the-test" not in str(made)


def test_the_operator_has_no_hook_and_not_the_password_of_its_chart(clickhouse):
    assert clickhouse["Chart", "altinity-clickhouse-operator"]["inputs"]["values"] == {
        "crdHook": {"enabled": False},
        "secret": {"create": False},
        "serviceMonitor": {"enabled": False},
    }


def password_in(secret):
    return {"valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}}


def test_apps_may_log_in_from_the_networks_of_pods_and_the_admin_from_nowhere_else(clickhouse):
    assert users(clickhouse) == {
        "default/networks/ip": "127.0.0.1/32",
        "default/access_management": 1,
        "default/named_collection_control": 1,
        "default/show_named_collections": 1,
        "default/show_named_collections_secrets": 1,
        "default/password": password_in("clickhouse-default"),
        "analytics/networks/ip": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        "analytics/access_management": 0,
        "analytics/password": password_in("clickhouse-user"),
    }


def test_the_installation_is_one_server_with_the_names_that_everything_else_knows(clickhouse):
    installation = clickhouse["ClickHouseInstallation", "clickhouse"]["inputs"]
    assert installation["apiVersion"] == "clickhouse.altinity.com/v1"
    assert installation["metadata"]["name"] == installation["metadata"]["namespace"] == "clickhouse"
    assert installation["spec"]["configuration"]["clusters"] == [
        {"name": "clickhouse", "layout": {"shardsCount": 1, "replicasCount": 1}}
    ]
    assert chosen_template(clickhouse, "serviceTemplates", "serviceTemplate")["spec"] == {
        "type": "ClusterIP",
        "ports": [
            {"name": "http", "port": 8123, "targetPort": 8123},
            {"name": "tcp", "port": 9000, "targetPort": 9000},
        ],
    }
    (container,) = chosen_template(clickhouse, "podTemplates", "podTemplate")["spec"]["containers"]
    assert container["name"] == "clickhouse"
    assert container["image"].startswith("altinity/clickhouse-server:")


def test_its_data_is_kept_when_the_installation_goes(clickhouse):
    assert chosen_template(clickhouse, "volumeClaimTemplates", "dataVolumeClaimTemplate") == {
        "name": "clickhouse-data",
        "reclaimPolicy": "Retain",
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    }


def test_an_installation_that_came_out_of_the_chart_is_the_same_one(run_program, clickhouse):
    chart = "urn:pulumi:test::clickhouse::kubernetes:helm.sh/v4:Chart::clickhouse"
    (alias,) = clickhouse["ClickHouseInstallation", "clickhouse"]["aliases"]
    assert alias["spec"] == {"name": "clickhouse:clickhouse/clickhouse", "parentUrn": chart}
    elsewhere = run_program(FOLDER, {"clickhouse:namespace": "olap"}, PASSWORDS)
    (alias,) = elsewhere["ClickHouseInstallation", "clickhouse"]["aliases"]
    assert alias["spec"]["name"] == "clickhouse:olap/clickhouse"


def test_its_objects_are_awaited_and_the_installation_is_protected(run_program, clickhouse):
    operator = ("Chart", "altinity-clickhouse-operator")
    established = {"pulumi.com/waitFor": "condition=Established", "pulumi.com/timeoutSeconds": "60"}
    assert clickhouse[operator]["children"] == {
        "CustomResourceDefinition": established | {"protect": "true"},
        "Deployment": {"pulumi.com/timeoutSeconds": "300"},
        "Service": {},
    }
    installation = clickhouse["ClickHouseInstallation", "clickhouse"]
    assert installation["inputs"]["metadata"]["annotations"] == {
        "pulumi.com/waitFor": "jsonpath={.status.status}=Completed",
        "pulumi.com/timeoutSeconds": "900",
    }
    stateful = [("Namespace", "clickhouse"), ("ClickHouseInstallation", "clickhouse")]
    assert [clickhouse[key]["protect"] for key in stateful] == [True, True]
    loose = run_program(FOLDER, {"clickhouse:protect": "false"}, PASSWORDS)
    assert [loose[key]["protect"] for key in stateful] == [False, False]
    assert loose[operator]["children"]["CustomResourceDefinition"] == established


def test_exports(clickhouse):
    assert clickhouse.exports == {
        "host": {"value": "clickhouse-clickhouse.clickhouse.svc.cluster.local", "secret": False},
        "http_port": {"value": 8123, "secret": False},
        "native_port": {"value": 9000, "secret": False},
        "username": {"value": "analytics", "secret": False},
        "password": {"value": "user-of-the-test", "secret": True},
        "k8s_namespace": {"value": "clickhouse", "secret": False},
    }


def test_settings_reach_the_installation_and_the_chart(run_program):
    chosen = {
        "clickhouse:user": "reader",
        "clickhouse:networks": '["10.42.0.0/16"]',
        "clickhouse:image_tag": "25.8.1.1.altinitystable",
        "clickhouse:storage_size": "1Ti",
        "clickhouse:storage_class": "fast",
        "clickhouse:monitoring": "true",
    }
    made = run_program(FOLDER, chosen, PASSWORDS)
    assert users(made)["reader/networks/ip"] == ["10.42.0.0/16"]
    assert not [key for key in users(made) if key.startswith("analytics/")]
    (container,) = chosen_template(made, "podTemplates", "podTemplate")["spec"]["containers"]
    assert container["image"] == "altinity/clickhouse-server:25.8.1.1.altinitystable"
    claim = chosen_template(made, "volumeClaimTemplates", "dataVolumeClaimTemplate")["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("1Ti", "fast")
    assert made["Secret", "clickhouse-user"]["inputs"]["stringData"]["username"] == "reader"
    operator = made["Chart", "altinity-clickhouse-operator"]["inputs"]["values"]
    assert operator["serviceMonitor"] == {"enabled": True}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("networks", '["everywhere"]', "a list of networks such as 10.0.0.0/8"),
        ("networks", '["10.0.0.1"]', "a list of networks such as 10.0.0.0/8"),
        ("user", "Analytics", "a name of a-z, 0-9 and _"),
        ("image_tag", "latest", "a version with its suffix"),
    ],
)
def test_a_wrong_setting_is_named(run_program, key, value, expected):
    failed = run_program(FOLDER, {f"clickhouse:{key}": value}, PASSWORDS)
    assert failed.resources == ()
    assert f"clickhouse:{key}: found {value!r}\n  expected  {expected}" in failed.error
