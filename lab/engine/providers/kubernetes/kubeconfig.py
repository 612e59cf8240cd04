"""Which API server, as whom: a kubeconfig resolved the way ``client-go`` does it.

Order: the setting ``kubernetes:kubeconfig`` (a path or the text itself), the files of ``KUBECONFIG`` (the first that
names something wins), ``~/.kube/config``. Exec plugins and auth providers are not supported: the lab has a token.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


class KubeconfigError(Exception):
    """The kubeconfig cannot be used. The text is what ``client-go`` says about it."""


@dataclass(frozen=True)
class ClusterAccess:
    """One server with credentials. PEM texts are text; ``namespace`` is the context's default one."""

    server: str
    namespace: str = "default"
    context: str = ""
    ca: str = ""
    client_certificate: str = field(default="", repr=False)
    client_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    insecure: bool = False
    document: str = field(default="", repr=False)
    """The kubeconfig's text when it came from the setting, for tools that need a file; "" when ambient."""

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.server).hostname or ""
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Overrides:
    """Settings that win over the file: ``kubernetes:context``, ``:cluster`` and ``:namespace``."""

    context: str = ""
    cluster: str = ""
    namespace: str = ""


def load_access(setting: str, overrides: Overrides, environment: Mapping[str, str]) -> ClusterAccess:
    """Raises ``KubeconfigError``."""
    if setting:
        folder, text = _read_setting(setting)
        return _resolve([(folder, _parse(text))], overrides, document=text)
    return _resolve([(path.parent, _parse(path.read_text())) for path in _ambient_files(environment)], overrides)


def _read_setting(setting: str) -> tuple[Path, str]:
    path = Path(setting).expanduser() if len(setting) < 4096 and "\n" not in setting else None
    if path is not None and path.is_file():
        return path.parent, path.read_text()
    return Path.cwd(), setting


def _ambient_files(environment: Mapping[str, str]) -> list[Path]:
    listed = environment.get("KUBECONFIG", "")
    if listed:
        return [path for path in map(Path, listed.split(os.pathsep)) if path.is_file()]
    default = Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"
    return [default] if default.is_file() else []


def _parse(text: str) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise KubeconfigError(f"couldn't get version/kind; yaml parse error: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError("couldn't get version/kind; json parse error: the text is not a kubeconfig")
    return document


Files = list[tuple[Path, dict[str, Any]]]


def _resolve(files: Files, overrides: Overrides, *, document: str = "") -> ClusterAccess:
    current = overrides.context or next(
        (str(one["current-context"]) for _, one in files if one.get("current-context")), ""
    )
    context: dict[str, Any] = {}
    if current:
        found = _named(files, "contexts", "context", current)
        if found is None:
            raise KubeconfigError(f'context "{current}" does not exist')
        context = found[1]
    cluster_name = overrides.cluster or str(context.get("cluster") or "")
    cluster = _named(files, "clusters", "cluster", cluster_name) if cluster_name else None
    if cluster is None:
        if cluster_name:
            raise KubeconfigError(f'cluster "{cluster_name}" does not exist')
        raise KubeconfigError(
            "invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment"
            " variable"
        )
    user_name = str(context.get("user") or "")
    user = _named(files, "users", "user", user_name) if user_name else None
    if user is None and user_name:
        raise KubeconfigError(f'auth info "{user_name}" does not exist')
    namespace = overrides.namespace or str(context.get("namespace") or "") or "default"
    return _access(cluster, user or (Path(), {}), namespace, current, document)


def _access(
    cluster: tuple[Path, dict[str, Any]], user: tuple[Path, dict[str, Any]], namespace: str, context: str, document: str
) -> ClusterAccess:
    unsupported = [key for key in ("exec", "auth-provider", "username") if user[1].get(key)]
    if unsupported:
        raise KubeconfigError(
            f"the kubeconfig's user has {unsupported[0]!r}: only a token or a client certificate is supported"
        )
    server = str(cluster[1].get("server") or "")
    if not server:
        raise KubeconfigError('invalid configuration: no server found for cluster "' + context + '"')
    return ClusterAccess(
        server=server.rstrip("/"),
        namespace=namespace,
        context=context,
        ca=_pem(cluster, "certificate-authority"),
        client_certificate=_pem(user, "client-certificate"),
        client_key=_pem(user, "client-key"),
        token=_token(user),
        insecure=bool(cluster[1].get("insecure-skip-tls-verify")),
        document=document,
    )


def _named(files: Files, group: str, key: str, name: str) -> tuple[Path, dict[str, Any]] | None:
    for folder, document in files:
        for entry in document.get(group) or []:
            if isinstance(entry, dict) and entry.get("name") == name:
                return folder, dict(entry.get(key) or {})
    return None


def _pem(source: tuple[Path, dict[str, Any]], key: str) -> str:
    folder, values = source
    data = values.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise KubeconfigError(f"{key}-data is not base64 of a PEM text") from error
    return _file(folder, values.get(key))


def _token(source: tuple[Path, dict[str, Any]]) -> str:
    folder, values = source
    return str(values.get("token") or "") or _file(folder, values.get("tokenFile")).strip()


def _file(folder: Path, name: object) -> str:
    if not name:
        return ""
    path = folder / str(name)
    try:
        return path.read_text()
    except OSError as error:
        raise KubeconfigError(f"unable to read {path}: {error.strerror}") from error
