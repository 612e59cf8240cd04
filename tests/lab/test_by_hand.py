"""The handbook's own lines, in a shell after `eval "$(./inv lab.env)"`, on the platform that `deploy.all` made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runbooks.services import SERVICES
from runbooks.stacks.service import Service
from tests.lab.command_line import Checkout, Deployed, Result, changed, git_status

pytestmark = pytest.mark.lab

AFTER_ENV = 'eval "$("$ROOT/inv" lab.env 2>/dev/null)"\n'


@pytest.fixture(scope="module")
def checkout(whole: Deployed) -> Checkout:
    assert whole.result.code == 0, whole.result.all
    return whole.checkout


def typed(checkout: Checkout, folder: Path, lines: str, **more: str) -> Result:
    """What a shell prints for the lines, after the exports of the lab."""
    done = subprocess.run(
        ["sh", "-ec", AFTER_ENV + lines],
        cwd=folder,
        env=checkout.environment(ROOT=str(checkout.root), **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return Result(code=done.returncode, stdout=done.stdout, stderr=done.stderr, seconds=0)


def folder_of(checkout: Checkout, service: Service) -> Path:
    return checkout.root / "pulumi" / service.folder


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_project(checkout: Checkout, service: Service) -> None:
    lines = "uv sync --quiet\npulumi stack select lab\npulumi preview --expect-no-changes\npulumi stack output"
    result = typed(checkout, folder_of(checkout, service), lines)
    assert result.code == 0, result.all
    assert git_status(checkout.root) == ""


def test_an_environment(checkout: Checkout) -> None:
    stitch = next(service for service in SERVICES if service.name == "stitch")
    lines = "esc open stitch/prod pulumiConfig.POSTGRES_HOST\nesc run stitch/prod -- pulumi preview --stack lab"
    result = typed(checkout, folder_of(checkout, stitch), lines)
    assert result.code == 0, result.all
    assert "postgresql-cluster-rw.postgresql.svc.cluster.local" in result.stdout
    assert "unchanged" in result.stdout


@pytest.mark.parametrize(
    "words", [("--", "pulumi", "preview"), ("--service", "stitch", "--", "pulumi", "stack", "output")]
)
def test_esc_run_works_in_the_project_of_the_service(checkout: Checkout, words: tuple[str, ...]) -> None:
    result = checkout.inv("esc.run", "stitch/prod", *words)
    result.ends_with(0)
    assert ("unchanged" if words[-1] == "preview" else "webhook_url") in result.stdout


def test_the_real_stack_is_answered_with_what_to_type(checkout: Checkout) -> None:
    result = typed(checkout, folder_of(checkout, SERVICES[0]), "pulumi stack select mx")
    assert result.code == 6, result.all
    assert "pulumi stack select lab" in result.stderr


def test_a_setting_goes_into_the_labs_own_copy(checkout: Checkout) -> None:
    glance = next(service for service in SERVICES if service.name == "glance")
    copy = checkout.settings_file("glance")
    with changed(copy, lambda text: text):
        result = typed(checkout, folder_of(checkout, glance), "pulumi config set --secret probe a-word --stack lab")
        assert result.code == 0, result.all
        assert "glance:probe:" in copy.read_text()
        assert git_status(checkout.root) == ""


def test_plugins_refuse_another_backend(checkout: Checkout, tmp_path: Path) -> None:
    """Plain pulumi in such a shell, on a backend that is not the lab's: nothing of the lab serves it."""
    glance = next(service for service in SERVICES if service.name == "glance")
    project = tmp_path / "glance"
    project.mkdir()
    (project / "Pulumi.yaml").write_text((folder_of(checkout, glance) / "Pulumi.yaml").read_text())
    (tmp_path / "backend").mkdir()
    lines = (
        f"export PULUMI_BACKEND_URL=file://{tmp_path}/backend PULUMI_CONFIG_PASSPHRASE=words\n"
        "pulumi stack init other\npulumi preview --stack other"
    )
    result = typed(checkout, project, lines)
    assert result.code != 0
    assert "serves nothing else" in result.stdout, result.all
    assert "pulumi plugin install" in result.stdout, result.all


def test_another_target_finds_none_of_the_labs_tools(checkout: Checkout, tmp_path: Path) -> None:
    lab = checkout.target
    entry = {key: lab[key] for key in ("kubeconfig", "context", "cluster_uid")}
    text = "".join(f"    {key}: {value}\n" for key, value in entry.items())
    backend = f"    stack: mx\n    organization: organization\n    backend: file://{tmp_path}\n"
    home = f"default: lab\ntargets:\n  home:\n{backend}{text}"
    with changed(checkout.root / "targets.yaml", lambda _: home):
        result = typed(checkout, checkout.root, "./inv --target home preview.glance")
    result.ends_with(1, "pulumi", "'home'")
