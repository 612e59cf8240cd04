"""Verification of an app and of what it needs, deployed in a lab; then one part broken after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from runbooks.checks import apps, cert_manager, cf_tunnel, inside, of_service, tailscale
from tests.lab.command_line import Checkout, Deployed
from tests.lab.test_verify import scaled_down

pytestmark = pytest.mark.lab

TUNNEL = ("cloudflare-tunnel", "cloudflare-tunnel-ingress-controller")


@pytest.fixture(scope="module")
def checkout(whole: Deployed) -> Checkout:
    """A lab with everything: Postgres, tailnet and tunnel behind one app."""
    assert whole.result.code == 0, whole.result.all
    return whole.checkout


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
    login = {"host": "127.0.0.1", "port": checkout.postgres_port, "user": "postgres"}
    with psycopg.connect(
        **login, password=checkout.superuser_password, dbname="n8n", connect_timeout=5, autocommit=True
    ) as connection:
        connection.execute(change)
        try:
            yield
        finally:
            connection.execute(back)


def test_everything_deployed_is_verified_and_only_the_listed_stays_untried(checkout: Checkout) -> None:
    done = checkout.inv("--json", "verify.all")
    done.ends_with(0)
    untried = {event["check"] for event in done.events if event.get("state") == "not tried"}
    assert untried <= of_service.LAB_UNTRIED
    assert {inside.ANSWERS, inside.CONNECTED, cert_manager.CERTIFICATES_VALID, tailscale.DEVICE_IS_PEER} <= untried
    assert not [event for event in done.events if event.get("state") == "failed"]


def test_the_apps_own_role_is_tried_for_real(checkout: Checkout) -> None:
    found = findings(checkout, "n8n", 0)
    assert found[apps.OWN_SQL]["evidence"] == f"n8n in n8n at localhost:{checkout.postgres_port}"
    assert found[inside.ANSWERS]["state"] == "not tried"
    assert found[inside.ANSWERS]["evidence"].startswith("simulated pod")


def test_a_role_that_may_not_log_in(checkout: Checkout) -> None:
    with changed_role(checkout, "alter role n8n nologin", "alter role n8n login"):
        assert "not permitted to log in" in failed(checkout, "n8n", apps.OWN_SQL)["evidence"]


def test_a_database_of_somebody_else(checkout: Checkout) -> None:
    with changed_role(checkout, "alter database n8n owner to postgres", "alter database n8n owner to n8n"):
        assert "may not make tables" in failed(checkout, "n8n", apps.OWN_SQL)["evidence"]


def test_a_password_that_pods_get_and_the_server_does_not_know(checkout: Checkout) -> None:
    right = checkout.secret("n8n", "n8n-database")["DB_POSTGRESDB_PASSWORD"]
    wrong = base64.b64encode(b"Canary0Wrong0Password").decode()
    words = ("patch", "secret", "n8n-database", "-n", "n8n", "--type=merge", "-p")
    checkout.kubectl(*words, json.dumps({"data": {"DB_POSTGRESDB_PASSWORD": wrong}}))
    try:
        found = failed(checkout, "n8n", apps.OWN_SQL)
    finally:
        kept = base64.b64encode(right.encode()).decode()
        checkout.kubectl(*words, json.dumps({"data": {"DB_POSTGRESDB_PASSWORD": kept}}))
    assert "password authentication failed" in found["evidence"]
    assert checkout.in_runs("Canary0Wrong0Password") == checkout.in_runs(right) == []


def test_a_tunnel_whose_controller_is_gone(checkout: Checkout) -> None:
    with scaled_down(checkout, *TUNNEL):
        assert "zero" in failed(checkout, "cf-tunnel", cf_tunnel.CONTROLLER_READY)["evidence"]


def test_a_public_ingress_that_leads_nowhere(checkout: Checkout) -> None:
    words = ("patch", "ingress", "n8n-webhooks", "-n", "n8n", "--type=json", "-p")
    name = "/spec/rules/0/http/paths/0/backend/service/name"
    checkout.kubectl(*words, json.dumps([{"op": "replace", "path": name, "value": "gone"}]))
    try:
        for service in ("cf-tunnel", "n8n"):
            assert "Service gone, which is not there" in failed(checkout, service, cf_tunnel.ROUTED)["evidence"]
    finally:
        checkout.kubectl(*words, json.dumps([{"op": "replace", "path": name, "value": "n8n-main"}]))


def test_all_is_well_again(checkout: Checkout) -> None:
    checkout.inv("verify.all").ends_with(0)
