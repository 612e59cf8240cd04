"""Requests and answers of the API as plain data, and the errors that become answers."""

from __future__ import annotations

import http
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

Json = dict[str, Any]

USER = "lab"
ORGANIZATION = "organization"
"""The word that file backends use, so that stack references read the same on either."""

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a request's body, inflated."""


class ApiError(Exception):
    """A refusal: `{code, message}`, the message after the name of the status, and what else the clients look for."""

    def __init__(self, status: int, message: str, /, **more: Any) -> None:
        self.status = status
        self.content: Json = {"code": status, "message": f"{http.HTTPStatus(status).phrase}: {message}", **more}
        super().__init__(self.content["message"])


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call, its path already taken apart by the router."""

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    """The values of the `{names}` of the route."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)
    update_token: str = field(default="", repr=False)
    """The token of a call inside an update; empty on the account's calls."""

    def json(self) -> Json:
        """Read the body as an object; a missing body is an empty one. Raises `ApiError` 400 for anything else."""
        if not self.body:
            return {}
        try:
            content = json.loads(self.body, parse_constant=_no_constant)
        except ValueError as error:
            raise ApiError(400, "the body is not JSON") from error
        if not isinstance(content, dict):
            raise ApiError(400, "the body is not a JSON object")
        return content

    def text(self) -> str:
        """Read the body as text; raises `ApiError` 400 if it is not UTF-8."""
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ApiError(400, "the body is not UTF-8") from error

    def number(self, name: str) -> int | None:
        """Read a query parameter as a number; None if it is not given."""
        value = self.query.get(name)
        if not value:
            return None
        try:
            return int(value)
        except ValueError as error:
            raise ApiError(400, f"{name} is not a number") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer. `content` is JSON; None leaves the body empty. `text` is sent as it is, as YAML."""

    status: int = 200
    content: Any = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> tuple[bytes, str]:
        """The bytes of the body and their content type."""
        if self.text is not None:
            return self.text.encode(), "application/x-yaml"
        if self.content is None:
            return b"", ""
        return json.dumps(self.content, separators=(",", ":")).encode(), "application/json"


DONE = Answer(status=http.HTTPStatus.NO_CONTENT)


@dataclass(frozen=True)
class Route:
    """One route of the API."""

    method: str
    pattern: str
    """The path. A segment in braces matches any one segment."""
    answer: Callable[[Request], Answer]
    inside_update: bool = False
    """Whether the call has the token of an update instead of the account's."""

    def match(self, path: str) -> dict[str, str] | None:
        """Match a path and return the names in it; None if it does not match."""
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.pattern), path)
        return found.groupdict() if found else None


def inflate(body: bytes, encoding: str) -> bytes:
    """The body without its Content-Encoding. Raises `ApiError` 400 for a broken, too large or unknown one."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise ApiError(400, f"Content-Encoding {encoding!r} is not gzip")
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, BODY_LIMIT)
    except zlib.error as error:
        raise ApiError(400, "the body is not gzip") from error
    if inflater.unconsumed_tail:
        raise ApiError(413, f"more than {BODY_LIMIT} bytes inflated")
    if not inflater.eof:
        raise ApiError(400, "the gzip body ends too early")
    return inflated


def is_name(text: str) -> bool:
    """Whether it is a valid name. Names become folders: letters, digits, dots, dashes, underscores, but not `..`."""
    return re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", text) is not None and not text.startswith(".")


def check_name(kind: str, text: object) -> str:
    """Return a valid name; raises `ApiError` 400 for any other text."""
    if not isinstance(text, str) or not is_name(text):
        raise ApiError(400, f"invalid {kind}: letters, digits, '-', '_' and '.' only, at most 100")
    return text
