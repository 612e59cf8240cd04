"""What `data/analytics/jupyterhub` asks pulumi for."""

from __future__ import annotations

import hashlib

import pytest

FOLDER = "data/analytics/jupyterhub"
PLAIN = {"jupyterhub:postgres_stack": "organization/postgresql/test"}
SECRETS = {
    "jupyterhub:database_password": "role-of-the-test",
    "jupyterhub:proxy_token": "proxy-token-of-the-test-which-is-long-enough",
    "jupyterhub:cookie_secret": "cookie-secret-of-the-test-which-is-long-enough",
    "jupyterhub:crypt_key": "crypt-key-of-the-test-which-is-long-enough",
    "jupyterhub:admin_password": "admin-password-of-the-test-which-is-long-enough",
}
PLACEHOLDER = "in-the-secret-jupyterhub-database"


@pytest.fixture
def jupyterhub(run_program, postgres_stack):
    return run_program(FOLDER, PLAIN, SECRETS, postgres_stack)


def values(recording):
    return recording["Chart", "jupyterhub"]["inputs"]["values"]


def test_it_makes_these_objects_and_the_chart_after_what_it_needs(jupyterhub):
    assert jupyterhub.error is None
    assert jupyterhub.names() == {
        ("Namespace", "jupyterhub"),
        ("postgresql", "postgresql"),
        ("Role", "jupyterhub"),
        ("Database", "jupyterhub"),
        ("Secret", "jupyterhub-database"),
        ("Chart", "jupyterhub"),
        ("Ingress", "jupyterhub"),
    }
    needed = {("Database", "jupyterhub"), ("Secret", "jupyterhub-database")}
    assert jupyterhub.after("Chart", "jupyterhub") == needed
    assert jupyterhub.after("Secret", "jupyterhub-database") == {("Namespace", "jupyterhub")}
    assert jupyterhub.after("Ingress", "jupyterhub") == {("Chart", "jupyterhub")}


def test_the_hubs_own_secret_has_everything_it_looks_up_there(jupyterhub):
    secret = jupyterhub["Secret", "jupyterhub-database"]
    assert secret["secret_inputs"] == ["stringData"]
    assert secret["inputs"]["stringData"] == {
        "hub.db.password": "role-of-the-test",
        "hub.config.JupyterHub.cookie_secret": _hash(SECRETS["jupyterhub:cookie_secret"]),
        "hub.config.CryptKeeper.keys": _hash(SECRETS["jupyterhub:crypt_key"]),
        "admin_password": SECRETS["jupyterhub:admin_password"],
    }
    assert values(jupyterhub)["hub"]["existingSecret"] == "jupyterhub-database"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_chart_gets_a_word_in_place_of_each_token_so_that_it_makes_up_none(jupyterhub):
    hub = values(jupyterhub)["hub"]
    assert hub["cookieSecret"] == PLACEHOLDER
    assert hub["config"]["CryptKeeper"] == {"keys": [PLACEHOLDER]}
    assert values(jupyterhub)["proxy"]["secretToken"] == PLACEHOLDER
    assert jupyterhub["Chart", "jupyterhub"]["secret_inputs"] == []
    assert "of-the-test" not in str(jupyterhub["Chart", "jupyterhub"])


def test_the_hub_keeps_its_state_in_postgres(jupyterhub):
    assert values(jupyterhub)["hub"]["db"] == {
        "type": "postgres",
        "url": "postgresql+psycopg2://jupyterhub@postgresql-cluster-rw.db.svc.cluster.local:5432/jupyterhub",
        "upgrade": True,
    }
    assert jupyterhub["Database", "jupyterhub"]["inputs"]["owner"] == "jupyterhub"


def test_not_everybody_may_log_in(jupyterhub):
    hub = values(jupyterhub)["hub"]
    assert hub["config"]["JupyterHub"]["authenticator_class"] == "shared-password"
    assert hub["config"]["Authenticator"] == {"admin_users": ["admin"], "allowed_users": ["admin"]}
    assert (
        'c.SharedPasswordAuthenticator.admin_password = get_secret_value("admin_password")'
        in (hub["extraConfig"]["login"])
    )


