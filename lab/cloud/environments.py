"""Routes of ESC: environments with revisions and ETags, evaluated by the vendor's evaluator, and what was opened."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from lab.cloud.environment_store import LATEST, Environment, EnvironmentStore
from lab.cloud.evaluator import ANONYMOUS, Evaluator
from lab.cloud.wire import DONE, ORGANIZATION, Answer, ApiError, Json, Request, Route, check_name
from runbooks.core.errors import Usage
from runbooks.tools.esc import read_path

E = "/api/esc/environments"
O = f"{E}/{{organization}}"  # noqa: E741
N = f"{O}/{{project}}/{{environment}}"

LONGEST = 24 * 3600.0
REMEMBERED = 200
"""The most sessions that are kept; the oldest are forgotten first."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class _Session:
    of: str
    environment: Json = field(repr=False)
    until: float


@dataclass
class Opened:
    """The sessions of `open` and `yaml/open`."""

    _sessions: dict[str, _Session] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, of: str, environment: Json, seconds: float) -> str:
        """Add a session and return its id; `of` is the environment's name, or `<yaml>` for one without a name."""
        session = str(uuid.uuid4())
        with self._lock:
            living = {name: one for name, one in self._sessions.items() if one.until > time.monotonic()}
            living[session] = _Session(of, environment, time.monotonic() + min(seconds, LONGEST))
            self._sessions = dict(list(living.items())[-REMEMBERED:])  # a dict keeps the order of insertion
        return session

    def get(self, of: str, session: str) -> Json:
        """The session's values; raises `ApiError` 404 if it is over or belongs to another environment."""
        found = self._sessions.get(session)
        if found is None or found.of != of or found.until < time.monotonic():
            raise ApiError(404, "open environment not found: it has expired, or the cloud was restarted")
        return found.environment


@dataclass(frozen=True)
class Environments:
    """The routes of environments; there is one organization."""

    store: EnvironmentStore
    evaluator: Evaluator
    opened: Opened = field(default_factory=Opened)

    def routes(self) -> list[Route]:
        return [
            Route("GET", E, self.index),
            Route("GET", O, self.index),
            Route("POST", O, self.create),
            # `yaml` stands where a project would.
            Route("POST", O + "/yaml/check", self.check),
            Route("POST", O + "/yaml/open", self.open),
            Route("GET", O + "/yaml/open/{session}", self.read),
            Route("GET", N, self.get),
            Route("PATCH", N, self.update),
            Route("DELETE", N, self.delete),
            Route("POST", N + "/clone", self.clone),
            Route("GET", N + "/decrypt", self.decrypt),
            Route("POST", N + "/open", self.open),
            Route("GET", N + "/open/{session}", self.read),
            Route("GET", N + "/versions/{version}", self.get),
            Route("GET", N + "/versions/{version}/decrypt", self.decrypt),
            Route("POST", N + "/versions/{version}/open", self.open),
        ]

    def index(self, _request: Request) -> Answer:
        keys = ("project", "name", "created", "modified")
        environments = [
            {"organization": ORGANIZATION} | {key: getattr(environment, key) for key in keys}
            for environment in self.store.all()
        ]
        return Answer(content={"environments": environments, "nextToken": ""})

    def create(self, request: Request) -> Answer:
        """Create an empty environment, as revision 1."""
        body = request.json()
        project = check_name("project name", body.get("project", "default"))
        self.store.create(project, check_name("environment name", body.get("name")))
        return Answer(content={})

    def clone(self, request: Request) -> Answer:
        """Copy the definition to another name, with history and tags if the request asks for them."""
        environment, revision = self.find(request)
        body = request.json()
        project = check_name("project name", body.get("project") or environment.project)
        name = check_name("environment name", body.get("name"))
        with self.store.lock(environment.project, environment.name) as source:
            revisions = source.revisions if body.get("preserveHistory") else source.revisions[revision - 1 :]
            definitions = [self.store.definition(source, one["number"]) for one in revisions]
            clone = self.store.create(project, name, definitions)
            if body.get("preserveHistory") and body.get("preserveRevisionTags"):
                clone.revision_tags = source.revision_tags
            if body.get("preserveEnvironmentTags"):
                clone.tags = source.tags
            self.store.save(clone)
        return Answer(content={})

    def get(self, request: Request) -> Answer:
        """Return the definition as it is stored, with secrets as ciphertext."""
        environment, revision = self.find(request)
        return Answer(text=self.store.definition(environment, revision), headers=_headers(environment, revision))

    def decrypt(self, request: Request) -> Answer:
        environment, revision = self.find(request)
        stored = self.store.definition(environment, revision)
        definition = self.evaluator.rewrite("decrypt", environment.full_name, stored)
        return Answer(text=definition, headers=_headers(environment, revision))

    def update(self, request: Request) -> Answer:
        """Add a revision. The body is YAML, whatever its content type says.

        `If-Match`, or `ETag` as older clients call it, must name the latest revision where it is given.
        """
        environment, _ = self.find(request)
        etag = request.headers.get("if-match") or request.headers.get("etag", "")
        _refuse_other(etag, environment)
        definition = request.text()
        verdict = self.evaluator.check(environment.full_name, definition)
        found = verdict.get("diagnostics", [])
        if has_errors(found):
            raise ApiError(400, "invalid environment", diagnostics=found)
        encrypted = self.evaluator.rewrite("encrypt", environment.full_name, definition)
        with self.store.lock(environment.project, environment.name) as held:
            _refuse_other(etag, held)
            revision = self.store.add_revision(held, encrypted)
        content = {"diagnostics": found} if found else {}
        return Answer(content=content, headers=_headers(held, revision))

    def delete(self, request: Request) -> Answer:
        environment, _ = self.find(request)
        with self.store.lock(environment.project, environment.name) as held:
            self.store.remove(held)
        return DONE

    def check(self, request: Request) -> Answer:
        """Evaluate a definition without opening its providers; with errors, the answer is a 400 of the same content."""
        show = request.query.get("showSecrets") == "true"
        verdict = self.evaluator.check(ANONYMOUS, request.text(), show_secrets=show)
        found = verdict.get("diagnostics", [])
        content = dict(verdict.get("environment") or {})
        if found:
            content["diagnostics"] = found
        if has_errors(found):
            return _refuse(content)
        return Answer(content=content)

    def open(self, request: Request) -> Answer:
        """Open an environment or, without a name in the path, the definition in the body.

        The `environment:` list of a stack arrives as the imports of such a definition.
        """
        if "project" in request.params:
            environment, revision = self.find(request)
            return self._open(environment.full_name, self.store.definition(environment, revision), request)
        return self._open(ANONYMOUS, request.text(), request)

    def _open(self, name: str, definition: str, request: Request) -> Answer:
        seconds = read_duration(request.query.get("duration", ""))
        overrides = read_overrides(request.query.get("environmentOverrides", ""))
        evaluated = self.evaluator.open(name, definition, overrides)
        found = evaluated.get("diagnostics", [])
        if has_errors(found):
            return _refuse({"diagnostics": found})
        content: Json = {"id": self.opened.add(name, evaluated.get("environment") or {}, seconds)}
        return Answer(content={**content, "diagnostics": found} if found else content)

    def read(self, request: Request) -> Answer:
        name = self.find(request)[0].full_name if "project" in request.params else ANONYMOUS
        opened = self.opened.get(name, request.params["session"])
        if "property" in request.query:
            return Answer(content=value_at(opened, request.query["property"]))
        return Answer(content=opened)

    def find(self, request: Request) -> tuple[Environment, int]:
        """Find the environment and the revision that the path names; raises `ApiError` 404."""
        environment = self.store.load(request.params["project"], request.params["environment"])
        return environment, environment.resolve(request.params.get("version", LATEST))


