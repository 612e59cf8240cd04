"""The handbook's own lines, in a shell after `eval "$(./inv lab.env)"`, on the platform that `deploy.all` made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbooks.services import SERVICES, find_service
from tests.lab.command_line import AFTER_ENV, Checkout, Result, changed, git_status

pytestmark = pytest.mark.lab


def typed(checkout: Checkout, service: str, lines: str) -> Result:
    """What a shell in the service's project prints for the lines, after the exports of the lab."""
    return checkout.shell(AFTER_ENV + lines, folder_of(service))


def folder_of(service: str) -> str:
    return f"pulumi/{find_service(service).folder}"


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_a_project(checkout: Checkout, service: str) -> None:
    lines = "uv sync --quiet\npulumi stack select lab\npulumi preview --expect-no-changes\npulumi stack output"
    typed(checkout, service, lines).ends_with(0)
    assert git_status(checkout.root) == ""


def test_an_environment(checkout: Checkout) -> None:
    lines = "esc open stitch/prod pulumiConfig.POSTGRES_HOST\nesc run stitch/prod -- pulumi preview --stack lab"
    host = "postgresql-cluster-rw.postgresql.svc.cluster.local"
    typed(checkout, "stitch", lines).ends_with(0).shows(host, "unchanged")


@pytest.mark.parametrize(
    ("words", "shown"), [("-- pulumi preview", "unchanged"), ("--service stitch -- pulumi stack output", "webhook_url")]
)
def test_esc_run_works_in_the_project_of_the_service(checkout: Checkout, words: str, shown: str) -> None:
    checkout.inv("esc.run", "stitch/prod", *words.split()).ends_with(0).shows(shown)


def test_the_real_stack_is_answered_with_what_to_type(checkout: Checkout) -> None:
    result = typed(checkout, SERVICES[0].name, "pulumi stack select mx")
    assert result.code == 6, result.all
    assert "pulumi stack select lab" in result.stderr


def test_a_setting_goes_into_the_labs_own_copy(checkout: Checkout) -> None:
    copy = checkout.settings_file("glance")
    with changed(copy, lambda text: text):
        typed(checkout, "glance", "pulumi config set --secret probe a-word --stack lab").ends_with(0)
        assert "glance:probe:" in copy.read_text()
        assert git_status(checkout.root) == ""


def test_plugins_refuse_another_backend(checkout: Checkout, tmp_path: Path) -> None:
    """Plain pulumi in such a shell, on a backend that is not the lab's: nothing of the lab serves it."""
    (tmp_path / "backend").mkdir()
    lines = f"""
        cp Pulumi.yaml {tmp_path} && cd {tmp_path}
        export PULUMI_BACKEND_URL=file://{tmp_path}/backend PULUMI_CONFIG_PASSPHRASE=words
        pulumi stack init other
        pulumi preview --stack other"""
    result = typed(checkout, "glance", lines)
    assert result.code != 0
    result.shows("serves nothing else", "pulumi plugin install")


def test_another_target_finds_none_of_the_labs_tools(checkout: Checkout, tmp_path: Path) -> None:
    home = {key: checkout.target[key] for key in ("kubeconfig", "context", "cluster_uid")}
    home |= {"stack": "mx", "organization": "organization", "backend": f"file://{tmp_path}"}
    targets = json.dumps({"default": "lab", "targets": {"home": home}})
    with changed(checkout.root / "targets.yaml", lambda _: targets):
        result = checkout.shell(AFTER_ENV + "./inv --target home preview.glance")
    result.ends_with(1, "pulumi", "'home'")
