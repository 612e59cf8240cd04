"""What `data/workflow/n8n` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "data/workflow/n8n"
PLAIN = {"n8n:postgres_stack": "organization/postgresql/test", "n8n:webhook_host": "hooks.home.example"}
SECRETS = {"n8n:database_password": "role-of-the-test", "n8n:encryption_key": "key-of-the-test"}


@pytest.fixture
def n8n(run_program, postgres_stack):
    return run_program(FOLDER, PLAIN, SECRETS, postgres_stack)


def test_it_makes_these_objects_and_the_chart_after_what_it_needs(n8n):
    assert n8n.error is None
    assert n8n.names() == {
        ("Namespace", "n8n"),
        ("postgresql", "postgresql"),
        ("Role", "n8n"),
        ("Database", "n8n"),
        ("Secret", "n8n-database"),
        ("Secret", "n8n-core"),
        ("PersistentVolumeClaim", "n8n-files"),
        ("Chart", "n8n"),
        ("Ingress", "n8n-editor"),
        ("Ingress", "n8n-webhooks"),
    }
    in_namespace = {("Secret", "n8n-database"), ("Secret", "n8n-core"), ("PersistentVolumeClaim", "n8n-files")}
    assert n8n.after("Chart", "n8n") == {("Database", "n8n")} | in_namespace
    assert all(n8n.after(*key) == {("Namespace", "n8n")} for key in in_namespace)
    for ingress in ("n8n-editor", "n8n-webhooks"):
        assert n8n.after("Ingress", ingress) == {("Chart", "n8n")}


def test_the_chart_gets_the_name_of_the_database_for_pods(n8n):
    values = n8n["Chart", "n8n"]["inputs"]["values"]
    assert values["database"] == {
        "useExternal": True,
        "host": "postgresql-cluster-rw.db.svc.cluster.local",
        "port": 5432,
        "database": "n8n",
        "user": "n8n",
        "passwordSecret": {"name": "n8n-database", "key": "DB_POSTGRESDB_PASSWORD"},
    }
    assert n8n["Secret", "n8n-database"]["inputs"]["stringData"] == {"DB_POSTGRESDB_PASSWORD": "role-of-the-test"}


def test_the_chart_gets_names_of_secrets_and_no_value(n8n):
    chart = n8n["Chart", "n8n"]
    assert chart["secret_inputs"] == []
    assert "of-the-test" not in str(chart)
    values = chart["inputs"]["values"]
    assert values["secretRefs"] == {"existingSecret": "n8n-core"}
    assert values["taskRunners"]["authToken"] == {"existingSecret": "n8n-core"}, "else it invents a token every time"
    core = n8n["Secret", "n8n-core"]
    assert core["secret_inputs"] == ["stringData"]
    assert core["inputs"]["stringData"] == {
        "N8N_ENCRYPTION_KEY": "key-of-the-test",
        "N8N_HOST": "n8n",
        "N8N_PORT": "5678",
        "N8N_PROTOCOL": "http",
    }


def test_it_is_one_pod_without_a_queue_whose_files_outlive_it(n8n):
    values = n8n["Chart", "n8n"]["inputs"]["values"]
    assert values["queueMode"] == {"enabled": False}
    assert values["redis"] == {"enabled": False}
    assert values["persistence"] == {"enabled": True, "existingClaim": "n8n-files"}
    assert values["strategy"] == {"type": "Recreate"}
    assert values["image"]["tag"][0].isdigit(), "not the chart's moving tag"


def test_the_editor_is_on_the_tailnet_and_only_there(n8n):
    assert n8n["Ingress", "n8n-editor"]["inputs"]["spec"] == {
        "ingressClassName": "tailscale",
        "rules": [
            {
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "n8n-main", "port": {"number": 5678}}},
                        }
                    ]
                }
            }
        ],
        "tls": [{"hosts": ["n8n"]}],
    }
    assert n8n["Chart", "n8n"]["inputs"]["values"]["ingress"] == {"enabled": False}


def test_webhooks_come_through_the_tunnel_and_nothing_else_does(n8n):
    spec = n8n["Ingress", "n8n-webhooks"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "cloudflare-tunnel"
    assert "tls" not in spec
    (rule,) = spec["rules"]
    assert rule["host"] == "hooks.home.example"
    paths = {path["path"] for path in rule["http"]["paths"]}
    assert {"/webhook", "/webhook-waiting", "/form"} <= paths
    assert not paths & {"/", "/rest", "/api"}


def test_n8n_knows_both_of_its_addresses(run_program, postgres_stack, n8n):
    environment = n8n["Chart", "n8n"]["inputs"]["values"]["config"]["extraEnv"]
    assert {entry["name"]: entry["value"] for entry in environment} == {
        "WEBHOOK_URL": "https://hooks.home.example/",
        "N8N_EDITOR_BASE_URL": "https://n8n",
        "N8N_PROXY_HOPS": "1",
        "GENERIC_TIMEZONE": "UTC",
    }
    chosen = run_program(FOLDER, {**PLAIN, "n8n:editor_url": "https://n8n.tail1.ts.net"}, SECRETS, postgres_stack)
    environment = chosen["Chart", "n8n"]["inputs"]["values"]["config"]["extraEnv"]
    assert {"name": "N8N_EDITOR_BASE_URL", "value": "https://n8n.tail1.ts.net"} in environment


def test_what_holds_data_is_protected_unless_a_setting_says_otherwise(run_program, postgres_stack, n8n):
    stateful = [("Namespace", "n8n"), ("Database", "n8n"), ("PersistentVolumeClaim", "n8n-files")]
    assert [n8n[key]["protect"] for key in stateful] == [True, True, True]
    loose = run_program(FOLDER, {**PLAIN, "n8n:protect": "false"}, SECRETS, postgres_stack)
    assert [loose[key]["protect"] for key in stateful] == [False, False, False]


def test_exports(n8n):
    assert {name: export["value"] for name, export in n8n.exports.items()} == {
        "k8s_namespace": "n8n",
        "editor_url": "https://n8n",
        "webhook_url": "https://hooks.home.example/",
    }


@pytest.mark.parametrize("host", ["hooks", "https://hooks.example", "Hooks.example", "hooks.example/", ""])
def test_a_webhook_host_is_a_full_host_name(run_program, postgres_stack, host):
    failed = run_program(FOLDER, {**PLAIN, "n8n:webhook_host": host}, SECRETS, postgres_stack)
    assert failed.resources == ()
    assert f"n8n:webhook_host: found {host!r}\n  expected  a full host name" in failed.error


def test_without_its_encryption_key_nothing_is_made(run_program, postgres_stack):
    failed = run_program(FOLDER, PLAIN, {"n8n:database_password": "role-of-the-test"}, postgres_stack)
    assert failed.resources == ()
    assert "n8n:encryption_key: not set" in failed.error
    assert "inv secrets.set n8n encryption_key --generate" in failed.error
