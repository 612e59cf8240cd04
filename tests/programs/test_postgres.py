"""What `data/databases/postgres` asks pulumi for."""

from __future__ import annotations

import itertools

import pytest

FOLDER = "data/databases/postgres"
PASSWORD = {"postgresql:superuser_password": "correct-horse-battery"}


@pytest.fixture
def postgres(run_program):
    return run_program(FOLDER, secrets=PASSWORD)


def test_it_makes_the_handbooks_objects_in_order(postgres):
    assert postgres.error is None
    home, *chain = [
        ("Namespace", "postgresql"),
        ("Secret", "postgresql-cluster-superuser"),
        ("Cluster", "postgresql-cluster"),
        ("Service", "postgresql-cluster-rw-ext"),
    ]
    assert postgres.names() == {home, *chain}
    for before, key in itertools.pairwise([home, *chain]):
        assert postgres.after(*key) == {before}
        assert postgres[key]["inputs"]["metadata"]["name"] == key[1]
        assert postgres[key]["inputs"]["metadata"]["namespace"] == "postgresql"


def test_the_superuser_secret_is_one_the_operator_reads(postgres):
    secret = postgres["Secret", "postgresql-cluster-superuser"]
    assert secret["inputs"]["type"] == "kubernetes.io/basic-auth"
    assert secret["inputs"]["stringData"] == {"username": "postgres", "password": "correct-horse-battery"}
    assert secret["secret_inputs"] == ["stringData"]
    assert secret["inputs"]["metadata"]["labels"]["cnpg.io/reload"] == "true"
    assert secret["protect"] is False, "a changed password replaces the Secret"


def test_the_cluster_has_superuser_access_and_is_awaited(postgres):
    cluster = postgres["Cluster", "postgresql-cluster"]["inputs"]
    assert cluster["apiVersion"] == "postgresql.cnpg.io/v1"
    assert cluster["metadata"]["annotations"] == {
        "pulumi.com/waitFor": "condition=Ready",
        "pulumi.com/timeoutSeconds": "900",
    }
    assert cluster["spec"] == {
        "instances": 1,
        "enablePDB": False,
        "enableSuperuserAccess": True,
        "superuserSecret": {"name": "postgresql-cluster-superuser"},
        "storage": {"size": "20Gi"},
        "postgresql": {"parameters": {}},
        "certificates": {"serverAltDNSNames": ["postgresql"]},
    }


def test_the_cluster_does_not_take_the_password_into_its_inputs(postgres):
    cluster = postgres["Cluster", "postgresql-cluster"]
    assert cluster["secret_inputs"] == []
    assert "correct-horse" not in str(cluster["inputs"])


def test_the_primary_is_exposed_on_the_tailnet(postgres):
    service = postgres["Service", "postgresql-cluster-rw-ext"]["inputs"]
    assert service["metadata"]["annotations"] == {
        "tailscale.com/expose": "true",
        "tailscale.com/hostname": "postgresql",
        "pulumi.com/waitFor": "condition=TailscaleProxyReady",
        "pulumi.com/timeoutSeconds": "300",
    }
    assert service["spec"] == {
        "type": "ClusterIP",
        "selector": {"cnpg.io/cluster": "postgresql-cluster", "cnpg.io/instanceRole": "primary"},
        "ports": [{"name": "postgres", "port": 5432, "targetPort": 5432}],
    }


def test_exports_are_the_ones_consumers_rely_on(postgres):
    assert postgres.exports == {
        "host": {"value": "postgresql-cluster-rw.postgresql.svc.cluster.local", "secret": False},
        "port": {"value": 5432, "secret": False},
        "username": {"value": "postgres", "secret": True},
        "user": {"value": "postgres", "secret": True},
        "password": {"value": "correct-horse-battery", "secret": True},
        "ts_hostname": {"value": "postgresql", "secret": False},
        "k8s_namespace": {"value": "postgresql", "secret": False},
    }


def test_data_is_protected_unless_a_setting_says_otherwise(run_program, postgres):
    stateful = [("Namespace", "postgresql"), ("Cluster", "postgresql-cluster")]
    assert [postgres[key]["protect"] for key in stateful] == [True, True]
    loose = run_program(FOLDER, {"postgresql:protect": "false"}, PASSWORD)
    assert [loose[key]["protect"] for key in stateful] == [False, False]


