"""kubeconfig files: one context read, cut down to what a run needs, and the credentials it carries."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from runbooks.core.errors import Refused
from runbooks.core.files import write_new, writing
from runbooks.core.names import nearest

_PATHS_IN_CLUSTER = ("certificate-authority",)
_PATHS_IN_USER = ("client-certificate", "client-key", "tokenFile")
_SECRET_NAME = re.compile(r"token|secret|password|passphrase|key|credential", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class KubeContext:
    """One context of a kubeconfig with its cluster and user, relative paths made absolute."""

    name: str
    cluster_name: str
    user_name: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any] = field(repr=False)
    namespace: str = ""

    @property
    def server(self) -> str:
        return str(self.cluster.get("server", ""))

    @property
    def has_own_authority(self) -> bool:
        """Trusts exactly one authority that is written into the file, through no proxy."""
        return (
            bool(self.cluster.get("certificate-authority-data"))
            and not self.cluster.get("insecure-skip-tls-verify")
            and not self.cluster.get("proxy-url")
        )

    @property
    def starts_plugin(self) -> bool:
        """Its login comes from a program that the kubeconfig names (`exec`)."""
        return "exec" in self.user

    def document(self) -> dict[str, Any]:
        """A kubeconfig with this context alone, current."""
        context = {"cluster": self.cluster_name} | ({"user": self.user_name} if self.user_name else {})
        if self.namespace:
            context["namespace"] = self.namespace
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "preferences": {},
            "current-context": self.name,
            "contexts": [{"name": self.name, "context": context}],
            "clusters": [{"name": self.cluster_name, "cluster": dict(self.cluster)}],
            "users": [{"name": self.user_name, "user": dict(self.user)}] if self.user_name else [],
        }

    def secrets(self) -> Iterator[str]:
        """Every credential in it, for the masker: as written, and decoded where it is base64."""
        yield from _credentials(self.user)


def read_context(path: Path, name: str) -> KubeContext:
    """Context `name` of the kubeconfig at `path`; the file's own current context never counts.

    Raises `Refused` when the file, the context, its cluster or its server is missing or empty.
    """
    if not name.strip():
        raise Refused("the target's context is empty", expected="the name of a context: the current one is never taken")
    config = _load(path)
    contexts = _named(config, "contexts", "context")
    if name not in contexts:
        raise Refused(
            f"{path} has no context {name!r}",
            expected=f"one of its contexts: {', '.join(nearest(name, contexts)) or 'it has none'}",
            next_step=f"kubectl --kubeconfig {path} config get-contexts",
        )
    context = contexts[name]
    cluster_name = str(context.get("cluster") or "")
    cluster = _named(config, "clusters", "cluster").get(cluster_name)
    if not cluster or not cluster.get("server"):
        raise Refused(
            f"context {name!r} of {path} names the cluster {cluster_name!r}, which has no server there",
            expected="a cluster with a server",
            next_step=f"kubectl --kubeconfig {path} config view",
        )
    user_name = str(context.get("user") or "")
    user = _named(config, "users", "user").get(user_name, {})
    if user_name and not user:
        raise Refused(
            f"context {name!r} of {path} names the user {user_name!r}, which has no credentials there",
            expected="a user with a token, a certificate or an exec plug-in",
            next_step=f"kubectl --kubeconfig {path} config view",
        )
    return KubeContext(
        name=name,
        cluster_name=cluster_name,
        user_name=user_name,
        cluster=_absolute(cluster, _PATHS_IN_CLUSTER, path.parent),
        user=_absolute_user(user, path.parent),
        namespace=str(context.get("namespace") or ""),
    )


def write_private(context: KubeContext, path: Path) -> Path:
    """Write the one-context kubeconfig (0600, new file) and return `path`. Raises `Unwritable`."""
    what = "the kubeconfig of this run"
    with writing(what, path):
        path.unlink(missing_ok=True)
    write_new(path, json.dumps(context.document(), indent=1), what)
    return path


def is_loopback(url: str) -> bool:
    """Whether an http(s) URL points at this machine by address or by the name `localhost`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _load(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise Refused(
            f"the target's kubeconfig {path} cannot be read: {error.strerror}",
            expected="a kubeconfig file",
            next_step="./inv target.show",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The parser's own text quotes the line it stopped at, which may hold a token.
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise Refused(f"{path}{line} is not YAML", expected="a kubeconfig file") from None
    if not isinstance(config, dict):
        raise Refused(f"{path} is empty or no kubeconfig", expected="a kubeconfig file with contexts")
    return config


def _named(config: Mapping[str, Any], listing: str, key: str) -> dict[str, dict[str, Any]]:
    """`[{name, key: {...}}]` as a dict; of two entries with one name the first counts, as in client-go."""
    found: dict[str, dict[str, Any]] = {}
    for entry in config.get(listing) or []:
        if isinstance(entry, dict) and isinstance(entry.get(key), dict):
            found.setdefault(str(entry.get("name", "")), entry[key])
    return found


def _absolute(values: Mapping[str, Any], keys: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return {
        key: os.path.normpath(folder / value) if key in keys and isinstance(value, str) and value else value
        for key, value in values.items()
    }


def _absolute_user(user: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    made = _absolute(user, _PATHS_IN_USER, folder)
    plugin = made.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command", "")):
        made["exec"] = plugin | {"command": os.path.normpath(folder / str(plugin["command"]))}
    return made


def _credentials(user: Mapping[str, Any]) -> Iterator[str]:
    for key in ("token", "password"):
        if user.get(key):
            yield str(user[key])
    if user.get("client-key-data"):
        yield str(user["client-key-data"])
        yield from _decoded(str(user["client-key-data"]))
    for key in ("tokenFile", "client-key"):
        yield from _content(user.get(key))
    provider = user.get("auth-provider")
    if isinstance(provider, dict) and isinstance(provider.get("config"), dict):
        yield from (str(v) for k, v in provider["config"].items() if v and _SECRET_NAME.search(str(k)))
    plugin = user.get("exec")
    if isinstance(plugin, dict):
        for entry in plugin.get("env") or []:
            if isinstance(entry, dict) and entry.get("value") and _SECRET_NAME.search(str(entry.get("name", ""))):
                yield str(entry["value"])


def _decoded(value: str) -> Iterator[str]:
    try:
        yield base64.b64decode(value, validate=True).decode("utf-8").strip()
    except (binascii.Error, ValueError):
        return


def _content(path: object) -> Iterator[str]:
    if not isinstance(path, str) or not path:
        return
    try:
        yield Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return
