"""What `core/networking/tailscale` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "core/networking/tailscale"
LOGIN = {"tailscale:TS_CLIENT_ID": "client-of-the-test", "tailscale:TS_CLIENT_SECRET": "secret-of-the-test"}


@pytest.fixture
def tailscale(run_program):
    return run_program(FOLDER, secrets=LOGIN)


def test_namespace_login_and_chart_come_in_order(tailscale):
    assert tailscale.error is None
    home, login, operator = ("Namespace", "tailscale"), ("Secret", "operator-oauth"), ("Chart", "tailscale-operator")
    assert tailscale.names() == {home, login, operator}
    assert tailscale.after(*login) == {home}
    assert tailscale.after(*operator) == {login}


def test_the_namespace_lets_privileged_proxies_run(tailscale):
    labels = tailscale["Namespace", "tailscale"]["inputs"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_the_login_is_a_secret_of_its_own_and_never_a_chart_value(tailscale):
    secret = tailscale["Secret", "operator-oauth"]
    assert secret["inputs"]["metadata"]["name"] == "operator-oauth"
    assert secret["inputs"]["metadata"]["namespace"] == "tailscale"
    assert secret["inputs"]["stringData"] == {"client_id": "client-of-the-test", "client_secret": "secret-of-the-test"}
    assert secret["secret_inputs"] == ["stringData"]
    chart = tailscale["Chart", "tailscale-operator"]
    assert chart["secret_inputs"] == []
    assert "of-the-test" not in str(chart)


def test_the_chart_is_the_pinned_one_with_tags_in_the_forms_it_wants(tailscale):
    from lib.charts import read_pin

    chart = tailscale["Chart", "tailscale-operator"]["inputs"]
    pin = read_pin("tailscale-operator")
    assert (chart["chart"], chart["version"]) == ("tailscale-operator", pin.version)
    assert chart["repositoryOpts"] == {"repo": pin.repository}
    assert chart["namespace"] == "tailscale"
    assert chart["values"] == {
        "installCRDs": True,
        "operatorConfig": {"hostname": "tailscale-operator", "defaultTags": ["tag:k8s-operator"]},
        "proxyConfig": {"defaultTags": "tag:k8s"},
        "apiServerProxyConfig": {"mode": "true"},
        "ingressClass": {"enabled": True, "name": "tailscale"},
    }


def test_its_objects_are_awaited(tailscale):
    assert tailscale["Chart", "tailscale-operator"]["children"] == {
        "CustomResourceDefinition": {
            "pulumi.com/waitFor": "condition=Established",
            "pulumi.com/timeoutSeconds": "60",
        },
        "Deployment": {"pulumi.com/timeoutSeconds": "300"},
        "Service": {},
    }


def test_exports(tailscale):
    assert tailscale.exports == {
        "k8s_namespace": {"value": "tailscale", "secret": False},
        "ingress_class": {"value": "tailscale", "secret": False},
        "api_server_proxy_mode": {"value": "true", "secret": False},
    }


def test_settings_reach_the_chart(run_program):
    chosen = run_program(
        FOLDER,
        {
            "charts:source": "lab/charts",
            "tailscale:namespace": "ts",
            "tailscale:hostname": "home-operator",
            "tailscale:api_server_proxy_mode": "false",
            "tailscale:operator_tags": '["tag:one"]',
            "tailscale:proxy_tags": '["tag:one", "tag:two"]',
        },
        LOGIN,
    )
    chart = chosen["Chart", "tailscale-operator"]["inputs"]
    assert chart["chart"].endswith("/lab/charts/tailscale-operator")
    assert "version" not in chart
    assert "repositoryOpts" not in chart
    assert chart["namespace"] == "ts"
    assert chart["values"]["apiServerProxyConfig"] == {"mode": "false"}
    assert chart["values"]["operatorConfig"] == {"hostname": "home-operator", "defaultTags": ["tag:one"]}
    assert chart["values"]["proxyConfig"] == {"defaultTags": "tag:one,tag:two"}
    assert chosen["Secret", "operator-oauth"]["inputs"]["metadata"]["namespace"] == "ts"


def test_all_that_is_wrong_is_said_at_once_and_secrets_are_not_repeated(run_program):
    wrong = run_program(
        FOLDER,
        {
            "tailscale:TS_CLIENT_ID": "plain-client",
            "tailscale:api_server_proxy_mode": "yes",
            "tailscale:proxy_tags": "[1]",
        },
    )
    assert wrong.resources == ()
    assert wrong.error is not None
    assert wrong.error.startswith("4 settings are missing or wrong for stack test of project tailscale:")
    assert "tailscale:TS_CLIENT_ID: found a value in plaintext" in wrong.error
    assert "plain-client" not in wrong.error
    assert "tailscale:TS_CLIENT_SECRET: not set" in wrong.error
    assert "inv secrets.set tailscale TS_CLIENT_SECRET" in wrong.error
    assert "tailscale:api_server_proxy_mode: found 'yes'\n  expected  one of true, false, noauth" in wrong.error
    assert "pulumi config set --path 'tailscale:proxy_tags[0]' tag:k8s" in wrong.error


def test_a_misspelt_setting_is_pointed_out(run_program):
    misspelt = run_program(FOLDER, {"tailscale:api_server_proxy": "false"}, LOGIN)
    assert misspelt.error is None
    assert misspelt.warnings == (
        "setting tailscale:api_server_proxy is not read by this program; did you mean tailscale:api_server_proxy_mode?",
    )


def test_a_folder_without_the_chart_is_an_error_that_says_how_to_fill_it(run_program):
    failed = run_program(FOLDER, {"charts:source": "docs"}, LOGIN)
    assert failed.error is not None
    assert failed.error.startswith(
        "charts:source is 'docs', and that folder does not have the chart tailscale-operator"
    )
    assert "helm pull tailscale-operator --repo https://pkgs.tailscale.com/helmcharts --version " in failed.error
