"""What `apps/media/immich` asks pulumi for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

PROGRAMS = Path(__file__).resolve().parents[2] / "pulumi"

FOLDER = "apps/media/immich"
PLAIN = {"immich:postgres_stack": "organization/postgresql/test"}
PASSWORD = {"immich:database_password": "role-of-the-test"}


@pytest.fixture
def immich(run_program, postgres_stack):
    return run_program(FOLDER, PLAIN, PASSWORD, postgres_stack)


def extensions(recording) -> list[str]:
    """Their names, in the order that their dependencies make of them: each comes after exactly those before it."""
    made = [r for r in recording.resources if r["type"].endswith(":Extension")]
    assert all(r["inputs"]["database"] == "immich" and r["provider"] == "postgresql" for r in made)
    before = {r["inputs"]["name"]: set() for r in made}
    for r in made:
        comes_after = recording.all_before("Extension", r["name"])
        before[r["inputs"]["name"]] = {name for kind, name in comes_after if kind == "Extension"}
    ordered = sorted(before, key=lambda name: len(before[name]))
    for place, name in enumerate(ordered):
        assert before[name] == {f"immich-{earlier}" for earlier in ordered[:place]}
    return ordered


def test_it_makes_these_objects_and_the_chart_after_what_it_needs(immich):
    assert immich.error is None
    assert {key for key in immich.names() if key[0] != "Extension"} == {
        ("Namespace", "immich"),
        ("postgresql", "postgresql"),
        ("Role", "immich"),
        ("Database", "immich"),
        ("Secret", "immich-database"),
        ("PersistentVolumeClaim", "immich-library"),
        ("Chart", "immich"),
        ("Ingress", "immich"),
    }
    extensions_made = {key for key in immich.names() if key[0] == "Extension"}
    assert immich.after("Chart", "immich") == extensions_made | {
        ("Database", "immich"),
        ("Secret", "immich-database"),
        ("PersistentVolumeClaim", "immich-library"),
    }
    assert immich.after("Ingress", "immich") == {("Chart", "immich")}


SERVER = {"host": "pg.example", "port": "5432", "sslmode": "disable", "k8s_namespace": "postgresql"}
LOGIN = {"username": "postgres", "password": "of-the-superuser"}


@pytest.mark.parametrize("place", ["", "postgresql:", "immich:"])
def test_the_postgres_stack_is_required_and_nothing_else_will_do(run_program, postgres_stack, place):
    """No login given by hand takes its place, under whatever name."""
    by_hand = {f"{place}{key}": value for key, value in SERVER.items()} if place else {}
    login = {f"{place}{key}": value for key, value in LOGIN.items()} if place else {}
    failed = run_program(FOLDER, by_hand, PASSWORD | login, postgres_stack)
    assert failed.resources == ()
    assert (
        "immich:postgres_stack: not set\n"
        "  expected  organization/project/stack: Stack that runs Postgres; its outputs are read\n"
        "  set it    pulumi config set immich:postgres_stack home/postgresql/test" in failed.error
    )


def test_pulumi_uses_the_name_on_the_tailnet_and_the_pod_the_one_in_the_cluster(immich):
    assert immich["postgresql", "postgresql"]["inputs"]["host"] == "pg-on-the-tailnet"
    assert immich["postgresql", "postgresql"]["inputs"]["port"] == "15432"
    server = immich["Chart", "immich"]["inputs"]["values"]["server"]["controllers"]["main"]
    assert server["containers"]["main"]["env"] == {
        "DB_HOSTNAME": "postgresql-cluster-rw.db.svc.cluster.local",
        "DB_PORT": "5432",
        "DB_USERNAME": "immich",
        "DB_DATABASE_NAME": "immich",
        "DB_PASSWORD": {"valueFrom": {"secretKeyRef": {"name": "immich-database", "key": "DB_PASSWORD"}}},
        "DB_VECTOR_EXTENSION": "vectorchord",
    }
    assert "pg-on-the-tailnet" not in str(immich["Chart", "immich"])


def test_the_role_has_its_own_password_and_no_right_beyond_its_database(immich):
    assert immich["Role", "immich"]["inputs"] == {"name": "immich", "login": True, "password": "role-of-the-test"}
    assert immich["Database", "immich"]["inputs"]["owner"] == "immich"
    assert immich["Secret", "immich-database"]["inputs"]["stringData"] == {"DB_PASSWORD": "role-of-the-test"}
    assert "superuser-of-the-test" not in str([r for r in immich.resources if r["name"] != "postgresql"])


def test_the_chart_gets_names_of_secrets_and_no_value(immich):
    assert immich["Chart", "immich"]["secret_inputs"] == []
    assert "of-the-test" not in str(immich["Chart", "immich"])


def test_extensions_are_made_one_after_the_other_those_of_vector_search_first(immich):
    assert extensions(immich) == ["vector", "vchord", "cube", "earthdistance", "unaccent", "uuid-ossp", "pg_trgm"]
    assert immich.warnings == ()


def test_extensions_go_with_their_database_and_not_before_it(immich):
    """Dropped by themselves they fail, once the app's tables use them: the provider drops without cascade."""
    made = [r for r in immich.resources if r["type"].endswith(":Extension")]
    assert {r["deleted_with"] for r in made} == {"immich"}