def read_overrides(text: str) -> dict[str, str]:
    """Read `{name: other}`, JSON in base64, of `pulumi up --override-env NAME=OTHER`. Raises `ApiError` 400."""
    try:
        overrides = json.loads(base64.urlsafe_b64decode(text + "==") or "{}")
    except ValueError:
        overrides = None
    if not isinstance(overrides, dict) or not all(isinstance(name, str) for name in overrides.values()):
        raise ApiError(400, "environmentOverrides is not an object of environments' names in base64")
    return overrides


def _refuse(content: Json) -> Answer:
    # The clients look for the code before they read the diagnostics.
    return Answer(status=400, content={"code": 400, "message": "evaluation failed", **content})


def has_errors(diagnostics: list[Json]) -> bool:
    """Whether a diagnostic is an error; one without a severity is."""
    return any(diagnostic.get("severity", "error") == "error" for diagnostic in diagnostics)


def _refuse_other(etag: str, environment: Environment) -> None:
    if etag and etag != environment.etag(environment.latest):
        raise ApiError(409, "the environment was changed since it was read")


def _headers(environment: Environment, revision: int) -> dict[str, str]:
    return {"ETag": environment.etag(revision), "Pulumi-ESC-Revision": str(revision)}


def read_duration(text: str) -> float:
    """The seconds of a duration as Go writes it (`2h0m0s`); two hours when empty. Raises `ApiError` 400."""
    if not text:
        return 2 * 3600.0
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ApiError(400, f"invalid duration {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in found)


def value_at(environment: Json, path: str) -> Json:
    """The ESC value at a path. Raises `ApiError` 400 or 404."""
    value: Json = {"value": environment.get("properties") or {}}
    try:
        steps = read_path(path) if path else ()
    except Usage as error:
        raise ApiError(400, f"invalid property path {path!r}") from error
    for step in steps:
        inner: Any = value.get("value")
        keys = range(len(inner)) if isinstance(inner, list) else inner if isinstance(inner, dict) else ()
        if step not in keys:
            raise ApiError(404, f"property {path!r} not found")
        value = inner[step]
    return value
