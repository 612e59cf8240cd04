"""Names and targets of links, and the web app over a mapping that stores them.

This module does not depend on Modal: `golink.py` passes a `modal.Dict`, the tests pass a `dict`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""A link's name: lower case, at most 64 characters, no slash."""
TAKEN = frozenset({"healthz"})
"""Paths of the app itself, which would hide a link of the same name."""


class Links(Protocol):
    """The store of links, name to target: the methods that `dict` and `modal.Dict` share."""

    def get(self, key: str, /) -> str | None: ...
    def __setitem__(self, key: str, value: str, /) -> None: ...
    def pop(self, key: str, /) -> str: ...
    def items(self) -> Iterable[tuple[str, str]]: ...


class Link(BaseModel):
    """The body of a request that adds or changes a link."""

    target: str


def check_name(name: str) -> str:
    """Return the name in lower case.

    Raises:
        HTTPException: 422 if it is not a valid name.
    """
    lowered = name.strip().lower()
    if not NAME.fullmatch(lowered):
        raise HTTPException(
            422, f"{name!r} is not a valid link name: use letters, digits, '.', '_' and '-', at most 64, no slash"
        )
    return lowered


def new_name(name: str) -> str:
    """Return the name of a new link in lower case.

    Raises:
        HTTPException: 422 if it is not a valid name, or a path of the app itself.
    """
    stored = check_name(name)
    if stored in TAKEN:
        raise HTTPException(422, f"{name!r} is not a valid link name: it is a path of the app itself")
    return stored


def check_target(target: str) -> str:
    """Check that the target is an absolute http(s) URL, so that a link can never run a script in the browser.

    Raises:
        HTTPException: 422 otherwise.
    """
    try:
        parts = urlsplit(target)
        _ = parts.port, target.encode()  # both raise for an invalid URL
    except ValueError as broken:
        raise HTTPException(422, f"{target!r} is not a valid URL: {broken}") from broken
    if parts.scheme not in ("http", "https") or not parts.hostname or any(ord(character) < 33 for character in target):
        raise HTTPException(
            422, f"{target!r} is not a valid target: it must be a full URL that begins with http:// or https://"
        )
    return target


def read_each(links: Links) -> int:
    """Read every link by its name and return their number. Listing them might not count as reading."""
    names = [name for name, _ in links.items()]
    return sum(links.get(name) is not None for name in names)


def token_check(expected: str) -> Callable[[str], None]:
    """Return a dependency that admits a request only with `Authorization: Bearer <expected>`."""
    if not expected:
        raise ValueError("an empty token would admit everyone")

    def check(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {expected}".encode()):
            raise HTTPException(401, "a token is required: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})

    return check


def build_app(links: Links, token: str) -> FastAPI:
    """Build the web app: links are public; listing, adding and removing one requires the token."""
    app = FastAPI(title="golink", docs_url=None, redoc_url=None, openapi_url=None)
    owner = [Depends(token_check(token))]

    @app.exception_handler(RequestValidationError)
    def not_a_link(_request: Request, _error: RequestValidationError) -> JSONResponse:
        # FastAPI's own answer repeats the body, which may not be encodable in an answer.
        return JSONResponse(
            {"detail": 'the body is not a valid link: it must be JSON like {"target": "https://…"}'}, 422
        )

    @app.get("/healthz")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/links", dependencies=owner)
    def list_links() -> dict[str, str]:
        return dict(sorted(links.items()))

    @app.put("/api/links/{name}", dependencies=owner)
    def add_link(name: str, link: Link) -> JSONResponse:
        stored = new_name(name)
        is_new = links.get(stored) is None
        links[stored] = check_target(link.target)
        return JSONResponse({"name": stored, "target": link.target}, status_code=201 if is_new else 200)

    @app.delete("/api/links/{name}", dependencies=owner)
    def remove_link(name: str) -> dict[str, str]:
        stored = check_name(name)
        try:
            links.pop(stored)
        except KeyError as missing:
            raise HTTPException(404, f"there is no link {stored!r}") from missing
        return {"removed": stored}

    # HEAD as well, for link checkers and chat previews.
    @app.api_route("/{name}", methods=["GET", "HEAD"])
    @app.api_route("/go/{name}", methods=["GET", "HEAD"])
    def follow(name: str) -> RedirectResponse:
        target = links.get(check_name(name))
        if target is None:
            raise HTTPException(404, f"there is no link {name!r}")
        # Not 301: browsers cache it, and a link may change.
        return RedirectResponse(target, status_code=307)

    return app
