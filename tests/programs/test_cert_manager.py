"""What `core/security/cert-manager` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "core/security/cert-manager"
PLAIN = {"cert-manager:acme_email": "home@example.org"}
TOKEN = {"cert-manager:cloudflare_api_token": "token-of-the-test"}
ISSUERS = ("letsencrypt-staging", "letsencrypt-production")


@pytest.fixture
def manager(run_program):
    return run_program(FOLDER, PLAIN, TOKEN)


def test_issuers_come_after_the_token_and_a_chart_that_answers(manager):
    assert manager.error is None
    home, needed = ("Namespace", "cert-manager"), {("Secret", "cloudflare-api-token"), ("Chart", "cert-manager")}
    issuers = {("ClusterIssuer", issuer) for issuer in ISSUERS}
    assert manager.names() == {home} | needed | issuers
    assert all(manager.after(*key) == {home} for key in needed)
    assert all(manager.after(*key) == needed for key in issuers)


def test_the_chart_brings_its_crds_and_nothing_made_of_hooks(manager):
    from lib.charts import read_pin

    chart = manager["Chart", "cert-manager"]["inputs"]
    pin = read_pin("cert-manager")
    assert (chart["chart"], chart["version"]) == (pin.oci, pin.version)
    assert chart["values"] == {
        "crds": {"enabled": True, "keep": True},
        "startupapicheck": {"enabled": False},
        "prometheus": {"servicemonitor": {"enabled": False}},
    }
    assert manager["Chart", "cert-manager"]["secret_inputs"] == []


def test_the_webhook_is_awaited_until_the_api_server_trusts_it(manager):
    assert manager["Chart", "cert-manager"]["children"] == {
        "CustomResourceDefinition": {
            "pulumi.com/waitFor": "condition=Established",
            "pulumi.com/timeoutSeconds": "60",
            "pulumi.com/patchForce": "true",
            "retain": "true",
        },
        # No waitFor on the Deployments and the webhook's Service: it would replace the provider's own, stricter waits.
        "Deployment": {"pulumi.com/timeoutSeconds": "300"},
        "Service": {},
        "ValidatingWebhookConfiguration": {
            "pulumi.com/waitFor": "jsonpath={.webhooks[0].clientConfig.caBundle}",
            "pulumi.com/timeoutSeconds": "300",
        },
    }


def test_each_issuer_proves_by_dns_and_is_awaited(manager):
    servers = {}
    for name in ISSUERS:
        issuer = manager["ClusterIssuer", name]["inputs"]
        assert issuer["apiVersion"] == "cert-manager.io/v1"
        assert "namespace" not in issuer["metadata"]
        assert issuer["metadata"]["annotations"]["pulumi.com/waitFor"] == "condition=Ready"
        acme = issuer["spec"]["acme"]
        assert acme["email"] == "home@example.org"
        assert acme["privateKeySecretRef"] == {"name": f"{name}-account"}
        assert acme["solvers"] == [
            {"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "cloudflare-api-token", "key": "api-token"}}}}
        ]
        servers[name] = acme["server"]
    assert servers == {
        "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
        "letsencrypt-production": "https://acme-v02.api.letsencrypt.org/directory",
    }


def test_the_token_is_where_cluster_issuers_look_for_it(manager, run_program):
    secret = manager["Secret", "cloudflare-api-token"]
    assert secret["inputs"]["metadata"]["namespace"] == "cert-manager"
    assert secret["inputs"]["stringData"] == {"api-token": "token-of-the-test"}
    assert secret["secret_inputs"] == ["stringData"]
    elsewhere = run_program(FOLDER, PLAIN | {"cert-manager:namespace": "certificates"}, TOKEN)
    assert elsewhere["Secret", "cloudflare-api-token"]["inputs"]["metadata"]["namespace"] == "certificates"
    assert elsewhere["Chart", "cert-manager"]["inputs"]["namespace"] == "certificates"


def test_zones_limit_what_the_issuers_answer_for(run_program):
    limited = run_program(FOLDER, PLAIN | {"cert-manager:dns_zones": '["example.org"]'}, TOKEN)
    for name in ISSUERS:
        (solver,) = limited["ClusterIssuer", name]["inputs"]["spec"]["acme"]["solvers"]
        assert solver["selector"] == {"dnsZones": ["example.org"]}


def test_exports(manager):
    assert {name: export["value"] for name, export in manager.exports.items()} == {
        "k8s_namespace": "cert-manager",
        "issuers": list(ISSUERS),
    }


def test_all_that_is_wrong_is_said_at_once(run_program):
    wrong = run_program(FOLDER, {"cert-manager:acme_email": "me", "cert-manager:dns_zones": '["org"]'})
    assert wrong.resources == ()
    assert wrong.error.startswith("3 settings are missing or wrong for stack test of project cert-manager:")
    assert "inv secrets.set cert-manager cloudflare_api_token" in wrong.error
    assert "expected  an e-mail address" in wrong.error
    assert "expected  a list of DNS zones" in wrong.error
