"""The go links themselves: names, targets, and a web app over any mapping that keeps them.

Nothing here knows Modal: `golink.py` hands in a `modal.Dict`, the tests a plain dictionary.
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
"""A link's name as it is typed after `go/`: lower case, at most 64 characters, no slash."""
TAKEN = frozenset({"healthz"})
"""Paths of the app itself, which a link of that name would never be reached by."""


class Links(Protocol):
    """What keeps the links, name to target: the part of a mapping that `dict` and `modal.Dict` share."""

    def get(self, key: str, /) -> str | None: ...
    def __setitem__(self, key: str, value: str, /) -> None: ...
    def pop(self, key: str, /) -> str: ...
    def items(self) -> Iterable[tuple[str, str]]: ...


class Link(BaseModel):
    """The body of a request that adds or changes a link."""

    target: str


def checked_name(name: str) -> str:
    """The name as it is stored.

    Raises:
        HTTPException: 422 when it is not a name; the answer says what one looks like.
    """
    lowered = name.strip().lower()
    if not NAME.fullmatch(lowered):
        raise HTTPException(
            422, f"{name!r} is no link name: use letters, digits, '.', '_' and '-', at most 64, no slash"
        )
    return lowered


def new_name(name: str) -> str:
    """The name of a link that is to be added, as it is stored.

    Raises:
        HTTPException: 422 when it is not a name, or one that the app itself answers to.
    """
    stored = checked_name(name)
    if stored in TAKEN:
        raise HTTPException(422, f"{name!r} can be no link name: the app itself answers there")
    return stored


def checked_target(target: str) -> str:
    """The target as it is stored: an absolute http(s) URL, so that a link can never run a script in the browser.

    Raises:
        HTTPException: 422 otherwise.
    """
    try:
        parts = urlsplit(target)
        _ = parts.port, target.encode()  # each raises where it is none
    except ValueError as broken:
        raise HTTPException(422, f"{target!r} is no URL: {broken}") from broken
    if parts.scheme not in ("http", "https") or not parts.hostname or any(ord(character) < 33 for character in target):
        raise HTTPException(422, f"{target!r} is no target: it must be a full URL that begins with http:// or https://")
    return target


def read_each(links: Links) -> int:
    """Read every link by its name, and say how many there are. A list of them might not count as reading them."""
    names = [name for name, _ in links.items()]
    return sum(links.get(name) is not None for name in names)


def token_check(expected: str) -> Callable[[str], None]:
    """A dependency that lets a request pass only with `Authorization: Bearer <expected>`."""
    if not expected:
        raise ValueError("an empty token would let everybody in")

    def check(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {expected}".encode()):
            raise HTTPException(401, "a token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})

    return check


def build_app(links: Links, token: str) -> FastAPI:
    """The web app: anyone may follow a link, only the holder of the token may list, add or remove one."""
    app = FastAPI(title="golink", docs_url=None, redoc_url=None, openapi_url=None)
    owner = [Depends(token_check(token))]

    @app.exception_handler(RequestValidationError)
    def not_a_link(_request: Request, _error: RequestValidationError) -> JSONResponse:
        # FastAPI's own answer repeats the body, which can be a text that no answer can hold.
        return JSONResponse({"detail": 'the body is no link: it must be JSON like {"target": "https://…"}'}, 422)

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
        links[stored] = checked_target(link.target)
        return JSONResponse({"name": stored, "target": link.target}, status_code=201 if is_new else 200)

    @app.delete("/api/links/{name}", dependencies=owner)
    def remove_link(name: str) -> dict[str, str]:
        stored = checked_name(name)
        try:
            links.pop(stored)
        except KeyError as missing:
            raise HTTPException(404, f"there is no link {stored!r}") from missing
        return {"removed": stored}

    # HEAD as well: link checkers and previews of chats ask so.
    @app.api_route("/{name}", methods=["GET", "HEAD"])
    @app.api_route("/go/{name}", methods=["GET", "HEAD"])
    def follow(name: str) -> RedirectResponse:
        target = links.get(checked_name(name))
        if target is None:
            raise HTTPException(404, f"there is no link {name!r}")
        # 307 and not 301: browsers keep a 301, and a link may change.
        return RedirectResponse(target, status_code=307)

    return app
