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
    ("names", "to_children", "to_plugins"),
    [
        ("HOME LANG LC_ALL LC_CTYPE TZ TMPDIR SSL_CERT_FILE https_proxy NO_PROXY", True, None),
        ("PATH", True, False),
        ("PULUMI_ACCESS_TOKEN PULUMI_BACKEND_URL OPS_STATE", False, None),
        ("OCI_CLI_PROFILE TELEPORT_HOME AWS_PROFILE SSH_AUTH_SOCK BROWSER DISPLAY", False, True),
        ("LD_PRELOAD DYLD_INSERT_LIBRARIES PYTHONPATH KUBECONFIG PULUMI_HOME BASH_ENV UV_INDEX", False, False),
    ],
)
def test_which_variables_of_the_caller_pass(names: str, to_children: bool, to_plugins: bool | None) -> None:
    """To every child, and to the login plugins of kubeconfigs; a command gets in any case what it asks for."""
    for name in names.split():
        assert child_environment({name: "x"}).get(name) == ("x" if to_children else None)
        assert child_environment({}, {name: "x"})[name] == "x"
        assert to_plugins is None or plugin_variables({name: "x"}) == ({name: "x"} if to_plugins else {})


LOGINS = {
    "PULUMI_DIY_BACKEND_GZIP": "true", "AWS_PROFILE": "home", "AWS_SECRET_ACCESS_KEY": "k",
    "GOOGLE_APPLICATION_CREDENTIALS": "/k.json", "AZURE_STORAGE_KEY": "a", "PGPASSWORD": "p",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1/bus",
}  # fmt: skip


AWS = {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize(
    ("url", "passed"),
    [
        ("file://x", {"PULUMI_DIY_BACKEND_GZIP"}),
        ("s3://x", AWS | {"PULUMI_DIY_BACKEND_GZIP"}),
        ("gs://x", {"GOOGLE_APPLICATION_CREDENTIALS", "PULUMI_DIY_BACKEND_GZIP"}),
        ("azblob://x", {"AZURE_STORAGE_KEY", "PULUMI_DIY_BACKEND_GZIP"}),
        ("postgres://x", {"PGPASSWORD", "PULUMI_DIY_BACKEND_GZIP"}),
        ("https://x", {"DBUS_SESSION_BUS_ADDRESS"}),
        ("http://x", {"DBUS_SESSION_BUS_ADDRESS"}),
        ("awskms://alias/homelab?region=eu-central-1", AWS),
        ("gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k", {"GOOGLE_APPLICATION_CREDENTIALS"}),
        ("azurekeyvault://vault.example.net/keys/k", {"AZURE_STORAGE_KEY"}),
        ("hashivault://homelab", {"VAULT_ADDR"}),
        ("passphrase", set()),
        ("", set()),
        ("othervault://x", set()),
    ],
)
def test_a_backend_or_key_service_gets_what_is_its_own_and_nothing_else(url: str, passed: set[str]) -> None:
    others = {"VAULT_ADDR": "https://vault", "PATH": "/bin", "PAGER": "less", "PULUMI_DIY_BACKEND_LEGACY_LAYOUT": "1"}
    assert set(access_variables(url, LOGINS | others)) == passed


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
