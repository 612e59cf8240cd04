"""Serves the API of one folder over HTTP on loopback: checks the caller, finds the route, sends its answer.

`serve_in_thread` starts it in a test.
"""

from __future__ import annotations

import hmac
import http
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, unquote, urlsplit

from lab import toolchain
from lab.cloud import files, keys
from lab.cloud.environment_store import EnvironmentStore
from lab.cloud.environments import Environments
from lab.cloud.evaluator import Evaluator, Unanswerable
from lab.cloud.revisions import Revisions
from lab.cloud.stack_store import StackStore
from lab.cloud.stacks import Stacks
from lab.cloud.updates import Updates
from lab.cloud.wire import BODY_LIMIT, ORGANIZATION, USER, Answer, ApiError, Json, Request, Route, inflate
from lab.platform.ports import LOOPBACK
from runbooks.core.errors import OpsError
from runbooks.core.files import try_lock

IDLE = 120.0
"""Seconds after which a silent connection is closed; clients open another."""

HEALTH = "/healthz"
"""The path that answers 200 to every caller, if the server runs."""


@dataclass(frozen=True)
class Api:
    """The whole API of one folder: state, evaluator and routes, without a socket."""

    token: str = field(repr=False)
    routes: tuple[Route, ...]
    evaluator: Evaluator

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Find the most literal route that fits a call, and the names in its path; None without a route."""
        # The vendor's Python client writes `open//<id>`.
        path = re.sub("/+", "/", path).rstrip("/")
        found = ((route, route.match(path)) for route in self.routes if route.method == method)
        return next(((route, params) for route, params in found if params is not None), None)


def account_routes() -> list[Route]:
    """The routes that the CLI calls first: one user, one organization."""
    organization = {"githubLogin": ORGANIZATION, "name": ORGANIZATION}
    user = {"id": "1", "githubLogin": USER, "name": USER, "email": f"{USER}@localhost", "organizations": [organization]}

    def answer_with(content: Json) -> Callable[[Request], Answer]:
        return lambda _request: Answer(content=content)

    return [
        Route("GET", "/api/user", answer_with(user)),
        Route("GET", "/api/user/organizations/default", answer_with({"gitHubLogin": ORGANIZATION})),
        # No capability: the CLI then sends whole checkpoints and no journal, and starts an update in two calls.
        Route("GET", "/api/capabilities", answer_with({"capabilities": []})),
    ]


def build(folder: Path, find_evaluator: Callable[[], Path]) -> Api:
    """Build the API on the state below `folder`, made when missing; the evaluator starts at its first use."""
    own = keys.ensure(folder)
    stacks = Stacks(StackStore(folder / "stacks"), own.stacks)
    store = EnvironmentStore(folder / "environments")

    def definition(name: str) -> str:
        try:
            return store.read_import(name)
        except ApiError as error:
            raise Unanswerable(f'environment "{name}" not found') from error

    evaluator = Evaluator(find_evaluator, own.environments, definition, stacks.outputs)
    services = (stacks, Updates(stacks.store, own), Environments(store, evaluator), Revisions(store))
    found = [*account_routes(), *(route for service in services for route in service.routes())]
    # `versions/tags` before `versions/{version}`.
    found.sort(key=lambda route: [segment.startswith("{") for segment in route.pattern.split("/")])
    return Api(own.token, tuple(found), evaluator)


class Server(ThreadingHTTPServer):
    """An HTTP server with one thread for each connection."""

    daemon_threads = True
    # A client that opens many connections at once (fourteen previews) must not be turned away.
    request_queue_size = 64

    def __init__(self, port: int, api: Api) -> None:
        super().__init__((LOOPBACK, port), Handler)
        self.api = api
        own = self.server_address[1]
        self.hosts = {f"{LOOPBACK}:{own}", f"localhost:{own}"}

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Log a bug. A connection that the client broke is not one."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            log(_traceback(error))


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE
    wbufsize = -1  # an answer leaves in one piece, and at once
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        try:
            answer = self._answer()
        except ApiError as error:
            answer = Answer(status=error.status, content=error.content)
        except Exception as error:  # noqa: BLE001 (a bug here is an answer too, and a line in the log)
            log(f"{self.command} {shorten(self.path)}: {_traceback(error)}")
            answer = Answer(status=500, content={"code": 500, "message": "Internal Server Error: see cloud.log"})
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

    def _answer(self) -> Answer:
        # Until the body is read: what follows a refused head is that body, not the next request.
        keep, self.close_connection = self.close_connection, True
        if self.headers.get("Host", "") not in self.server.hosts:
            raise ApiError(421, "this server answers to its own address only")
        parts = urlsplit(self.path)
        if (self.command, parts.path) == ("GET", HEALTH):
            return Answer(content={"status": "ok"})
        found = self.server.api.find(self.command, unquote(parts.path))
        token = self._authorize(found is not None and found[0].inside_update)
        body = self._body()
        self.close_connection = keep
        if found is None:
            log(f"{self.command} {shorten(parts.path)}: no such route")
            raise ApiError(404, "no such route in the lab's cloud")
        route, params = found
        if params.get("organization", ORGANIZATION) != ORGANIZATION:
            raise ApiError(404, f"organization '{params['organization']}' not found")
        request = Request(
            path=parts.path,
            params=params,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            update_token=token,
        )
        return route.answer(request)

    def _authorize(self, inside_update: bool) -> str:
        """Check the token: an update's where the route requires one, else the account's. Raises `ApiError` 401."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if inside_update and scheme == "update-token" and token:
            return token
        is_account = scheme == "token" and hmac.compare_digest(token.encode(), self.server.api.token.encode())
        if inside_update or not is_account:
            raise ApiError(401, "No credentials provided or are invalid.")
        return ""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            raise ApiError(411, "a chunked body is not accepted")
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal():
            raise ApiError(400, "Content-Length is not a number")
        if int(length) > BODY_LIMIT:
            raise ApiError(413, f"more than {BODY_LIMIT} bytes")
        return inflate(self.rfile.read(int(length)), self.headers.get("Content-Encoding", "").lower())

    def _send(self, answer: Answer) -> None:
        body, kind = answer.body()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if kind:
            self.send_header("Content-Type", kind)
        if answer.status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "lab-cloud"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: a request line has a query, which may hold a secret."""


def shorten(path: str) -> str:
    """A path as the log may show it: without query and control characters, 200 characters at most."""
    return repr(path.partition("?")[0][:200])


def _traceback(error: BaseException) -> str:
    """The traceback of a bug without its message, which may quote a value."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}".rstrip()


