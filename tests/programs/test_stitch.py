"""What `apps/stitch` asks pulumi for, with what its ESC environment provides."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runbooks.services import find_service

FOLDER = "apps/stitch"
ROOT = Path(__file__).resolve().parents[2]
PLAIN = {
    "stitch:POSTGRES_HOST": "postgresql-cluster-rw.postgresql.svc.cluster.local",
    "stitch:k8s_namespace": "postgresql",
    "postgresql:host": "postgresql",
    "postgresql:port": "5432",
    "postgresql:sslmode": "disable",
    "stitch:image": "ghcr.io/example/stitch:1.0.0",
    "stitch:public_host": "stitch.example.com",
}
SECRETS = {
    "postgresql:username": "admin-of-the-test",
    "postgresql:password": "admin-password-of-the-test",
    "stitch:database_password": "own-password-of-the-test",
    "stitch:eventsub_secret": "eventsub-secret-of-the-test",
    "stitch:twitch_client_id": "client-of-the-test",
    "stitch:twitch_client_secret": "client-secret-of-the-test",
}


@pytest.fixture
def stitch(run_program):
    return run_program(FOLDER, PLAIN, SECRETS)


def container(recording) -> dict:
    (only,) = recording["Deployment", "stitch"]["inputs"]["spec"]["template"]["spec"]["containers"]
    return only


def test_its_objects_come_in_order(stitch):
    assert stitch.error is None
    home, database = ("Namespace", "stitch"), ("Database", "stitch")
    in_namespace = {("Secret", "stitch-database"), ("Secret", "stitch"), ("NetworkPolicy", "stitch")}
    exposed = {("Deployment", "stitch"), ("Service", "stitch"), ("Ingress", "stitch")}
    in_postgres = {("postgresql", "postgresql"), ("Role", "stitch"), database}
    assert stitch.names() == {home} | in_namespace | exposed | in_postgres
    assert all(stitch.after(*key) == {home} for key in in_namespace)
    assert stitch.after("Deployment", "stitch") == in_namespace | {database}
    assert stitch.after("Service", "stitch") == {("Deployment", "stitch")}
    assert stitch.after("Ingress", "stitch") == {("Service", "stitch")}


def test_pulumi_connects_through_the_tailnet_and_the_pod_inside_the_cluster(stitch):
    provider = stitch["postgresql", "postgresql"]["inputs"]
    assert provider["host"] == "postgresql"
    assert str(provider["port"]) == "5432"
    assert provider["sslmode"] == "disable"
    login = stitch["Secret", "stitch-database"]
    assert login["inputs"]["stringData"] == {
        "POSTGRES_HOST": "postgresql-cluster-rw.postgresql.svc.cluster.local",
        "POSTGRES_PORT": "5432",
        "POSTGRES_USER": "stitch",
        "POSTGRES_PASSWORD": "own-password-of-the-test",
        "POSTGRES_DB": "stitch",
    }
    assert login["secret_inputs"] == ["stringData"]


def test_the_pod_gets_everything_from_secrets_and_never_the_servers_own_login(stitch):
    assert container(stitch)["envFrom"] == [
        {"secretRef": {"name": "stitch-database"}},
        {"secretRef": {"name": "stitch"}},
    ]
    assert container(stitch)["env"] == [{"name": "PORT", "value": "8080"}]
    for kind, name in [("Secret", "stitch"), ("Secret", "stitch-database"), ("Deployment", "stitch")]:
        assert "admin-" not in str(stitch[kind, name]["inputs"])
    assert "of-the-test" not in str(stitch["Deployment", "stitch"]["inputs"])
    assert stitch["Deployment", "stitch"]["secret_inputs"] == []


def test_it_knows_twitch_and_its_own_public_address(stitch):
    twitch = stitch["Secret", "stitch"]
    assert twitch["inputs"]["stringData"] == {
        "EVENTSUB_CALLBACK": "https://stitch.example.com/eventsub",
        "EVENTSUB_SECRET": "eventsub-secret-of-the-test",
        "TWITCH_CLIENT_ID": "client-of-the-test",
        "TWITCH_CLIENT_SECRET": "client-secret-of-the-test",
    }
    assert twitch["secret_inputs"] == ["stringData"]


def test_a_changed_secret_rolls_the_pod(run_program, stitch):
    changed = run_program(FOLDER, PLAIN, SECRETS | {"stitch:twitch_client_secret": "another-of-the-test"})
    checksums = {
        recording["Deployment", "stitch"]["inputs"]["spec"]["template"]["metadata"]["annotations"]["checksum/secrets"]
        for recording in (stitch, changed)
    }
    assert len(checksums) == 2


def test_only_the_webhook_is_public(stitch):
    spec = stitch["Ingress", "stitch"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "cloudflare-tunnel"
    assert "tls" not in spec
    (rule,) = spec["rules"]
    assert rule["host"] == "stitch.example.com"
    (path,) = rule["http"]["paths"]
    assert path["path"] == "/eventsub"
    assert path["pathType"] == "Prefix"
    assert path["backend"]["service"] == {"name": "stitch", "port": {"number": 80}}


def test_from_the_pod_only_names_postgres_and_the_internet_can_be_reached(stitch):
    spec = stitch["NetworkPolicy", "stitch"]["inputs"]["spec"]
    assert spec["policyTypes"] == ["Egress"]
    names, postgres, internet = spec["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert postgres["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postgresql"}}}]
    assert "192.168.0.0/16" in internet["to"][0]["ipBlock"]["except"]
    labels = stitch["Deployment", "stitch"]["inputs"]["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_bad_image_fails_soon(stitch):
    annotations = stitch["Deployment", "stitch"]["inputs"]["metadata"]["annotations"]
    assert annotations["pulumi.com/timeoutSeconds"] == "180"


def test_a_private_registry_gets_its_login(run_program, stitch):
    assert "imagePullSecrets" not in stitch["Deployment", "stitch"]["inputs"]["spec"]["template"]["spec"]
    login = '{"auths": {"registry.example": {"auth": "of-the-test"}}}'
    private = run_program(FOLDER, PLAIN, SECRETS | {"stitch:registry_login": login})
    pull_secret = private["Secret", "stitch-registry"]
    assert ("Secret", "stitch-registry") in private.after("Deployment", "stitch")
    assert pull_secret["inputs"]["type"] == "kubernetes.io/dockerconfigjson"
    assert pull_secret["inputs"]["stringData"] == {".dockerconfigjson": login}
    pod = private["Deployment", "stitch"]["inputs"]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "stitch-registry"}]


def test_its_data_is_protected_unless_a_setting_says_otherwise(run_program, stitch):
    assert stitch["Database", "stitch"]["protect"] is True
    loose = run_program(FOLDER, PLAIN | {"stitch:protect": "false"}, SECRETS)
    assert loose["Database", "stitch"]["protect"] is False


def test_exports(stitch):
    assert {name: export["value"] for name, export in stitch.exports.items()} == {
        "k8s_namespace": "stitch",
        "webhook_url": "https://stitch.example.com/eventsub",
        "health_path": "/healthz",
        "database": "stitch",
    }
    assert not any(export["secret"] for export in stitch.exports.values())


def test_without_its_environment_every_missing_key_is_named(run_program):
    unbound = run_program(FOLDER)
    assert unbound.resources == ()
    assert unbound.error.startswith("13 settings are missing or wrong for stack test of project stitch:")
    for key in find_service("stitch").environment_keys:
        full = key.key if ":" in key.key else f"stitch:{key.key}"
        assert f"\n{full}: not set\n" in unbound.error
    assert unbound.error.count("set it    inv esc.bind stitch/prod\n") == 13
    assert "inv esc.set stitch/prod pulumiConfig.eventsub_secret" in unbound.error


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("stitch:eventsub_secret", "short", "a secret of 10 to 100 ASCII characters"),
        ("stitch:eventsub_secret", "x" * 101, "a secret of 10 to 100 ASCII characters"),
        ("stitch:twitch_client_secret", "", "a secret: Secret of that application"),
    ],
)
def test_a_secret_twitch_would_refuse_is_named_and_not_shown(run_program, key, value, expected):
    failed = run_program(FOLDER, PLAIN, SECRETS | {key: value})
    assert failed.resources == ()
    assert f"{key}: found a" in failed.error
    assert expected in failed.error
    assert not value or value not in failed.error


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("stitch:public_host", "stitch", "a full host name"),
        ("postgresql:port", "postgres", "a whole number from 1 to 65535"),
        ("postgresql:sslmode", "on", "one of disable"),
        ("stitch:image", "ghcr.io/example/stitch", "an image with a tag"),
    ],
)
def test_a_wrong_setting_is_named(run_program, key, value, expected):
    failed = run_program(FOLDER, PLAIN | {key: value}, SECRETS)
    assert failed.resources == ()
    assert f"{key}: found {value!r}" in failed.error
    assert expected in failed.error


def definition() -> dict:
    return yaml.safe_load((ROOT / "environments/stitch/prod.yaml").read_text(encoding="utf-8"))["values"]


def test_the_environments_definition_provides_exactly_the_keys_and_no_value_of_a_secret():
    provided = definition()["pulumiConfig"]
    keys = {key.key: key.is_secret for key in find_service("stitch").environment_keys}
    assert set(provided) == set(keys)
    for key, value in provided.items():
        if isinstance(value, dict):
            assert value == {"fn::secret": ""}, f"{key} has a value"
            assert keys[key]
        elif keys[key]:
            assert value.startswith("${stacks.postgresql."), f"{key} is a secret in plain text"


def test_the_environment_reads_the_outputs_that_postgres_exports(run_program):
    stacks = definition()["stacks"]["fn::open::pulumi-stacks"]["stacks"]
    assert list(stacks) == ["postgresql"]
    project, stack = stacks["postgresql"]["stack"].split("/")
    assert project == find_service("postgres").project_name
    assert (ROOT / "pulumi/data/databases/postgres" / f"Pulumi.{stack}.yaml").exists()
    postgres = run_program("data/databases/postgres", secrets={"postgresql:superuser_password": "correct-horse"})
    keys = {key.key: key.is_secret for key in find_service("stitch").environment_keys}
    for key, value in definition()["pulumiConfig"].items():
        if isinstance(value, str) and value.startswith("${"):
            output = postgres.exports[value.removeprefix("${stacks.postgresql.").removesuffix("}")]
            assert output["secret"] is keys[key], f"{key} would change its secretness"
