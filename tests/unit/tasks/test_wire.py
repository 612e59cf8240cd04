"""wire.*: producer, link, settings, preview; each broken link is named with both ends."""

from __future__ import annotations

import contextlib
import shutil
from typing import Any

import pytest

from runbooks.collection import task_for
from runbooks.core.errors import NotApproved, Usage, VerificationFailed
from runbooks.services import SERVICES
from runbooks.stacks.service import Reference
from runbooks.tasks import wire
from tests.fixtures import REAL_ROOT, Repo, exported, preview_answer
from tests.unit.tasks.test_esc import opened

TASKS = {name: task_for(wire.wire, name) for name in wire.wire.__dict__["targets"]}
OUTPUTS: dict[str, Any] = {
    "host": "in-cluster", "ts_hostname": "postgresql", "port": 5432, "k8s_namespace": "postgresql",
    "username": {"secret": "s"}, "user": {"secret": "s"}, "password": {"secret": "s"},
}  # fmt: skip
REFERENCE = "organization/postgresql/mx"


@pytest.fixture
def repo(repo: Repo) -> Repo:
    repo.has_stacks("postgresql", outputs=OUTPUTS)
    repo.has_stacks("immich", outputs={})
    repo.has_superuser_password()
    repo.answer("pulumi", ["config", "set"], "")
    repo.answer("pulumi", ["preview", "--json"], preview_answer())
    return repo


def immich(repo: Repo, reference: str | None = REFERENCE, *, password: bool = True) -> None:
    lines = [f"  immich:postgres_stack: {reference}"] if reference else []
    lines += ["  immich:database_password:", "    secure: v1:abc"] if password else []
    path = repo.config_file("immich")
    path.write_text("\n".join(["config:" if lines else "config: {}", *lines, ""]))


def previews(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("pulumi") if "preview --json" in argv]


def test_only_consumers_are_wired() -> None:
    assert set(TASKS) == {service.name for service in SERVICES if service.reference or service.environment}
    assert {"immich", "stitch"} <= set(TASKS)


def test_every_link_holds_then_the_preview(repo: Repo) -> None:
    immich(repo)
    TASKS["immich"].body(repo.c)
    output = repo.printed()
    assert "postgres exports ts_hostname or host, port, username, password, k8s_namespace" in output
    assert f"immich:postgres_stack is {REFERENCE}" in output and "every setting" in output
    assert len(previews(repo)) == 1 and not any("config set" in argv for argv in repo.argvs("pulumi"))


@pytest.mark.parametrize(
    ("outputs", "missing"),
    [
        *((OUTPUTS | {gone: ""}, gone) for gone in ("port", "password", "k8s_namespace")),
        (OUTPUTS | {"ts_hostname": "", "host": ""}, "ts_hostname or host"),
        (OUTPUTS | {"ts_hostname": ""}, ""),
        ({}, "no outputs yet"),
    ],
)
def test_a_missing_output_is_named_with_producer_and_consumer(
    repo: Repo, outputs: dict[str, Any], missing: str
) -> None:
    """Either of two names will do for the host."""
    immich(repo)
    repo.has_stacks("postgresql", outputs=outputs)
    with pytest.raises(VerificationFailed) if missing else contextlib.nullcontext() as broken:
        TASKS["immich"].body(repo.c)
    if missing:
        assert f"{missing}" in broken.value.summary and "postgres" in broken.value.summary
        assert "immich" in "".join(broken.value.lines()) and not previews(repo)


def test_a_missing_reference_is_set_after_asking(repo: Repo) -> None:
    immich(repo, None)
    with pytest.raises(NotApproved):
        TASKS["immich"].body(repo.c)
    assert not any("config set" in argv for argv in repo.argvs("pulumi"))
    TASKS["immich"].body(repo.c, yes=True)
    (call,) = [argv for argv in repo.argvs("pulumi") if "config set" in argv]
    assert call.endswith(f"immich:postgres_stack {REFERENCE}") and "--secret" not in call


def test_a_reference_to_another_stack_is_reported_and_left_alone(repo: Repo) -> None:
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
    repo.answer("pulumi", ["stack", "export", "databases/postgres"], exported(OUTPUTS))
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
    without_user = exported({key: value for key, value in OUTPUTS.items() if key != "user"})
    cloud.answer("pulumi", ["stack", "export", "databases/postgres"], without_user)
    with pytest.raises(VerificationFailed, match="postgres has no output user") as broken:
        TASKS["stitch"].body(cloud.c, yes=True)
    assert "environments/stitch/prod.yaml" in broken.value.expected and "host" in broken.value.expected


def test_an_environment_that_breaks_the_contract_stops_it(cloud: Repo) -> None:
    cloud.answer("esc", ["--format"], opened(image=None))
    with pytest.raises(Usage, match="image"):
        TASKS["stitch"].body(cloud.c, yes=True)
    assert not previews(cloud)


def test_a_file_backend_is_reported_before_anything_runs(repo: Repo) -> None:
    """Before the producer's stack is missed too, which is not what is wrong."""
    with pytest.raises(Usage, match="does not support Pulumi ESC") as refused:
        TASKS["stitch"].body(repo.c)
    assert "pulumi login --cloud" in refused.value.next_step and "esc.unbind stitch/prod" in refused.value.next_step
    assert [argv for argv in repo.argvs("pulumi") if "version" not in argv] == []
