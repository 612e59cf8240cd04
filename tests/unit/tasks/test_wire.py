"""wire.*: producer, link, settings, preview; each broken link is named with both ends."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from runbooks.core.errors import NotApproved, Usage, VerificationFailed
from runbooks.services import SERVICES
from runbooks.stacks.service import Reference
from runbooks.tasks import wire
from tests.fixtures import REAL_ROOT, Repo, preview_answer
from tests.unit.tasks.test_esc import opened

TASKS = {task.name: task for task in wire.wire.__dict__["tasks"]}
OUTPUTS: dict[str, Any] = {
    "host": "in-cluster", "ts_hostname": "postgresql", "port": 5432, "k8s_namespace": "postgresql",
    "username": {"secret": "s"}, "user": {"secret": "s"}, "password": {"secret": "s"},
}  # fmt: skip
REFERENCE = "organization/postgresql/mx"


def checkpoint(outputs: dict[str, Any]) -> str:
    stack = {"type": "pulumi:pulumi:Stack", "urn": "urn:pulumi:mx::p::pulumi:pulumi:Stack::p", "outputs": outputs}
    one = {"type": "kubernetes:core/v1:Namespace", "urn": "urn:pulumi:mx::p::kubernetes:core/v1:Namespace::ns"}
    return json.dumps({"checkpoint": {"latest": {"resources": [stack, one]}}})


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    repo.has_stacks("postgresql", state=checkpoint(OUTPUTS))
    repo.has_stacks("immich", state=checkpoint({}))
    repo.has_superuser_password()
    repo.answer("pulumi", ["config", "set"], "")
    repo.answer("pulumi", ["preview", "--json"], preview_answer())
    return repo


def immich(repo: Repo, reference: str | None = REFERENCE, *, password: bool = True) -> None:
    lines = [f"  immich:postgres_stack: {reference}"] if reference else []
    lines += ["  immich:database_password:", "    secure: v1:abc"] if password else []
    path = repo.root / "pulumi" / "apps" / "media" / "immich" / "Pulumi.mx.yaml"
    path.write_text("\n".join(["config:" if lines else "config: {}", *lines, ""]))


def previews(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("pulumi") if "preview --json" in argv]


def test_only_consumers_are_wired() -> None:
    assert set(TASKS) == {service.name for service in SERVICES if service.reference or service.environment}
    assert {"immich", "stitch"} <= set(TASKS)


def test_every_link_holds_then_the_preview(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    immich(repo)
    TASKS["immich"].body(repo.c)
    output = capsys.readouterr().out
    assert "postgres gives ts_hostname or host, port, username, password, k8s_namespace" in output
    assert f"immich:postgres_stack is {REFERENCE}" in output and "every setting" in output
    assert len(previews(repo)) == 1 and not any("config set" in argv for argv in repo.argvs("pulumi"))


@pytest.mark.parametrize("gone", ["port", "password", "k8s_namespace"])
def test_a_missing_output_is_named_with_producer_and_consumer(repo: Repo, gone: str) -> None:
    immich(repo)
    repo.has_stacks("postgresql", state=checkpoint({key: value for key, value in OUTPUTS.items() if key != gone}))
    with pytest.raises(VerificationFailed) as broken:
        TASKS["immich"].body(repo.c)
    assert f"postgres has no output {gone}" in broken.value.summary and "immich reads" in broken.value.summary
    assert not previews(repo)


def test_either_of_two_outputs_will_do(repo: Repo) -> None:
    immich(repo)
    repo.has_stacks("postgresql", state=checkpoint({**OUTPUTS, "ts_hostname": ""}))
    TASKS["immich"].body(repo.c)
    repo.has_stacks("postgresql", state=checkpoint({**OUTPUTS, "ts_hostname": "", "host": ""}))
    with pytest.raises(VerificationFailed, match="ts_hostname or host"):
        TASKS["immich"].body(repo.c)


def test_a_producer_without_outputs_is_named(repo: Repo) -> None:
    immich(repo)
    repo.has_stacks("postgresql", state=checkpoint({}))
    with pytest.raises(VerificationFailed, match="postgres has no outputs yet") as broken:
        TASKS["immich"].body(repo.c)
    assert broken.value.next_step.startswith("./inv deploy.postgres")


def test_a_missing_reference_is_set_after_asking(repo: Repo) -> None:
    immich(repo, None)
    with pytest.raises(NotApproved):
        TASKS["immich"].body(repo.c)
    assert not any("config set" in argv for argv in repo.argvs("pulumi"))
    TASKS["immich"].body(repo.c, yes=True)
    (call,) = [argv for argv in repo.argvs("pulumi") if "config set" in argv]
    assert call.endswith(f"immich:postgres_stack {REFERENCE}") and "--secret" not in call


def test_a_reference_to_another_stack_is_told_and_left_alone(repo: Repo) -> None:
    immich(repo, "organization/postgresql/other")
    with pytest.raises(VerificationFailed, match=r"is organization/postgresql/other, but postgres on this target is"):
        TASKS["immich"].body(repo.c, yes=True)
    assert not any("config set" in argv for argv in repo.argvs("pulumi"))


def test_missing_secrets_are_named(repo: Repo) -> None:
    immich(repo, password=False)
    with pytest.raises(Usage, match="immich:database_password") as refused:
        TASKS["immich"].body(repo.c)
    assert "secrets.set immich database_password" in refused.value.next_step


def test_the_outputs_looked_for_are_those_the_programs_read() -> None:
    helper = (REAL_ROOT / "pulumi" / "lib" / "database.py").read_text()
    assert all(f'"{name}"' in helper for name in Reference(setting="x", producer="y").outputs)


# Through ESC


@pytest.fixture
def cloud(repo: Repo) -> Repo:
    repo.on_cloud()
    repo.install("esc")
    shutil.copytree(REAL_ROOT / "environments", repo.root / "environments")
    repo.answer("esc", ["--format"], opened())
    produced = json.loads(checkpoint(OUTPUTS))["checkpoint"]["latest"]
    repo.answer("pulumi", ["stack", "export", "databases/postgres"], {"deployment": produced})
    repo.config_file("stitch").write_text("config: {}\n")
    return repo


def test_the_environment_is_bound_after_asking(cloud: Repo) -> None:
    path = cloud.root / "pulumi" / "apps" / "stitch" / "Pulumi.mx.yaml"
    with pytest.raises(NotApproved):
        TASKS["stitch"].body(cloud.c)
    assert "stitch/prod" not in path.read_text()
    TASKS["stitch"].body(cloud.c, yes=True)
    assert path.read_text().count("stitch/prod") == 1
    assert len(previews(cloud)) == 1


def test_the_outputs_an_environment_reads_must_be_there(cloud: Repo) -> None:
    produced = json.loads(checkpoint({key: value for key, value in OUTPUTS.items() if key != "user"}))
    latest = {"deployment": produced["checkpoint"]["latest"]}
    cloud.answer("pulumi", ["stack", "export", "databases/postgres"], latest)
    with pytest.raises(VerificationFailed, match="postgres has no output user") as broken:
        TASKS["stitch"].body(cloud.c, yes=True)
    assert "environments/stitch/prod.yaml" in broken.value.expected and "host" in broken.value.expected


def test_a_file_backend_is_told_before_anything_runs(repo: Repo) -> None:
    """Before the producer's stack is missed too, which is not what is wrong."""
    with pytest.raises(Usage, match="does not support Pulumi ESC") as refused:
        TASKS["stitch"].body(repo.c)
    assert "pulumi login --cloud" in refused.value.next_step and "esc.unbind stitch/prod" in refused.value.next_step
    assert [argv for argv in repo.argvs("pulumi") if "version" not in argv] == []


def test_an_environment_that_breaks_the_contract_stops_it(cloud: Repo) -> None:
    cloud.answer("esc", ["--format"], opened(image=None))
    with pytest.raises(Usage, match="image"):
        TASKS["stitch"].body(cloud.c, yes=True)
    assert not previews(cloud)
