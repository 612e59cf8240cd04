"""Verification against the real thing: a deployed lab, then one part broken after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from lab.platform import ports
from runbooks.checks import postgres, sql
from runbooks.core.processes import listeners
from tests.lab.command_line import Checkout, Deployed, Result, changed

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def checkout(deployed: Deployed) -> Checkout:
    return deployed.checkout


def test_everything_is_verified_with_evidence(checkout: Checkout) -> None:
    done = checkout.inv("verify.all").ends_with(0).shows("the server answers SQL as the exported user: PostgreSQL 18")
    for name in ("tailscale", "cnpg", "postgres"):
        assert f"verify.{name}: verified: " in done.stdout
    name = "postgresql/postgresql-cluster-rw-ext"
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith(name))
    assert row == [name, "localhost", "ok", "ok", "ok", "--", "--", "--"]
    assert "FAIL" not in done.stdout


def test_what_the_lab_cannot_try_is_said_and_counted_and_the_password_is_nowhere(checkout: Checkout) -> None:
    done = checkout.inv("--json", "verify.postgres")
    untried = {event["check"]: event["evidence"] for event in done.events if event.get("state") == "not tried"}
    assert untried == {
        "this machine sees the device as a peer": "the lab has no tailnet",
        "its name resolves to the device's address": "the lab has no tailnet",
    }
    (verdict,) = [event for event in done.events if event["event"] == "verdict"]
    assert verdict["ok"] is True
    assert verdict["summary"].endswith("0 failed, 2 not tried")
    assert checkout.superuser_password not in done.all
    assert checkout.in_runs(checkout.superuser_password) == []
    assert {path.name for path in checkout.runs.rglob("*") if path.is_file()} == {"journal.jsonl"}


def scaled_down(checkout: Checkout, namespace: str, deployment: str) -> AbstractContextManager[None]:
    where = (f"--namespace={namespace}", f"deployment/{deployment}")
    up = ("scale", *where, "--replicas=1"), ("rollout", "status", *where, "--timeout=180s")
    return checkout.changed(("scale", *where, "--replicas=0"), *up)


def failed_check(done: Result) -> str:
    return next(line for line in done.stdout.splitlines() if "FAIL" in line)


def test_an_operator_that_is_gone(checkout: Checkout) -> None:
    with scaled_down(checkout, "cnpg-system", "cnpg-cloudnative-pg"):
        done = checkout.inv("verify.postgres").ends_with(4, "./inv repair.cnpg").shows("likely cause:")
    assert "the CloudNativePG operator is ready" in failed_check(done)


def test_a_name_that_is_not_the_exported_one(checkout: Checkout) -> None:
    annotate = ("annotate", "service", "postgresql-cluster-rw-ext", "-n", "postgresql", "--overwrite")
    names = ("tailscale.com/hostname=elsewhere", "tailscale.com/hostname=localhost")
    with checkout.changed(*((*annotate, name) for name in names)):
        done = checkout.inv("verify.tailscale")
    done.ends_with(4, "./inv repair.postgres").shows("elsewhere, ts_hostname is localhost")


def test_a_stack_that_is_not_there(checkout: Checkout) -> None:
    kept = checkout.lab_dir / "cloud/stacks/postgresql/lab/stack.json"
    aside = kept.rename(kept.with_name("aside"))
    done = checkout.inv("verify.postgres")
    aside.rename(kept)
    done.ends_with(4, "./inv deploy.postgres")
    assert "there is no such stack yet" in failed_check(done)


OTHER_UID = "00000000-dead-beef-0000-000000000000"


def server_of(checkout: Checkout) -> str:
    return checkout.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")


REFUSED: dict[str, tuple[str, Callable[[Checkout], tuple[str, str]], tuple[str, ...]]] = {
    "another cluster": (
        "target.json", lambda checkout: (checkout.target["cluster_uid"], OTHER_UID), ("'lab'", "{server}", OTHER_UID)
    ),
    "no context": ("target.json", lambda _: ('"context": "lab"', '"context": ""'), ("context",)),
    "a context that is not there": ("target.json", lambda _: ('"context": "lab"', '"context": "absent"'), ("context",)),
    "a server that does not answer": (
        "kubeconfig", lambda checkout: (server_of(checkout), f"https://127.0.0.1:{ports.pick(())}"), ("{uid}",)
    ),
}  # fmt: skip
"""What is changed, in which file of the lab, and what is named."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_lab_that_is_not_the_recorded_one_is_refused(checkout: Checkout, name: str) -> None:
    file, change, words = REFUSED[name]
    facts, texts = {"server": server_of(checkout), "uid": checkout.target["cluster_uid"]}, change(checkout)
    with changed(checkout.lab_dir / file, lambda text: text.replace(*texts)):
        done = checkout.inv("preview.all").ends_with(5, *(word.format(**facts) for word in words))
    assert "preview" not in done.stdout


def login(checkout: Checkout, **changes: Any) -> sql.Login:
    given = {"host": "localhost", "port": checkout.postgres_port, "user": "postgres"}
    return sql.Login(**(given | {"password": checkout.superuser_password} | changes))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"password": "wrong-password"}, "the exported password is not the server's"),
        ({"user": "nobody"}, "the exported password is not the server's"),
        ({"database": "absent"}, "not the expected one"),
    ],
)
def test_the_real_server_refuses(checkout: Checkout, changes: dict[str, str], cause: str) -> None:
    assert sql.select_version(login(checkout)).startswith("PostgreSQL 18")
    with pytest.raises(sql.SqlFailed) as caught:
        sql.select_version(login(checkout, **changes))
    assert cause in caught.value.cause


def test_the_listener_is_the_labs_own_server(checkout: Checkout) -> None:
    found = listeners(checkout.postgres_port)
    assert postgres.all_within(found, checkout.lab_dir)
    assert not postgres.all_within(found, checkout.lab_dir / "backend")