def test_notebooks_reach_postgres_and_clickhouse_and_no_other_private_address(jupyterhub):
    singleuser = values(jupyterhub)["singleuser"]
    policy = singleuser["networkPolicy"]
    assert policy["enabled"] is True
    assert "egressAllowRules" not in policy, "the chart's privateIPs would open everything"
    postgres, clickhouse = policy["egress"]
    assert postgres == {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "db"}},
                "podSelector": {"matchLabels": {"cnpg.io/cluster": "postgresql-cluster"}},
            }
        ],
        "ports": [{"protocol": "TCP", "port": 5432}],
    }
    assert clickhouse == {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "clickhouse"}}}],
        "ports": [{"protocol": "TCP", "port": 8123}, {"protocol": "TCP", "port": 9000}],
    }
    assert singleuser["extraEnv"] == {
        "PGHOST": "postgresql-cluster-rw.db.svc.cluster.local",
        "CLICKHOUSE_HOST": "clickhouse-clickhouse.clickhouse.svc.cluster.local",
    }


def test_the_proxy_asks_for_no_load_balancer_and_is_on_the_tailnet(jupyterhub):
    assert values(jupyterhub)["proxy"]["service"] == {"type": "ClusterIP"}
    spec = jupyterhub["Ingress", "jupyterhub"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert spec["tls"] == [{"hosts": ["jupyterhub"]}]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "proxy-public", "port": {"number": 80}}}
    assert values(jupyterhub)["ingress"] == {"enabled": False}


def test_it_is_made_for_a_few_people(jupyterhub):
    assert values(jupyterhub)["scheduling"] == {
        "userScheduler": {"enabled": False},
        "userPlaceholder": {"enabled": False},
    }
    assert values(jupyterhub)["prePuller"] == {"hook": {"enabled": False}, "continuous": {"enabled": False}}


def test_what_holds_data_is_protected_unless_a_setting_says_otherwise(run_program, postgres_stack, jupyterhub):
    stateful = [("Namespace", "jupyterhub"), ("Database", "jupyterhub")]
    assert [jupyterhub[key]["protect"] for key in stateful] == [True, True]
    loose = run_program(FOLDER, {**PLAIN, "jupyterhub:protect": "false"}, SECRETS, postgres_stack)
    assert [loose[key]["protect"] for key in stateful] == [False, False]


def test_settings_reach_the_chart(run_program, postgres_stack):
    chosen = {
        **PLAIN,
        "jupyterhub:admin_users": '["ada", "grace"]',
        "jupyterhub:notebook_image": "registry.home:5000/notebooks/science:2026.1",
        "jupyterhub:memory_limit": "8G",
        "jupyterhub:storage_class": "fast",
        "jupyterhub:clickhouse_namespace": "olap",
    }
    made = run_program(FOLDER, chosen, SECRETS, postgres_stack)
    people = ["ada", "grace"]
    assert values(made)["hub"]["config"]["Authenticator"] == {"admin_users": people, "allowed_users": people}
    singleuser = values(made)["singleuser"]
    assert singleuser["image"] == {"name": "registry.home:5000/notebooks/science", "tag": "2026.1"}
    assert singleuser["memory"] == {"guarantee": "512M", "limit": "8G"}
    assert singleuser["storage"] == {"type": "dynamic", "capacity": "10Gi", "dynamic": {"storageClass": "fast"}}
    assert singleuser["extraEnv"]["CLICKHOUSE_HOST"] == "clickhouse-clickhouse.olap.svc.cluster.local"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("admin_users", '["Ada L."]', "a list of login names"),
        ("memory_limit", "2GB", "memory such as 2G"),
        ("notebook_image", "quay.io/jupyter/scipy-notebook", "an image with its tag"),
    ],
)
def test_a_wrong_setting_is_named(run_program, postgres_stack, key, value, expected):
    failed = run_program(FOLDER, {**PLAIN, f"jupyterhub:{key}": value}, SECRETS, postgres_stack)
    assert failed.resources == ()
    assert f"jupyterhub:{key}: found {value!r}\n  expected  {expected}" in failed.error


def test_a_short_admin_password_is_refused_as_the_hub_would_without_showing_it(run_program, postgres_stack):
    failed = run_program(FOLDER, PLAIN, {**SECRETS, "jupyterhub:admin_password": "hunter2"}, postgres_stack)
    assert failed.resources == ()
    assert "jupyterhub:admin_password" in failed.error
    assert "at least 32 characters" in failed.error
    assert "hunter2" not in failed.error
