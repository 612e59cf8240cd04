"""What a child sees of our environment."""

from __future__ import annotations

import pytest

from runbooks.core.environment import (
    LOOPBACK_NAMES,
    access_variables,
    child_environment,
    plugin_variables,
    secret_variables,
)

NEVER = [
    "PULUMI_OPTION_YES", "PULUMI_OPTION_SHOW_SECRETS", "PULUMI_OPTION_TARGET", "PULUMI_OPTION_PARALLEL",
    "PULUMI_SKIP_CONFIRMATIONS", "PULUMI_EXPERIMENTAL", "PULUMI_DEBUG_COMMANDS", "PULUMI_K8S_DELETE_UNREACHABLE",
    "PULUMI_SKIP_CHECKPOINTS", "AI_AGENT", "CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CODEX_SANDBOX", "CODEX_THREAD_ID",
    "CURSOR_AGENT", "CURSOR_TRACE_ID", "GEMINI_CLI", "OPENCODE", "COPILOT_MODEL", "GOOSE_PROVIDER",
]  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_what_changes_pulumi_unseen_never_passes(name: str) -> None:
    assert name not in child_environment({name: "1"}, {})
    assert name not in child_environment({}, {name: "1"})


@pytest.mark.parametrize(
    "name",
    ["PULUMI_ACCESS_TOKEN", "PULUMI_BACKEND_URL", "KUBECONFIG", "AWS_PROFILE", "PYTHONPATH", "LD_PRELOAD", "OPS_STATE"],
)
def test_an_unlisted_variable_passes_only_when_a_command_asks_for_it(name: str) -> None:
    assert name not in child_environment({name: "x"})
    assert child_environment({}, {name: "x"})[name] == "x"


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "https_proxy", "NO_PROXY"]
)
def test_what_a_tool_needs_to_work_passes(name: str) -> None:
    assert child_environment({name: "x"})[name] == "x"


LOGINS = {
    "PULUMI_DIY_BACKEND_GZIP": "true", "AWS_PROFILE": "home", "AWS_SECRET_ACCESS_KEY": "k",
    "GOOGLE_APPLICATION_CREDENTIALS": "/k.json", "AZURE_STORAGE_KEY": "a", "PGPASSWORD": "p",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1/bus",
}  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "passed"),
    [
        ("file", {"PULUMI_DIY_BACKEND_GZIP"}),
        ("s3", {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "PULUMI_DIY_BACKEND_GZIP"}),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS", "PULUMI_DIY_BACKEND_GZIP"}),
        ("azblob", {"AZURE_STORAGE_KEY", "PULUMI_DIY_BACKEND_GZIP"}),
        ("postgres", {"PGPASSWORD", "PULUMI_DIY_BACKEND_GZIP"}),
        ("https", {"DBUS_SESSION_BUS_ADDRESS"}),
        ("http", {"DBUS_SESSION_BUS_ADDRESS"}),
    ],
)
def test_a_backend_gets_what_is_its_own_and_nothing_else(scheme: str, passed: set[str]) -> None:
    others = {"PATH": "/bin", "PAGER": "less", "PULUMI_DIY_BACKEND_LEGACY_LAYOUT": "1"}
    assert set(access_variables(f"{scheme}://x", LOGINS | others)) == passed


