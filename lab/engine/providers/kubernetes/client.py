"""Talks to one Kubernetes API server: plain requests over kept-alive connections, and watches.

On ``http.client`` rather than a larger library: a watch must be ended from another thread within a moment (by shutting
its socket down), texts of connection errors must read like ``client-go``'s, and the import must cost little.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from lab.engine.providers.kubernetes.kubeconfig import ClusterAccess, KubeconfigError

Object = dict[str, Any]

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 32.0
"""Of the real provider's requests (it shows in its messages)."""
IDLE_SECONDS = 20.0
"""A connection that rested longer is not used again: the server may be closing it."""
PAGE = 500
TOO_MANY_REQUESTS = 429


class ApiError(Exception):
    """The server's ``Status`` answer. ``str()`` is its message, as ``client-go`` shows it."""

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})

    @property
    def is_not_found(self) -> bool:
        return self.reason == "NotFound" or (not self.reason and self.code == http.client.NOT_FOUND)

    @property
    def is_already_exists(self) -> bool:
        return self.reason == "AlreadyExists"

    @property
    def is_conflict(self) -> bool:
        return self.reason == "Conflict"

    @property
    def is_forbidden(self) -> bool:
        return self.reason == "Forbidden"

    @property
    def is_invalid(self) -> bool:
        return self.reason == "Invalid"

    @property
    def is_missing_namespace(self) -> bool:
        return self.is_not_found and self.details.get("kind") == "namespaces"

    @property
    def is_without_dry_run(self) -> bool:
        return self.code == http.client.BAD_REQUEST and "does not support dry run" in self.message


class ConnectionFailed(Exception):
    """No answer. ``str()`` reads like Go's ``net/http``: ``Get "https://…": dial tcp …: connect: connection refused``.

    ``cause`` is the part after the address.
    """

    def __init__(self, request: str, cause: str) -> None:
        super().__init__(f"{request}: {cause}")
        self.cause = cause


@dataclass
class _Pooled:
    connection: http.client.HTTPConnection
    rested_since: float = field(default_factory=time.monotonic)


