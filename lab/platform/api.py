"""HTTP to the lab's servers: health probes, and just enough of the Kubernetes API to lay out a fresh cluster."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.platform.ports import LOOPBACK
from runbooks.core.errors import ToolFailed

FIELD_MANAGER = "lab"
TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server of the lab and how to be let in."""

    port: int
    ca: Path | None = None
    """The lab's authority; None for plain HTTP."""
    certificate: Path | None = None
    key: Path | None = None
    token: str = ""

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "", timeout: float = TIMEOUT
    ) -> tuple[int, bytes]:
        """Status and body. Raises `OSError` or `http.client.HTTPException` when there is no answer."""
        connection = self._connection(timeout)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if content_type:
            headers["Content-Type"] = content_type
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.ca is None:
            return http.client.HTTPConnection(LOOPBACK, self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=timeout, context=context)

    def trouble(self, path: str, timeout: float = 3.0) -> str:
        """A probe: empty when `path` answers 200, else what came instead."""
        try:
            status, body = self.request("GET", path, timeout=timeout)
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on port {self.port} ({type(error).__name__})"
        if status == http.HTTPStatus.OK:
            return ""
        return f"{path} answers {status}: {_first_complaint(body)}"


def _first_complaint(body: bytes) -> str:
    """`/readyz` lists its checks, a failed one begins with `[-]`."""
    lines = body.decode("utf-8", "replace").splitlines()
    complaints = [line for line in lines if line.startswith("[-]")]
    return (complaints or lines or ["no text"])[0][:200]


@dataclass(frozen=True)
class Cluster:
    """The lab's API server."""

    endpoint: Endpoint

    def get(self, path: str) -> dict[str, Any]:
        """An object or list; raises `ToolFailed` when the server says no."""
        return self._answer("GET", path)

    def apply(self, path: str, item: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply of one object at its own path; idempotent, and takes back fields others have set."""
        query = f"{path}?fieldManager={FIELD_MANAGER}&force=true"
        return self._answer("PATCH", query, json.dumps(item).encode(), "application/apply-patch+yaml")

    def _answer(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> dict[str, Any]:
        try:
            status, answer = self.endpoint.request(method, path, body, content_type)
        except (OSError, http.client.HTTPException) as error:
            raise _refused(method, path, f"no answer ({type(error).__name__})") from error
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise _refused(method, path, f"{status} {answer[:300].decode('utf-8', 'replace')}")
        content: dict[str, Any] = json.loads(answer)
        return content


def _refused(method: str, path: str, answer: str) -> ToolFailed:
    return ToolFailed(
        f"the lab's API server does not do {method} {path}: {answer}",
        expected="success",
        next_step="./inv lab.status, then read .ops/lab/logs/kube-apiserver.log",
    )
