"""What `core/networking/cf-tunnel` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "core/networking/cf-tunnel"
ACCOUNT = "0123456789abcdef0123456789abcdef"
PLAIN = {"cf-tunnel:account_id": ACCOUNT}
TOKEN = {"cf-tunnel:api_token": "token-of-the-test"}
NAME = "cloudflare-tunnel-ingress-controller"


@pytest.fixture
def tunnel(run_program):
    return run_program(FOLDER, PLAIN, TOKEN)


def test_namespace_login_and_chart_come_in_order(tunnel):
    assert tunnel.error is None
    assert tunnel.names() == {("Namespace", "cloudflare-tunnel"), ("Secret", "cloudflare-api"), ("Chart", NAME)}
    assert tunnel.after("Secret", "cloudflare-api") == {("Namespace", "cloudflare-tunnel")}
    assert tunnel.after("Chart", NAME) == {("Secret", "cloudflare-api")}


def test_the_login_is_a_secret_that_the_chart_names_with_all_four_keys(tunnel):
    login = tunnel["Secret", "cloudflare-api"]
    assert login["inputs"]["metadata"]["namespace"] == "cloudflare-tunnel"
    assert login["inputs"]["stringData"] == {
        "api-token": "token-of-the-test",
        "cloudflare-account-id": ACCOUNT,
        "cloudflare-tunnel-name": "homelab",
    }
    assert login["secret_inputs"] == ["stringData"]
    chart = tunnel["Chart", NAME]
    named = chart["inputs"]["values"]["cloudflare"]["secretRef"]
    assert named == {
        "name": "cloudflare-api",
        "apiTokenKey": "api-token",
        "accountIDKey": "cloudflare-account-id",
        "tunnelNameKey": "cloudflare-tunnel-name",
    }
    assert set(named.values()) - {"cloudflare-api"} == set(login["inputs"]["stringData"])
    assert chart["secret_inputs"] == []
    assert "of-the-test" not in str(chart)


def test_the_chart_is_the_pinned_one_and_makes_the_class(tunnel):
    from lib.charts import read_pin

    chart = tunnel["Chart", NAME]["inputs"]
    pin = read_pin(NAME)
    assert (chart["chart"], chart["version"]) == (NAME, pin.version)
    assert chart["repositoryOpts"] == {"repo": pin.repository}
    assert chart["values"]["ingressClass"] == {"name": "cloudflare-tunnel", "isDefaultClass": False}
    assert chart["values"]["serviceMonitor"] == {"create": False}
    assert tunnel["Chart", NAME]["children"]["Deployment"] == {"pulumi.com/timeoutSeconds": "300"}


def test_settings_reach_the_chart_and_the_exports(run_program):
    chosen = run_program(
        FOLDER,
        PLAIN
        | {
            "charts:source": "lab/charts",
            "cf-tunnel:namespace": "edge",
            "cf-tunnel:tunnel_name": "attic",
            "cf-tunnel:connectors": "2",
            "cf-tunnel:monitoring": "true",
        },
        TOKEN,
    )
    chart = chosen["Chart", NAME]["inputs"]
    assert chart["chart"].endswith(f"/lab/charts/{NAME}")
    assert chart["namespace"] == "edge"
    assert chart["values"]["cloudflared"] == {"replicaCount": 2}
    assert chart["values"]["serviceMonitor"] == {"create": True}
    assert {name: export["value"] for name, export in chosen.exports.items()} == {
        "k8s_namespace": "edge",
        "ingress_class": "cloudflare-tunnel",
        "tunnel_name": "attic",
    }


def test_all_that_is_wrong_is_said_at_once(run_program):
    wrong = run_program(FOLDER, {"cf-tunnel:account_id": "my account", "cf-tunnel:connectors": "0"})
    assert wrong.resources == ()
    assert wrong.error.startswith("3 settings are missing or wrong for stack test of project cf-tunnel:")
    assert "inv secrets.set cf-tunnel api_token" in wrong.error
    assert "cf-tunnel:account_id: found 'my account'\n  expected  an account id: 32 characters" in wrong.error
    assert "a whole number from 1 to 9" in wrong.error