class ApiClient:
    """Thread-safe. Paths are server paths such as ``/api/v1/namespaces/x``; answers are parsed JSON objects."""

    def __init__(self, access: ClusterAccess) -> None:
        self.access = access
        url = urlsplit(access.server)
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._prefix = url.path.rstrip("/")
        self._tls = _tls_context(access) if url.scheme == "https" else None
        self._idle: list[_Pooled] = []
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()

    def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "application/json") -> Object:
        return self.request("GET", path, query=query, accept=accept)

    def items(self, path: str) -> tuple[list[Object], str]:
        """All items, with the resource version to watch from."""
        items: list[Object] = []
        query = {"limit": str(PAGE)}
        while True:
            answer = self.get(path, query)
            api_version = str(answer.get("apiVersion", ""))
            kind = str(answer.get("kind", "")).removesuffix("List")
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in answer.get("items") or []]
            metadata = answer.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = str(metadata["continue"])

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | list[Object] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """Raises ``ApiError`` for an error status, ``ConnectionFailed`` when there is no answer.

        A request the server turned away unheard (429) is repeated as it asks; nothing else is, except reads over a
        connection that turned out to be closed.
        """
        target = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        payload = None if body is None else json.dumps(body).encode()
        headers = self._headers(accept, content_type if payload is not None else "")
        for _ in range(10):
            status, pause, data = self._exchange(method, target, payload, headers)
            if status != TOO_MANY_REQUESTS:
                break
            time.sleep(pause)
        if status >= http.client.BAD_REQUEST:
            raise _api_error(status, data)
        answer = json.loads(data) if data else {}
        return answer if isinstance(answer, dict) else {"items": answer}

    def watch(self, path: str, resource_version: str) -> Watch:
        """Events from ``resource_version`` on; iterate it, and ``close`` it from any thread."""
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "290",
        }
        connection = self._connect(self._prefix + path, "GET")
        watch = Watch(connection, self._watches.discard)
        self._watches.add(watch)
        target = f"{self._prefix}{path}?{urlencode(query)}"
        try:
            connection.request("GET", target, headers=self._headers("application/json", ""))
            response = connection.getresponse()
            if response.status >= http.client.BAD_REQUEST:
                raise _api_error(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            watch.close()
            raise self._failed("GET", target, error) from error
        except ApiError:
            watch.close()
            raise
        if connection.sock is not None:
            connection.sock.settimeout(None)
        watch.response = response
        return watch

    def close(self) -> None:
        for watch in tuple(self._watches):
            watch.close()
        with self._lock:
            idle, self._idle = self._idle, []
        for pooled in idle:
            pooled.connection.close()

    def _headers(self, accept: str, content_type: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "pulumi-kubernetes/4.34.2 (homelab-ops lab)"}
        if content_type:
            headers["Content-Type"] = content_type
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        return headers

    def _exchange(
        self, method: str, target: str, payload: bytes | None, headers: dict[str, str]
    ) -> tuple[int, float, bytes]:
        reused, connection = self._take(target, method)
        try:
            status, pause, data = _converse(connection, method, target, payload, headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if not (reused and method == "GET"):
                raise self._failed(method, target, error) from error
            connection = self._connect(target, method)
            try:
                status, pause, data = _converse(connection, method, target, payload, headers)
            except (OSError, http.client.HTTPException) as again:
                connection.close()
                raise self._failed(method, target, again) from again
        with self._lock:
            self._idle.append(_Pooled(connection))
        return status, pause, data

    def _take(self, target: str, method: str) -> tuple[bool, http.client.HTTPConnection]:
        while True:
            with self._lock:
                pooled = self._idle.pop() if self._idle else None
            if pooled is None:
                return False, self._connect(target, method)
            if time.monotonic() - pooled.rested_since < IDLE_SECONDS:
                return True, pooled.connection
            pooled.connection.close()

    def _connect(self, target: str, method: str) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_SECONDS, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise self._failed(method, target, error, dialing=True) from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.settimeout(REQUEST_SECONDS)
        return connection

    def _failed(self, method: str, target: str, error: Exception, *, dialing: bool = False) -> ConnectionFailed:
        base = self.access.server.removesuffix(self._prefix) if self._prefix else self.access.server
        cause = _go_text(error)
        if dialing and not isinstance(error, ssl.SSLError):
            cause = f"dial tcp {self._host}:{self._port}: {cause}"
        return ConnectionFailed(f'{method.capitalize()} "{base}{target}"', cause)


class Watch:
    """A running watch. Iterating gives ``(type, object)`` until the server ends it or ``close`` is called."""

    def __init__(self, connection: http.client.HTTPConnection, forget: Any) -> None:
        self._connection = connection
        self._forget = forget
        self.response: http.client.HTTPResponse | None = None
        self.is_closed = False

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Raises ``ApiError`` when the server reports one (410 Gone: list again)."""
        if self.response is None:
            return
        while True:
            try:
                line = self.response.readline()
            except (OSError, ValueError, AttributeError, http.client.HTTPException):
                return
            if not line or self.is_closed:
                return
            event = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise ApiError(
                    int(status.get("code", 500)), str(status.get("reason", "")), str(status.get("message", ""))
                )
            yield event["type"], event["object"]

    def close(self) -> None:
        self.is_closed = True
        self._forget(self)
        if self._connection.sock is not None:
            # A reader in another thread wakes up at a shutdown, not at a close.
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _converse(
    connection: http.client.HTTPConnection, method: str, target: str, payload: bytes | None, headers: dict[str, str]
) -> tuple[int, float, bytes]:
    connection.request(method, target, body=payload, headers=headers)
    response = connection.getresponse()
    data = response.read()
    try:
        pause = float(response.headers.get("Retry-After", "1"))
    except ValueError:
        pause = 1.0
    return response.status, min(pause, 5.0), data


def _api_error(status: int, data: bytes) -> ApiError:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        reason = str(answer.get("reason", ""))
        if reason == "Unauthorized":
            return ApiError(status, reason, "the server has asked for the client to provide credentials")
        return ApiError(status, reason, str(answer.get("message", "")), answer.get("details"))
    reason = "NotFound" if status == http.client.NOT_FOUND else ""
    text = "the server could not find the requested resource" if reason else data.decode(errors="replace").strip()
    return ApiError(status, reason, text or f"the server answered with status {status}")


def _go_text(error: Exception) -> str:
    """A connection error in the words of Go's standard library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "self" in error.verify_message or "unable to get" in error.verify_message:
            return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if isinstance(error, socket.gaierror):
        return "lookup: no such host"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return "EOF"
    return str(getattr(error, "strerror", None) or error).lower()


def _tls_context(access: ClusterAccess) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.ca or None)
    except ssl.SSLError as error:
        raise KubeconfigError("unable to load root certificates: unable to parse bytes as PEM block") from error
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.client_certificate:
        # The standard library reads client certificates only from files; this one lives for a moment, mode 0600.
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_text(access.client_certificate + "\n" + access.client_key)
            try:
                context.load_cert_chain(pair)
            except ssl.SSLError as error:
                raise KubeconfigError("tls: failed to find any PEM data in certificate or key input") from error
    return context