def test_settings_reach_the_cluster_and_the_service(run_program):
    chosen = run_program(
        FOLDER,
        {
            "postgresql:namespace": "db",
            "postgresql:port": "15432",
            "postgresql:ts_hostname": "localhost",
            "postgresql:instances": "3",
            "postgresql:storage_size": "100Gi",
            "postgresql:storage_class": "fast",
            "postgresql:image": "ghcr.io/tensorchord/cloudnative-vectorchord:18.4-1.1.1",
            "postgresql:parameters": '{"max_connections": 200, "work_mem": "16MB", "jit": false}',
            "postgresql:preload_libraries": '["pg_stat_statements"]',
        },
        PASSWORD,
    )
    spec = chosen["Cluster", "postgresql-cluster"]["inputs"]["spec"]
    assert spec["instances"] == 3
    assert spec["enablePDB"] is True
    assert spec["imageName"] == "ghcr.io/tensorchord/cloudnative-vectorchord:18.4-1.1.1"
    assert spec["storage"] == {"size": "100Gi", "storageClass": "fast"}
    assert spec["postgresql"] == {
        "parameters": {"max_connections": "200", "work_mem": "16MB", "jit": "false"},
        "shared_preload_libraries": ["pg_stat_statements", "vchord.so"],
    }
    service = chosen["Service", "postgresql-cluster-rw-ext"]["inputs"]
    assert service["metadata"]["annotations"]["tailscale.com/hostname"] == "localhost"
    assert service["spec"]["ports"] == [{"name": "postgres", "port": 15432, "targetPort": 5432}]
    assert {name: export["value"] for name, export in chosen.exports.items()} | {"password": ""} == {
        "host": "postgresql-cluster-rw.db.svc.cluster.local",
        "port": 15432,
        "username": "postgres",
        "user": "postgres",
        "password": "",
        "ts_hostname": "localhost",
        "k8s_namespace": "db",
    }


def test_metrics_are_scraped_only_when_asked_for(run_program):
    watched = run_program(FOLDER, {"postgresql:monitoring": "true"}, PASSWORD)
    monitor = watched["PodMonitor", "postgresql-cluster-metrics"]
    assert watched.after("PodMonitor", "postgresql-cluster-metrics") == {("Cluster", "postgresql-cluster")}
    assert monitor["inputs"]["spec"] == {
        "selector": {"matchLabels": {"cnpg.io/cluster": "postgresql-cluster"}},
        "podMetricsEndpoints": [{"port": "metrics"}],
    }


def test_without_a_password_nothing_is_made_and_the_message_names_the_command(run_program):
    failed = run_program(FOLDER)
    assert failed.resources == ()
    assert "stack test of project postgresql" in failed.error
    assert "postgresql:superuser_password: not set\n" in failed.error
    assert "inv secrets.set postgres superuser_password --generate\n" in failed.error
    assert failed.error.endswith("pulumi config set --secret postgresql:superuser_password")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("port", "five", "a whole number from 1 to 65535"),
        ("port", "70000", "a whole number from 1 to 65535"),
        ("instances", "0", "a whole number from 1 to 9"),
        ("protect", "no", "true or false"),
        ("ts_hostname", "Post gres", "one DNS label"),
        ("storage_size", "20 GB", "a size such as 20Gi"),
        ("image", "ghcr.io/cloudnative-pg/postgresql:latest", "an image whose tag starts with a version"),
        ("image", "ghcr.io/cloudnative-pg/postgresql", "an image whose tag starts with a version"),
        ("parameters", '["max_connections"]', "a map"),
        ("preload_libraries", "vchord.so", "a list"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_found_and_what_was_expected(
    configured, settings_of, key, value, expected
):
    import pulumi
    from lib.settings import read_settings

    given = {f"project:{key}": value, "project:superuser_password": "correct-horse-battery"}
    with pytest.raises(pulumi.RunError) as failure:
        configured(read_settings, settings_of(FOLDER), config=given, secrets=("project:superuser_password",))
    message = str(failure.value)
    assert message.startswith("1 setting is missing or wrong")
    assert f"project:{key}: found {value!r}" in message
    assert expected in message
    assert "pulumi config set " in message
    assert "correct-horse" not in message


@pytest.mark.parametrize(
    "image",
    [
        "",
        "ghcr.io/cloudnative-pg/postgresql:18.4-standard-trixie",
        "registry.home:5000/pg/postgresql:18",
        "ghcr.io/cloudnative-pg/postgresql:18.4@sha256:" + "0" * 64,
    ],
)
def test_images_the_operator_accepts_are_accepted(settings_of, image):
    field = settings_of(FOLDER).__dataclass_fields__["image"]
    assert field.metadata["setting"].accepts.holds(image)