def log(text: str) -> None:
    """Write a line to `cloud.log`."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S")
    print(f"{moment} {text}", file=sys.stderr, flush=True)  # noqa: T201


@dataclass
class Cloud:
    """A running server with the lock of its folder: only one process at a time may serve it."""

    folder: Path
    server: Server
    _lock: IO[bytes] = field(repr=False)

    @classmethod
    def open(cls, folder: Path, port: int, find_evaluator: Callable[[], Path]) -> Cloud:
        """Listen on `port` (0: any free one), without serving yet. Raises `OpsError` if the folder is in use."""
        files.make_private(folder)
        lock = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        if not try_lock(lock):
            lock.close()
            raise OpsError(
                f"another process serves the cloud in {folder}",
                expected="one server for a folder",
                next_step=f"fuser {folder / 'lock'}   (who it is)",
            )
        return cls(folder, Server(port, build(folder, find_evaluator)), lock)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server.server_address[1]}"

    @property
    def token(self) -> str:
        return self.server.api.token

    def serve(self) -> None:
        """Serve until another thread calls `stop`."""
        try:
            self.server.serve_forever(poll_interval=0.1)
        finally:
            self.server.server_close()
            self.server.api.evaluator.stop()
            self._lock.close()

    def stop(self) -> None:
        self.server.shutdown()


def serve_in_thread(folder: Path, port: int = 0) -> Cloud:
    """Serve `folder` from a thread of this process, for tests; the evaluator is built when it is missing (a minute)."""
    cloud = Cloud.open(folder, port, lambda: toolchain.resolve(log, ["esc-evaluator"])["esc-evaluator"].program)
    threading.Thread(target=cloud.serve, name="cloud", daemon=True).start()
    return cloud
