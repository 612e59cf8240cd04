"""What single programs hand to their apps: scripts and Python, Glance's page, Stitch's environment."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from runbooks.services import SERVICES, find_service

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def superset(run_service):
    return run_service("superset")


def values(recording):
    (chart,) = [one for one in recording.resources if one["type"].endswith(":Chart")]
    return chart["inputs"]["values"]


def test_the_job_for_tables_and_first_user_is_no_hook(superset):
    (asset,) = superset["Chart", "superset"]["inputs"]["valueYamlFiles"]
    assert yaml.safe_load(asset["text"]) == {"init": {"jobAnnotations": None}}


def test_the_first_user_gets_the_password_of_the_secret_and_not_the_charts(superset):
    init = values(superset)["init"]
    assert init["createAdmin"] is False
    assert 'superset fab reset-password --username "$ADMIN_USERNAME" --password "$ADMIN_PASSWORD"' in init["initscript"]
    commands = init["initscript"].splitlines()
    assert commands.index("superset db upgrade") < commands.index("superset init")


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


def test_other_drivers_are_installed(run_service):
    made = run_service("superset", {"superset:drivers": '["psycopg2-binary==2.9.10"]'})
    assert values(made)["bootstrapScript"].endswith("uv pip install --no-cache psycopg2-binary==2.9.10\n")


def test_not_everybody_may_log_in_to_jupyterhub(run_service):
    login = values(run_service("jupyterhub"))["hub"]["extraConfig"]["login"]
    assert 'c.SharedPasswordAuthenticator.admin_password = get_secret_value("admin_password")' in login


FOLDER = "apps/web/glance"
PROJECT = ROOT / "pulumi" / FOLDER


@pytest.fixture
def glance(run_program):
    return run_program(FOLDER)


def page(recording) -> dict:
    """The configuration as Glance reads it."""
    return json.loads(recording["ConfigMap", "glance"]["inputs"]["data"]["glance.yml"])


def monitored(recording) -> dict[str, dict]:
    (wide,) = [column for column in page(recording)["pages"][0]["columns"] if column["size"] == "full"]
    return {site["title"]: site for site in wide["widgets"][0]["sites"]}


def test_every_app_is_linked_by_its_tailnet_name_and_checked_inside_the_cluster(run_program, glance):
    named = run_program(FOLDER, {"glance:tailnet": "tail1234.ts.net"})
    assert monitored(named)["Immich"] == {
        "title": "Immich",
        "url": "https://immich.tail1234.ts.net/",
        "check-url": "http://immich-server.immich.svc.cluster.local:2283/api/server/ping",
        "icon": "si:immich",
        "timeout": "5s",
    }
    for site in monitored(named).values():
        assert ".svc.cluster.local:" in site["check-url"], "pods do not resolve tailnet names"
        assert site["url"].endswith(".tail1234.ts.net/")
    assert monitored(glance)["n8n"]["url"] == "https://n8n/"


def test_chosen_sites_are_shown_in_their_order(run_program):
    chosen = run_program(FOLDER, {"glance:sites": '["grafana", "immich"]'})
    assert list(monitored(chosen)) == ["Grafana", "Immich"]


def test_what_it_links_to_are_services_in_their_own_namespaces(settings_of):
    spec = importlib.util.spec_from_file_location("sites of glance", PROJECT / "sites.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tuple(site.name for site in module.SITES) == settings_of(FOLDER).__dataclass_fields__["sites"].default
    namespaces = {service.name: service.namespace for service in SERVICES}
    namespaces["grafana"] = namespaces.get("monitoring", "monitoring")
    for site in module.SITES:
        assert site.service.partition(":")[0].split(".")[1] == namespaces.get(site.name, site.name)


def test_a_page_has_at_least_one_full_column_and_the_server_knows_of_its_proxy(glance):
    assert page(glance)["server"] == {"port": 8080, "proxied": True}
    for one in page(glance)["pages"]:
        sizes = [column["size"] for column in one["columns"]]
        assert 1 <= sizes.count("full") <= 2
        assert len(sizes) <= 3


def test_nothing_in_it_is_taken_for_a_variable_and_a_change_rolls_the_pod(run_program, glance):
    """Glance replaces `${…}` before it parses, and ends when there is no such variable."""
    odd = run_program(FOLDER, {"glance:title": "costs ${MONEY}"})
    text = odd["ConfigMap", "glance"]["inputs"]["data"]["glance.yml"]
    assert "${MONEY}" in text
    assert text.count("${") == text.count("\\${")
    templates = [recording["Deployment", "glance"]["inputs"]["spec"]["template"] for recording in (glance, odd)]
    assert len({template["metadata"]["annotations"]["checksum/config"] for template in templates}) == 2


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
