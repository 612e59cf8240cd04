"""Stitch and its ESC environment: the definition provides what the program requires."""

from __future__ import annotations

from pathlib import Path

import yaml

from runbooks.services import find_service

ROOT = Path(__file__).resolve().parents[2]


def test_a_changed_secret_rolls_the_pod(run_service):
    checksums = set()
    for value in ("one-of-the-test", "another-of-the-test"):
        made = run_service("stitch", {"stitch:twitch_client_secret": value})
        template = made["Deployment", "stitch"]["inputs"]["spec"]["template"]
        checksums.add(template["metadata"]["annotations"]["checksum/secrets"])
    assert len(checksums) == 2


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


def test_the_environment_reads_the_outputs_that_postgres_exports(run_service):
    stacks = definition()["stacks"]["fn::open::pulumi-stacks"]["stacks"]
    assert list(stacks) == ["postgresql"]
    project, stack = stacks["postgresql"]["stack"].split("/")
    assert project == find_service("postgres").project_name
    assert (ROOT / "pulumi/data/databases/postgres" / f"Pulumi.{stack}.yaml").exists()
    postgres = run_service("postgres")
    keys = {key.key: key.is_secret for key in find_service("stitch").environment_keys}
    for key, value in definition()["pulumiConfig"].items():
        if isinstance(value, str) and value.startswith("${"):
            output = postgres.exports[value.removeprefix("${stacks.postgresql.").removesuffix("}")]
            assert output["secret"] is keys[key], f"{key} would change its secretness"