def test_its_services_have_as_long_as_the_pods_behind_them(immich):
    children = immich["Chart", "immich"]["children"]
    assert children["Deployment"] == children["Service"] == {"pulumi.com/timeoutSeconds": "900"}


def test_the_lab_runs_on_pgvector_leaves_out_what_its_server_lacks_and_says_so(run_program, postgres_stack):
    lab = yaml.safe_load((PROGRAMS / FOLDER / "Pulumi.lab.yaml").read_text(encoding="utf-8"))["config"]
    given = {
        **PLAIN,
        "immich:vector_extension": lab["immich:vector_extension"],
        "immich:extensions": json.dumps(lab["immich:extensions"]),
    }
    made = run_program(FOLDER, given, PASSWORD, postgres_stack)
    assert made.error is None
    assert extensions(made) == ["vector", "cube", "earthdistance", "unaccent", "pg_trgm"]
    assert made.warnings == ("immich:extensions leaves out uuid-ossp, which Immich uses",)
    server = made["Chart", "immich"]["inputs"]["values"]["server"]["controllers"]["main"]["containers"]["main"]
    assert server["env"]["DB_VECTOR_EXTENSION"] == "pgvector"


def test_an_extension_is_made_once_however_often_it_is_named(run_program, postgres_stack):
    chosen = {"immich:vector_extension": "pgvector", "immich:extensions": '["vector", "cube", "cube"]'}
    assert extensions(run_program(FOLDER, PLAIN | chosen, PASSWORD, postgres_stack)) == ["vector", "cube"]


def test_the_library_is_a_claim_of_its_own_that_the_chart_only_uses(immich):
    claim = immich["PersistentVolumeClaim", "immich-library"]
    assert claim["inputs"]["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "100Gi"}},
    }
    values = immich["Chart", "immich"]["inputs"]["values"]
    assert values["immich"]["persistence"] == {"library": {"existingClaim": "immich-library"}}
    assert values["server"]["controllers"]["main"]["strategy"] == "Recreate"


def test_what_holds_data_is_protected_unless_a_setting_says_otherwise(run_program, postgres_stack, immich):
    stateful = [("Namespace", "immich"), ("Database", "immich"), ("PersistentVolumeClaim", "immich-library")]
    assert [immich[key]["protect"] for key in stateful] == [True, True, True]
    loose = run_program(FOLDER, {**PLAIN, "immich:protect": "false"}, PASSWORD, postgres_stack)
    assert [loose[key]["protect"] for key in stateful] == [False, False, False]


def test_it_is_on_the_tailnet(immich):
    spec = immich["Ingress", "immich"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert spec["tls"] == [{"hosts": ["immich"]}]
    assert "host" not in spec["rules"][0]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "immich-server", "port": {"number": 2283}}}


def test_settings_reach_the_chart(run_program, postgres_stack):
    chosen = {
        **PLAIN,
        "immich:image_tag": "v3.1.0",
        "immich:machine_learning": "false",
        "immich:metrics": "true",
        "immich:storage_class": "fast",
        "immich:library_size": "2Ti",
        "immich:host": "photos",
        "immich:namespace": "photos",
    }
    made = run_program(FOLDER, chosen, PASSWORD, postgres_stack)
    values = made["Chart", "immich"]["inputs"]["values"]
    assert values["controllers"]["main"]["containers"]["main"]["image"] == {"tag": "v3.1.0"}
    assert values["machine-learning"] == {"enabled": False}
    assert values["immich"]["metrics"] == {"enabled": True}
    spec = made["PersistentVolumeClaim", "immich-library"]["inputs"]["spec"]
    assert spec["storageClassName"] == "fast"
    assert spec["resources"] == {"requests": {"storage": "2Ti"}}
    assert made["Ingress", "immich"]["inputs"]["spec"]["tls"] == [{"hosts": ["photos"]}]
    assert made["Secret", "immich-database"]["inputs"]["metadata"]["namespace"] == "photos"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("vector_extension", "pgvecto.rs", "one of vectorchord, pgvector"),
        ("extensions", "cube", "a list of extension names"),
        ("extensions", '["Cube"]', "a list of extension names"),
        ("sslmode", "prefer", "one of disable, require, verify-ca, verify-full"),
        ("library_size", "1TB", "a size such as 20Gi"),
    ],
)
def test_a_wrong_setting_is_named(run_program, postgres_stack, key, value, expected):
    failed = run_program(FOLDER, {**PLAIN, f"immich:{key}": value}, PASSWORD, postgres_stack)
    assert failed.resources == ()
    assert f"immich:{key}: found {value!r}\n  expected  {expected}" in failed.error
