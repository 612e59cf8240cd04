"""Verification against the real thing: a deployed lab, then one part broken after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.platform import ports
from runbooks.checks import postgres, sql
from tests.lab.command_line import Checkout, Deployed, Result, changed

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def checkout(deployed: Deployed) -> Checkout:
    assert deployed.result.code == 0, deployed.result.all
    return deployed.checkout


def test_everything_is_verified_with_evidence(checkout: Checkout) -> None:
    done = checkout.inv("verify.all").ends_with(0).shows("the server answers SQL as the exported user: PostgreSQL 18")
    for name in ("tailscale", "cnpg", "postgres"):
        assert f"verify.{name}: verified: " in done.stdout
    row = next(
        line.split() for line in done.stdout.splitlines() if line.startswith("postgresql/postgresql-cluster-rw-ext")
    )
    assert row == ["postgresql/postgresql-cluster-rw-ext", "localhost", "ok", "ok", "ok", "--", "--", "--"]
    assert "FAIL" not in done.stdout


def test_what_the_lab_cannot_try_is_said_and_counted(checkout: Checkout) -> None:
    done = checkout.inv("--json", "verify.postgres")
    untried = {event["check"]: event["evidence"] for event in done.events if event.get("state") == "not tried"}
    assert untried == {
        "this machine sees the device as a peer": "the lab has no tailnet",
        "its name resolves to the device's address": "the lab has no tailnet",
    }
    (verdict,) = [event for event in done.events if event["event"] == "verdict"]
    assert verdict["ok"] is True
    assert verdict["summary"].endswith("0 failed, 2 not tried")


def test_no_run_leaves_the_password_anywhere(checkout: Checkout) -> None:
    done = checkout.inv("verify.postgres")
    assert checkout.superuser_password not in done.all
    assert checkout.in_runs(checkout.superuser_password) == []
    assert {path.name for path in checkout.runs.rglob("*") if path.is_file()} == {"journal.jsonl"}


# --- one part broken after the other -----------------------------------------------------------------------------


def scaled_down(checkout: Checkout, namespace: str, deployment: str) -> AbstractContextManager[None]:
    where = (f"--namespace={namespace}", f"deployment/{deployment}")
    up = ("scale", *where, "--replicas=1"), ("rollout", "status", *where, "--timeout=180s")
    return checkout.changed(("scale", *where, "--replicas=0"), *up)


def renamed(checkout: Checkout) -> AbstractContextManager[None]:
    annotate = ("annotate", "service", "postgresql-cluster-rw-ext", "-n", "postgresql", "--overwrite")
    names = ("tailscale.com/hostname=elsewhere", "tailscale.com/hostname=localhost")
    return checkout.changed(*((*annotate, name) for name in names))


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def failed_check(done: Result) -> str:
    done.ends_with(4)
    return next(line for line in done.stdout.splitlines() if "FAIL" in line)


def test_an_operator_that_is_gone(checkout: Checkout) -> None:
    with scaled_down(checkout, "cnpg-system", "cnpg-cloudnative-pg"):
        done = checkout.inv("verify.postgres")
    assert "the CloudNativePG operator is ready" in failed_check(done)
    assert "likely cause:" in done.stdout
    assert "./inv repair.cnpg" in done.stderr


@pytest.mark.parametrize("service", ["postgres", "tailscale"])
def test_a_name_that_is_not_the_exported_one(checkout: Checkout, service: str) -> None:
    with renamed(checkout):
        done = checkout.inv(f"verify.{service}")
    done.ends_with(4, "./inv repair.postgres")
    assert "elsewhere, ts_hostname is localhost" in done.stdout


def test_a_stack_that_is_not_there(checkout: Checkout) -> None:
    with moved_away(checkout.lab_dir / "cloud/stacks/postgresql/lab/stack.json"):
        done = checkout.inv("verify.postgres")
    assert "there is no such stack yet" in failed_check(done)
    assert "./inv deploy.postgres" in done.stderr


# --- the guard, through the real command line ---------------------------------------------------------------------


def test_another_cluster_is_refused(checkout: Checkout) -> None:
    uid = checkout.target["cluster_uid"]
    with changed(
        checkout.lab_dir / "target.json", lambda text: text.replace(uid, "00000000-dead-beef-0000-000000000000")
    ):
        done = checkout.inv("verify.postgres")
    server = f"https://127.0.0.1:{_server_port(checkout)}"
    done.ends_with(5, "'lab'", server, uid, "00000000-dead-beef")


@pytest.mark.parametrize("context", ["", "absent"])
def test_a_context_that_is_not_there_is_refused(checkout: Checkout, context: str) -> None:
    with changed(
        checkout.lab_dir / "target.json", lambda text: text.replace('"context": "lab"', f'"context": "{context}"')
    ):
        done = checkout.inv("preview.all")
    done.ends_with(5, "context")


def test_a_server_that_does_not_answer_is_refused(checkout: Checkout) -> None:
    closed = ports.pick(())
    with changed(checkout.lab_dir / "kubeconfig", lambda text: text.replace(str(_server_port(checkout)), str(closed))):
        done = checkout.inv("preview.all")
    done.ends_with(5, checkout.target["cluster_uid"])
    assert "preview" not in done.stdout


def _server_port(checkout: Checkout) -> int:
    words = ("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    return int(checkout.kubectl(*words).rpartition(":")[2])


# --- SQL on the real server -----------------------------------------------------------------------------------------


def login(checkout: Checkout, **changes: Any) -> sql.Login:
    given = {"host": "localhost", "port": checkout.postgres_port, "user": "postgres"}
    return sql.Login(**(given | {"password": checkout.superuser_password} | changes))


def test_the_real_server_tells_its_version(checkout: Checkout) -> None:
    assert sql.select_version(login(checkout)).startswith("PostgreSQL 18")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"password": "wrong-password"}, "the exported password is not the server's"),
        ({"user": "nobody"}, "the exported password is not the server's"),
        ({"database": "absent"}, "not the expected one"),
    ],
)
def test_the_real_server_refuses(checkout: Checkout, changes: dict[str, str], cause: str) -> None:
    with pytest.raises(sql.SqlFailed) as caught:
        sql.select_version(login(checkout, **changes))
    assert cause in caught.value.cause


def test_the_listener_is_the_labs_own_server(checkout: Checkout) -> None:
    found = postgres.listeners(checkout.postgres_port)
    assert postgres.all_within(found, checkout.lab_dir)
    assert not postgres.all_within(found, checkout.lab_dir / "backend")
