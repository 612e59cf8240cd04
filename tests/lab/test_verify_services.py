"""Verification of an app and of what it needs, deployed in a lab; then one part broken after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest

from runbooks.checks import apps, cert_manager, cf_tunnel, inside, of_service, tailscale
from tests.lab.command_line import Checkout
from tests.lab.test_verify import scaled_down

pytestmark = pytest.mark.lab

TUNNEL = ("cloudflare-tunnel", "cloudflare-tunnel-ingress-controller")


def findings(checkout: Checkout, name: str, code: int) -> dict[str, dict[str, Any]]:
    """What `verify.NAME` shows, by check; of a check that is shown twice, what did not pass."""
    done = checkout.inv("--json", f"verify.{name}")
    assert done.code == code, done.all
    shown = [event for event in done.events if "check" in event]
    shown.sort(key=lambda event: event["state"] != "passed")
    return {event["check"]: event for event in shown}


def failed(checkout: Checkout, name: str, check: str) -> dict[str, Any]:
    found = findings(checkout, name, 4)[check]
    assert found["state"] == "failed", found
    assert found["cause"]
    return found


@contextmanager
def changed_role(checkout: Checkout, change: str, back: str) -> Iterator[None]:
    login = {"host": "127.0.0.1", "user": "postgres", "password": checkout.superuser_password, "dbname": "n8n"}
    with psycopg.connect(**login, port=checkout.postgres_port, connect_timeout=5, autocommit=True) as connection:
        connection.execute(change)
        try:
            yield
        finally:
            connection.execute(back)


def test_everything_deployed_is_verified_and_only_the_listed_stays_untried(checkout: Checkout) -> None:
    done = checkout.inv("--json", "verify.all").ends_with(0)
    untried = {event["check"] for event in done.events if event.get("state") == "not tried"}
    assert untried <= of_service.LAB_UNTRIED
    assert {inside.ANSWERS, inside.CONNECTED, cert_manager.CERTIFICATES_VALID, tailscale.DEVICE_IS_PEER} <= untried
    assert not [event for event in done.events if event.get("state") == "failed"]


def test_the_apps_own_role_is_tried_for_real(checkout: Checkout) -> None:
    found = findings(checkout, "n8n", 0)
    assert found[apps.OWN_SQL]["evidence"] == f"n8n in n8n at localhost:{checkout.postgres_port}"
    assert found[inside.ANSWERS]["state"] == "not tried"
    assert found[inside.ANSWERS]["evidence"].startswith("simulated pod")


def password_patch(password: str) -> tuple[str, ...]:
    data = {"DB_POSTGRESDB_PASSWORD": base64.b64encode(password.encode()).decode()}
    return ("patch", "secret", "n8n-database", "-n", "n8n", "--type=merge", "-p", json.dumps({"data": data}))


def backend_patch(service: str) -> tuple[str, ...]:
    path = "/spec/rules/0/http/paths/0/backend/service/name"
    patch = json.dumps([{"op": "replace", "path": path, "value": service}])
    return ("patch", "ingress", "n8n-webhooks", "-n", "n8n", "--type=json", "-p", patch)


NO_LOGIN = ("alter role n8n nologin", "alter role n8n login")
OTHER_OWNER = ("alter database n8n owner to postgres", "alter database n8n owner to n8n")
BREAKS: dict[str, tuple[Callable[[Checkout], AbstractContextManager[None]], tuple[str, ...], str, str]] = {
    "a role that may not log in": (
        lambda checkout: changed_role(checkout, *NO_LOGIN), ("n8n",), apps.OWN_SQL, "not permitted to log in"
    ),
    "a database of another owner": (
        lambda checkout: changed_role(checkout, *OTHER_OWNER), ("n8n",), apps.OWN_SQL, "may not create tables"
    ),
    "a tunnel whose controller is gone": (
        lambda checkout: scaled_down(checkout, *TUNNEL), ("cf-tunnel",), cf_tunnel.CONTROLLER_READY, "zero"
    ),
    "a public ingress that leads nowhere": (
        lambda checkout: checkout.changed(backend_patch("gone"), backend_patch("n8n-main")),
        ("cf-tunnel", "n8n"), cf_tunnel.ROUTED, "Service gone, which does not exist",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_is_found(checkout: Checkout, name: str) -> None:
    break_it, services, check, words = BREAKS[name]
    with break_it(checkout):
        for service in services:
            assert words in failed(checkout, service, check)["evidence"]


def test_a_password_that_pods_get_and_the_server_does_not_know(checkout: Checkout) -> None:
    right = checkout.secret("n8n", "n8n-database")["DB_POSTGRESDB_PASSWORD"]
    wrong = "Canary0Wrong0Password"
    with checkout.changed(*(password_patch(password) for password in (wrong, right))):
        found = failed(checkout, "n8n", apps.OWN_SQL)
    assert "password authentication failed" in found["evidence"]
    assert checkout.in_runs(wrong) == checkout.in_runs(right) == []
