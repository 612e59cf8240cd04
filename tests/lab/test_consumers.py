"""The apps that share Postgres, deployed with the whole platform, and looked at in the cluster and the database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.lab.command_line import Checkout, changed

IN_CLUSTER = "postgresql-cluster-rw.postgresql.svc.cluster.local"

pytestmark = pytest.mark.lab


def query(checkout: Checkout, database: str, user: str, password: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last statement; what the others did is taken back."""
    login = {"host": "localhost", "port": checkout.postgres_port, "user": user, "password": password}
    with psycopg.connect(**login, dbname=database, connect_timeout=5) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        found = cursor.fetchall() if cursor.description else []
        connection.rollback()
        return found


def provider(checkout: Checkout, service: str) -> dict[str, Any]:
    """What the postgresql provider of the service's stack is told."""
    resources = checkout.deployment(service)["resources"]
    (found,) = [each["inputs"] for each in resources if each["type"] == "pulumi:providers:postgresql"]
    return found


def environment(deployment: dict[str, Any]) -> dict[str, Any]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_pods_get_the_name_in_the_cluster_and_providers_the_one_on_the_tailnet(checkout):
    found = environment(checkout.get("--namespace=immich", "deployment", "immich-server"))
    assert found["DB_HOSTNAME"] == IN_CLUSTER
    assert found["DB_PORT"] == "5432"
    assert found["DB_PASSWORD"]["secretKeyRef"] == {"name": "immich-database", "key": "DB_PASSWORD"}
    for service in ("immich", "stitch"):
        assert provider(checkout, service)["host"] == "localhost", "ts_hostname of the lab"
        assert provider(checkout, service)["port"] == str(checkout.postgres_port)


def test_immich_says_which_extension_the_labs_server_lacks_and_has_the_others(checkout, whole):
    assert "immich:extensions leaves out uuid-ossp" in whole.result.stdout
    password = checkout.secret("immich", "immich-database")["DB_PASSWORD"]
    extensions = {row[0] for row in query(checkout, "immich", "immich", password, "select extname from pg_extension")}
    assert extensions == {"plpgsql", "vector", "cube", "earthdistance", "unaccent", "pg_trgm"}


@pytest.mark.parametrize(
    ("service", "key", "databases"),
    [
        ("immich", "DB_PASSWORD", ("immich",)),
        ("stitch", "POSTGRES_PASSWORD", ("stitch",)),
        ("n8n", "DB_POSTGRESDB_PASSWORD", ("n8n",)),
        ("temporal", "password", ("temporal", "temporal_visibility")),
        ("superset", "DB_PASS", ("superset",)),
        ("jupyterhub", "hub.db.password", ("jupyterhub",)),
    ],
)
def test_each_app_owns_its_databases_logs_in_as_itself_and_needs_nothing_more(checkout, service, key, databases):
    password = checkout.secret(service, f"{service}-database")[key]
    rights = "select rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname = current_user"
    for database in databases:
        owner = "select pg_get_userbyid(datdba), datcollate from pg_database where datname = current_database()"
        login = (database, service, password)
        assert query(checkout, *login, owner) == [(service, "C.UTF-8")]
        assert query(checkout, *login, "create table made_by_the_test (n int)", rights) == [(False, False, False)]


def test_jobs_that_the_charts_would_make_hooks_really_run(checkout):
    jobs = {"temporal": ("temporal-schema-0-0-0-lab-1", "temporal-namespace-0-0-0-lab-1")}
    for service, names in (jobs | {"superset": ("superset-init-db",)}).items():
        for name in names:
            assert checkout.get(f"--namespace={service}", "job", name)["status"]["succeeded"] == 1


