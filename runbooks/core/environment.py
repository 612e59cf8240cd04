"""The part of our environment that a child process gets: an allow-list, never a copy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

_PASSED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        # The user decides where pulumi's plugins and uv's packages are kept; neither changes what a plan does.
        *("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "PULUMI_IGNORE_AMBIENT_PLUGINS", "UV_CACHE_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
_PASSED_PREFIXES = ("LC_",)

# Each silently changes what pulumi does after a plan was approved, or makes it sign up for an account.
_NEVER = re.compile(
    r"PULUMI_OPTION_.*|PULUMI_SKIP_CONFIRMATIONS|PULUMI_EXPERIMENTAL|PULUMI_DEBUG_COMMANDS"
    r"|PULUMI_K8S_DELETE_UNREACHABLE|PULUMI_SKIP_CHECKPOINTS|PULUMI_CONTINUE_ON_ERROR"
    r"|AI_AGENT|AGENT|CLAUDECODE|CLAUDE_CODE_.*|CODEX_.*|CURSOR_.*|GEMINI_CLI|OPENCODE.*|COPILOT_.*|GOOSE_.*|AIDER_.*"
    r"|REPL_ID|AUGMENT_AGENT|AMP_.*"
)
_SECRET_VARIABLE = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIAL|CONNECTION_STRING|(API|ACCESS|PRIVATE|AUTH|STORAGE)_?KEY",
    re.IGNORECASE,
)
# They name a file, a place or an account, and are not secret themselves.
_NOT_A_VALUE = re.compile(r"(_FILE|_PATH|_DIR|_ID|_STORE|_URL)$", re.IGNORECASE)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_ALWAYS = {"PULUMI_SKIP_UPDATE_CHECK": "true", "NO_COLOR": "1"}


def child_environment(base: Mapping[str, str], extra: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The environment of a child: the allow-listed variables of `base`, then `extra`.

    Both lose the variables that silently change pulumi's behaviour (`PULUMI_OPTION_*`, `PULUMI_SKIP_CONFIRMATIONS`, …)
    or mark the caller as an agent. Colours and the check for a newer pulumi are always off.
    """
    passed = {name: value for name, value in base.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    both = passed | dict(extra) | _ALWAYS
    return without_proxy_for_loopback({name: value for name, value in both.items() if not _NEVER.fullmatch(name)})


def without_proxy_for_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """The same environment. If it names a proxy, the addresses of this machine become exceptions.

    Go never uses a proxy for them. gRPC for C and Python does (`https_proxy`, `http_proxy`), also between pulumi and
    its language host. Tools differ in which spelling of `no_proxy` they read, so both get what either had.
    """
    if not any(
        value and name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name, value in environ.items()
    ):
        return dict(environ)
    excepted = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    names = dict.fromkeys(filter(None, (name.strip() for name in excepted.split(","))))
    both = "*" if "*" in names else ",".join(names | dict.fromkeys(LOOPBACK_NAMES))
    return {**environ, "no_proxy": both, "NO_PROXY": both}


def changes_pulumi_unseen(name: str) -> bool:
    """Whether a variable of that name changes what pulumi does without the user who approved a plan seeing it."""
    return name.startswith("PULUMI_") and bool(_NEVER.fullmatch(name))


_KEEPING = tuple(
    f"PULUMI_{family}_{how}"
    for family in ("DIY_BACKEND", "SELF_MANAGED_STATE")
    for how in ("GZIP", "ZSTD", "RETAIN_CHECKPOINTS", "DISABLE_CHECKPOINT_BACKUPS")
)
"""Variables that say how a user's own backend stores its states: a compressed one must stay compressed."""
_LOGINS: Mapping[str, tuple[str, ...]] = {
    # Backends; of the cloud, the variables that locate pulumi's key ring.
    "file": _KEEPING,
    "s3": ("AWS_", *_KEEPING),
    "gs": ("GOOGLE_", "CLOUDSDK_", *_KEEPING),
    "azblob": ("AZURE_", "ARM_", *_KEEPING),
    "postgres": ("PG", *_KEEPING),
    "https": ("PULUMI_CREDENTIAL_STORE", "DBUS_SESSION_BUS_ADDRESS"),
    "http": ("PULUMI_CREDENTIAL_STORE", "DBUS_SESSION_BUS_ADDRESS"),
    # Key services, the secrets providers of stacks (pulumi pkg/secrets/cloud).
    "awskms": ("AWS_",),
    "gcpkms": ("GOOGLE_", "CLOUDSDK_"),
    "azurekeyvault": ("AZURE_",),
    "hashivault": ("VAULT_",),
}
"""Scheme of an address → prefixes of its login's variables."""


_REDIRECTING = re.compile(
    r"PATH|(LD|DYLD|PULUMI|UV|OPS|HELM|GIT)_.*|(PYTHON|KUBE).*|VIRTUAL_ENV|BASH_ENV|ENV|IFS|CDPATH|GLIBC_TUNABLES"
    r"|GCONV_PATH|NODE_OPTIONS|NODE_PATH|PERL5.*|RUBY.*|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
)
"""Variables that load other code into a process or send it elsewhere; a shell's functions are `BASH_FUNC_…`."""


def plugin_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a kubeconfig's login plug-in (`exec`), which may be any vendor's.

    It is the caller's, as kubectl passes it on, without what loads other code or sends pulumi and kubectl elsewhere.
    `PATH` is left to the caller of the child.
    """
    return {
        name: value
        for name, value in environ.items()
        if not _REDIRECTING.fullmatch(name) and not name.startswith("BASH_FUNC_") and not _NEVER.fullmatch(name)
    }


def access_variables(address: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with which pulumi reaches a backend (and keeps its format) or a key service, such as `awskms://…`.

    None for another address, such as `passphrase`.
    """
    prefixes = _LOGINS.get(address.partition("://")[0], ())
    return {name: value for name, value in environ.items() if name.startswith(prefixes)}


def secret_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """The values of variables whose names say that they are secret, and the password in a proxy's address.

    Of a value that is a JSON object, such as a service account's key in `GOOGLE_CREDENTIALS`, each secret part as well.
    """
    for name, value in environment.items():
        if value and _SECRET_VARIABLE.search(name) and not _NOT_A_VALUE.search(name):
            yield value
            yield from _secret_parts(value)
        elif name.upper().endswith("_PROXY"):
            yield from re.findall(r"//[^/@]*?:([^/@]+)@", value)


def _secret_parts(value: str) -> Iterator[str]:
    if not value.lstrip().startswith("{"):
        return
    try:
        parts = json.loads(value)
    except ValueError:
        return
    yield from (part for name, part in parts.items() if isinstance(part, str) and _SECRET_VARIABLE.search(name))
