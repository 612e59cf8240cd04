"""What `data/analytics/superset` asks pulumi for."""

from __future__ import annotations

import itertools

import pytest
import yaml

FOLDER = "data/analytics/superset"
PLAIN = {"superset:postgres_stack": "organization/postgresql/test"}
SECRETS = {
    "superset:database_password": "role-of-the-test",
    "superset:secret_key": "key-of-the-test",
    "superset:admin_password": "admin-of-the-test",
}


@pytest.fixture
def superset(run_program, postgres_stack):
    return run_program(FOLDER, PLAIN, SECRETS, postgres_stack)


def values(recording):
    return recording["Chart", "superset"]["inputs"]["values"]


def test_it_makes_these_objects_and_the_chart_after_what_it_needs(superset):
    assert superset.error is None
    assert superset.names() == {
        ("Namespace", "superset"),
        ("postgresql", "postgresql"),
        ("Role", "superset"),
        ("Database", "superset"),
        ("Secret", "superset-database"),
        ("Secret", "superset-keys"),
        ("NetworkPolicy", "superset-valkey"),
        ("Deployment", "superset-valkey"),
        ("Service", "superset-valkey"),
        ("Chart", "superset"),
        ("Ingress", "superset"),
    }
    assert superset.after("Chart", "superset") == {
        ("Database", "superset"),
        ("Secret", "superset-database"),
        ("Secret", "superset-keys"),
        ("Service", "superset-valkey"),
    }
    cache = [
        ("Namespace", "superset"),
        *((kind, "superset-valkey") for kind in ("NetworkPolicy", "Deployment", "Service")),
    ]
    for before, key in itertools.pairwise(cache):
        assert superset.after(*key) == {before}
    assert superset.after("Ingress", "superset") == {("Chart", "superset")}


def test_the_job_for_tables_and_first_user_is_no_hook(superset):
    (asset,) = superset["Chart", "superset"]["inputs"]["valueYamlFiles"]
    assert yaml.safe_load(asset["text"]) == {"init": {"jobAnnotations": None}}
    assert values(superset)["init"]["enabled"] is True
    children = superset["Chart", "superset"]["children"]
    assert children["Deployment"] == children["Service"] == children["Job"] == {"pulumi.com/timeoutSeconds": "900"}


def test_the_first_user_gets_the_password_of_the_secret_and_not_the_charts(superset):
    init = values(superset)["init"]
    assert init["createAdmin"] is False
    assert 'superset fab reset-password --username "$ADMIN_USERNAME" --password "$ADMIN_PASSWORD"' in init["initscript"]
    commands = init["initscript"].splitlines()
    assert commands.index("superset db upgrade") < commands.index("superset init")
    keys = superset["Secret", "superset-keys"]
    assert keys["secret_inputs"] == ["stringData"]
    assert keys["inputs"]["stringData"] == {
        "SUPERSET_SECRET_KEY": "key-of-the-test",
        "ADMIN_USERNAME": "admin",
        "ADMIN_EMAIL": "admin@localhost",
        "ADMIN_PASSWORD": "admin-of-the-test",
    }


def test_its_pods_find_database_and_cache_in_one_secret(superset):
    assert superset["Secret", "superset-database"]["inputs"]["stringData"] == {
        "DB_HOST": "postgresql-cluster-rw.db.svc.cluster.local",
        "DB_PORT": "5432",
        "DB_USER": "superset",
        "DB_PASS": "role-of-the-test",
        "DB_NAME": "superset",
        "REDIS_HOST": "superset-valkey",
        "REDIS_PORT": "6379",
        "REDIS_PROTO": "redis",
        "REDIS_USER": "",
        "REDIS_DB": "1",
        "REDIS_CELERY_DB": "0",
    }
    assert values(superset)["secretEnv"] == {"create": False}
    assert values(superset)["envFromSecret"] == "superset-database"
    assert values(superset)["envFromSecrets"] == ["superset-keys"]


def test_the_chart_gets_names_of_secrets_and_no_value(superset):
    assert superset["Chart", "superset"]["secret_inputs"] == []
    assert "of-the-test" not in str(superset["Chart", "superset"])