@pytest.mark.parametrize(
    ("provider", "passed"),
    [
        ("awskms://alias/homelab?region=eu-central-1", {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY"}),
        ("gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k", {"GOOGLE_APPLICATION_CREDENTIALS"}),
        ("azurekeyvault://vault.example.net/keys/k", {"AZURE_STORAGE_KEY"}),
        ("hashivault://homelab", {"VAULT_ADDR"}),
        ("passphrase", set()),
        ("default", set()),
        ("", set()),
        ("othervault://x", set()),
    ],
)
def test_a_key_service_gets_what_is_its_own_and_nothing_else(provider: str, passed: set[str]) -> None:
    environ = LOGINS | {"VAULT_ADDR": "https://vault", "PATH": "/bin"}
    assert set(access_variables(provider, environ)) == passed


def test_the_check_for_a_newer_pulumi_is_always_off() -> None:
    for base, extra in (({}, {}), ({"PULUMI_SKIP_UPDATE_CHECK": "false"}, {}), ({}, {"PULUMI_SKIP_UPDATE_CHECK": "0"})):
        assert child_environment(base, extra)["PULUMI_SKIP_UPDATE_CHECK"] == "true"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("PULUMI_ACCESS_TOKEN", "pul-1", ["pul-1"]),
        ("PULUMI_CONFIG_PASSPHRASE", "pass phrase", ["pass phrase"]),
        ("PULUMI_CONFIG_PASSPHRASE_FILE", "/run/passphrase", []),
        ("PULUMI_CREDENTIALS_PATH", "/run/credentials", []),
        ("TS_CLIENT_SECRET", "tskey", ["tskey"]),
        ("TS_CLIENT_ID", "id", []),
        ("PGPASSWORD", "pw", ["pw"]),
        ("AWS_SECRET_ACCESS_KEY", "key", ["key"]),
        ("OPENAI_API_KEY", "sk", ["sk"]),
        ("MODAL_TOKEN_SECRET", "as-1", ["as-1"]),
        ("VAULT_SERVER_TOKEN", "hvs.1", ["hvs.1"]),
        ("AZURE_STORAGE_KEY", "a+/=", ["a+/="]),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=x", ["AccountKey=x"]),
        ("GOOGLE_CREDENTIALS", '{"private_key": "k", "token_n": 1}', ['{"private_key": "k", "token_n": 1}', "k"]),
        ("GOOGLE_CREDENTIALS", "{broken", ["{broken"]),
        ("EMPTY_TOKEN", "", []),
        ("AWS_ACCESS_KEY_ID", "id", []),
        ("PULUMI_CREDENTIAL_STORE", "keyring", []),
        ("HTTPS_PROXY", "http://user:proxy-password@proxy:3128", ["proxy-password"]),
        ("https_proxy", "http://proxy:3128", []),
        ("PATH", "/bin:/usr/bin", []),
    ],
)
def test_which_variables_hold_secrets(name: str, value: str, secret: list[str]) -> None:
    assert list(secret_variables({name: value})) == secret


@pytest.mark.parametrize("proxy", ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("own", [{}, {"no_proxy": "nas.example, 10.0.0.0/8"}, {"NO_PROXY": "nas.example,10.0.0.0/8"}])
def test_this_machine_is_never_reached_through_a_proxy(proxy: str, own: dict[str, str]) -> None:
    environ = child_environment({proxy: "http://127.0.0.1:9", **own})
    assert environ["no_proxy"] == environ["NO_PROXY"]
    exceptions = environ["no_proxy"].split(",")
    assert {*LOOPBACK_NAMES, *(["nas.example", "10.0.0.0/8"] if own else [])} == set(exceptions)
    assert child_environment(environ) == environ, "applied twice it is the same"
    assert child_environment({proxy: "http://127.0.0.1:9", "no_proxy": "*"})["NO_PROXY"] == "*"
    assert "no_proxy" not in child_environment({"PATH": "/bin", proxy: ""})


@pytest.mark.parametrize(
    "name", ["OCI_CLI_PROFILE", "TELEPORT_HOME", "AWS_PROFILE", "SSH_AUTH_SOCK", "BROWSER", "DISPLAY"]
)
def test_a_login_plugin_of_any_vendor_gets_the_callers_variables(name: str) -> None:
    assert plugin_variables({name: "mine"}) == {name: "mine"}


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "KUBECONFIG", "PULUMI_HOME", "BASH_ENV", "PATH", "UV_INDEX"],
)
def test_what_redirects_or_preloads_does_not_reach_a_login_plugin(name: str) -> None:
    assert plugin_variables({name: "x"}) == {}
