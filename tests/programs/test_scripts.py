"""The scripts and the Python that programs hand to the pods of Superset and JupyterHub."""

from __future__ import annotations

import pytest
import yaml


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