def test_every_pod_installs_the_drivers_or_ends(superset):
    script = values(superset)["bootstrapScript"].splitlines()
    assert script[0] == "#!/bin/bash"
    assert "set -e" in script
    assert script[-1] == "uv pip install --no-cache 'psycopg2-binary>=2.9,<3' 'clickhouse-connect>=0.8,<1'"


def test_its_configuration_is_python_that_takes_any_password(superset, monkeypatch):
    import os
    import sys
    import types

    made = {}

    class Url:
        @staticmethod
        def create(*parts):
            made["parts"] = parts
            return types.SimpleNamespace(render_as_string=lambda hide_password: f"url hidden={hide_password}")

    package, engine = types.ModuleType("sqlalchemy"), types.ModuleType("sqlalchemy.engine")
    engine.URL = Url
    monkeypatch.setitem(sys.modules, "sqlalchemy", package)
    monkeypatch.setitem(sys.modules, "sqlalchemy.engine", engine)
    given = {"DB_USER": "u", "DB_PASS": "p/@:", "DB_HOST": "h", "DB_PORT": "5432", "DB_NAME": "n"}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = {"env": os.getenv}
    for source in values(superset)["configOverrides"].values():
        assert "{{" not in source
        exec(source, settings)
    assert made["parts"] == ("postgresql+psycopg2", "u", "p/@:", "h", 5432, "n")
    assert settings["SQLALCHEMY_DATABASE_URI"] == "url hidden=False"
    assert settings["ENABLE_PROXY_FIX"] is True


def test_nothing_bundled_is_installed_and_the_cache_is_for_superset_alone(superset):
    assert values(superset)["postgresql"] == values(superset)["redis"] == {"enabled": False}
    spec = superset["NetworkPolicy", "superset-valkey"]["inputs"]["spec"]
    assert spec["ingress"] == [
        {
            "from": [{"podSelector": {"matchLabels": {"release": "superset"}}}],
            "ports": [{"protocol": "TCP", "port": 6379}],
        }
    ]
    pod = superset["Deployment", "superset-valkey"]["inputs"]["spec"]["template"]
    assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert superset["Service", "superset-valkey"]["inputs"]["spec"]["selector"] == spec["podSelector"]["matchLabels"]


def test_it_is_on_the_tailnet(superset):
    spec = superset["Ingress", "superset"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert spec["tls"] == [{"hosts": ["superset"]}]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "superset", "port": {"number": 8088}}}
    assert values(superset)["ingress"] == {"enabled": False}


def test_settings_reach_the_chart(run_program, postgres_stack):
    chosen = {
        **PLAIN,
        "superset:drivers": '["psycopg2-binary==2.9.10"]',
        "superset:workers": "0",
        "superset:image_tag": "6.1.0",
        "superset:admin_username": "me",
        "superset:protect": "false",
    }
    made = run_program(FOLDER, chosen, SECRETS, postgres_stack)
    assert values(made)["bootstrapScript"].endswith("uv pip install --no-cache psycopg2-binary==2.9.10\n")
    assert values(made)["supersetWorker"]["replicas"]["replicaCount"] == 0
    assert values(made)["image"] == {"tag": "6.1.0"}
    assert made["Secret", "superset-keys"]["inputs"]["stringData"]["ADMIN_USERNAME"] == "me"
    assert made["Database", "superset"]["protect"] is False


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("drivers", '["x; rm -rf /"]', "a list of Python packages"),
        ("admin_username", "a b", "a login name"),
        ("admin_email", "nobody", "an e-mail address"),
        ("workers", "many", "a whole number from 0 to 9"),
    ],
)
def test_a_wrong_setting_is_named(run_program, postgres_stack, key, value, expected):
    failed = run_program(FOLDER, {**PLAIN, f"superset:{key}": value}, SECRETS, postgres_stack)
    assert failed.resources == ()
    assert f"superset:{key}: found {value!r}\n  expected  {expected}" in failed.error
