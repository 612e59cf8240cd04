"""kubeconfig files: reads one context and its credentials, and writes a kubeconfig with that context alone."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from runbooks.core.errors import Refused
from runbooks.core.files import write_new, writing
from runbooks.core.names import nearest
from runbooks.tools.kubectl import dig, text_at

_PATHS = {"cluster": ("certificate-authority",), "user": ("client-certificate", "client-key", "tokenFile")}
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
        """Whether it trusts exactly one authority, whose certificate is in the file, and uses no proxy."""
        return (
            bool(self.cluster.get("certificate-authority-data"))
            and not self.cluster.get("insecure-skip-tls-verify")
            and not self.cluster.get("proxy-url")
        )

    @property
    def starts_plugin(self) -> bool:
        """Whether its login comes from a program that the kubeconfig names (`exec`)."""
        return "exec" in self.user

    def document(self) -> dict[str, Any]:
        """A kubeconfig with this context alone, as the current one."""
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

    `path` may be several files with `:` between them, merged as kubectl merges KUBECONFIG: of entries with the same
    name the first counts, relative paths are below the folder of their own file, a missing file is left out.

    Raises `Refused` when no file is there, or the context, its cluster or its server is missing or empty.
    """
    if not name.strip():
        raise Refused("the target's context is empty", expected="the name of a context: the current one is never taken")
    files = _load_all(path)
    contexts = _named(files, "contexts", "context")
    if name not in contexts:
        raise Refused(
            f"{path} has no context {name!r}",
            expected=f"one of its contexts: {', '.join(nearest(name, contexts)) or 'it has none'}",
            next_step=f"kubectl --kubeconfig {path} config get-contexts",
        )
    context = contexts[name]
    cluster_name = str(context.get("cluster") or "")
    cluster = _named(files, "clusters", "cluster").get(cluster_name)
    if not cluster or not cluster.get("server"):
        raise Refused(
            f"context {name!r} of {path} names the cluster {cluster_name!r}, which has no server there",
            expected="a cluster with a server",
            next_step=f"kubectl --kubeconfig {path} config view",
        )
    user_name = str(context.get("user") or "")
    user = _named(files, "users", "user").get(user_name, {})
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
        cluster=cluster,
        user=user,
        namespace=str(context.get("namespace") or ""),
    )


def ended_credential(context: KubeContext, now: datetime) -> str:
    """The credential of the context that expired before `now`: client certificate or token (a JWT). Empty for none."""
    ends = {
        "client certificate": _end_of_certificate(_text_of(context.user, "client-certificate")),
        "token": _end_of_token(_text_of(context.user, "token")),
    }
    ended = {what: end for what, end in ends.items() if end and end < now}
    return next((f"its {what} ended on {end:%Y-%m-%d %H:%M} UTC" for what, end in ended.items()), "")


def _text_of(user: Mapping[str, Any], key: str) -> str:
    """An inline value, else what its `-data` holds, else the content of the file it names."""
    if key == "token":
        return text_at(user, key) or next(_content(user.get("tokenFile")), "")
    data = text_at(user, f"{key}-data")
    return next(_decoded(data), "") if data else next(_content(user.get(key)), "")


def _end_of_certificate(pem: str) -> datetime | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return None


def _end_of_token(token: str) -> datetime | None:
    """The claim `exp` of a JWT; None for any other token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def write_private(context: KubeContext, path: Path) -> Path:
    """Write the one-context kubeconfig (0600, new file) and return `path`. Raises `Unwritable`."""
    what = "the kubeconfig of this run"
    with writing(what, path):
        path.unlink(missing_ok=True)
    write_new(path, json.dumps(context.document(), indent=1), what)
    return path


def is_loopback(url: str) -> bool:
    """Whether an http(s) URL points at this machine, by address or as `localhost`."""
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
        raise Refused(f"{path} is empty or not a kubeconfig", expected="a kubeconfig file with contexts")
    return config


def _load_all(path: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Folder and content of each file; a missing one of several is left out. Raises `Refused` for an unreadable one."""
    paths = [Path(part) for part in str(path).split(os.pathsep) if part]
    there = [each for each in paths if each.exists()] if len(paths) > 1 else paths
    if not there:
        raise Refused(
            f"none of the target's kubeconfigs is there: {path}",
            expected="at least one of the files",
            next_step="./inv target.show",
        )
    return [(each.parent, _load(each)) for each in there]


def _named(files: Sequence[tuple[Path, Mapping[str, Any]]], listing: str, key: str) -> dict[str, dict[str, Any]]:
    """`[{name, key: {...}}]` of all files as a dict, paths made absolute; of two with one name the first counts."""
    found: dict[str, dict[str, Any]] = {}
    for folder, config in files:
        entries = config.get(listing)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get(key), dict):
                found.setdefault(str(entry.get("name", "")), _absolute(key, entry[key], folder))
    return found


def _absolute(kind: str, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same entry with its relative paths below `folder`; the command of an exec plug-in only where it is a path."""
    made = {
        key: os.path.normpath(folder / value)
        if key in _PATHS.get(kind, ()) and isinstance(value, str) and value
        else value
        for key, value in values.items()
    }
    plugin = made.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command", "")):
        made["exec"] = plugin | {"command": os.path.normpath(folder / str(plugin["command"]))}
    return made


def _credentials(user: Mapping[str, Any]) -> Iterator[str]:
    config, plugin = dig(user, "auth-provider", "config"), dig(user, "exec", "env") or []
    found = [*user.items(), *(config.items() if isinstance(config, dict) else ())]
    found += [(dig(entry, "name"), dig(entry, "value")) for entry in plugin]
    for key, value in found:
        if not value or isinstance(value, (dict, list)) or not _SECRET_NAME.search(str(key)):
            continue
        if key in _PATHS["user"]:
            yield from _content(value)
        else:
            yield str(value)
        if key == "client-key-data":
            yield from _decoded(str(value))


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