def test_each_is_on_the_tailnet_under_its_name(checkout):
    ingresses = {"immich": "immich", "n8n": "n8n-editor", "temporal": "temporal-web"}
    for service, ingress in (ingresses | {"superset": "superset", "jupyterhub": "jupyterhub"}).items():
        found = checkout.get(f"--namespace={service}", "ingress", ingress)
        assert found["status"]["loadBalancer"]["ingress"][0]["hostname"] == f"{service}.lab.ts.net"


def test_n8ns_webhooks_come_through_the_tunnel_and_its_editor_does_not(checkout):
    webhooks = checkout.get("--namespace=n8n", "ingress", "n8n-webhooks")
    assert webhooks["status"]["loadBalancer"]["ingress"][0]["hostname"].endswith(".cfargotunnel.com")
    found = environment(checkout.get("--namespace=n8n", "deployment", "n8n-main"))
    assert found["WEBHOOK_URL"] == f"https://{webhooks['spec']['rules'][0]['host']}/"
    assert found["N8N_EDITOR_BASE_URL"] == "https://n8n"
    assert found["N8N_ENCRYPTION_KEY"]["secretKeyRef"]["name"] == "n8n-core"


def test_temporals_frontend_is_a_service_on_the_tailnet_that_has_endpoints(checkout):
    service = checkout.get("--namespace=temporal", "service", "temporal-grpc")
    conditions = {condition["type"]: condition["status"] for condition in service["status"]["conditions"]}
    assert conditions["TailscaleProxyReady"] == "True"
    slices = checkout.get(
        "--namespace=temporal", "endpointslices", "--selector=kubernetes.io/service-name=temporal-grpc"
    )
    assert any(endpoint["conditions"]["ready"] for item in slices["items"] for endpoint in item["endpoints"])


def test_jupyterhubs_tokens_are_where_each_part_looks_for_them(checkout):
    of_chart, own = checkout.secret("jupyterhub", "hub"), checkout.secret("jupyterhub", "jupyterhub-database")
    word = "in-the-secret-jupyterhub-database"
    assert of_chart["hub.config.ConfigurableHTTPProxy.auth_token"] != word, "pulumi put the token in"
    assert len(of_chart["hub.config.ConfigurableHTTPProxy.auth_token"]) >= 32
    assert of_chart["hub.config.JupyterHub.cookie_secret"] == word
    assert len(bytes.fromhex(own["hub.config.JupyterHub.cookie_secret"])) == 32
    assert len(bytes.fromhex(own["hub.config.CryptKeeper.keys"])) == 32
    assert not {value for key, value in own.items() if value in of_chart["values.yaml"]}


def test_notebooks_may_reach_the_two_databases(checkout):
    rules = checkout.get("--namespace=jupyterhub", "networkpolicy", "singleuser")["spec"]["egress"]
    reached = {
        (target["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in rules
        for target in rule["to"]
        for port in rule.get("ports", [])
        if "namespaceSelector" in target
    }
    assert reached >= {("postgresql", 5432), ("clickhouse", 8123), ("clickhouse", 9000)}


def test_clickhouse_is_completed_with_the_passwords_of_its_secrets_named(checkout):
    installation = checkout.get("--namespace=clickhouse", "chi", "clickhouse")
    assert installation["status"]["status"] == "Completed"
    users = installation["spec"]["configuration"]["users"]
    assert users["analytics/password"]["valueFrom"]["secretKeyRef"] == {"name": "clickhouse-user", "key": "password"}
    assert users["default/networks/ip"] == "127.0.0.1/32"
    assert "10.0.0.0/8" in users["analytics/networks/ip"]


def test_another_stack_that_lacks_the_outputs_is_named_with_what_is_missing(checkout):
    wrong = ("organization/postgresql/lab", "organization/tailscale/lab")
    with changed(checkout.settings_file("immich"), lambda text: text.replace(*wrong)):
        failed = checkout.inv("preview.immich")
    assert failed.code == 1
    assert "stack organization/tailscale/lab has no output ts_hostname or host, port, username, password" in failed.all
    assert "read by   stack lab of project immich" in failed.all
