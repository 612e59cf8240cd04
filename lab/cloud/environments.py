"""Routes of ESC: environments with revisions and ETags, evaluated by the vendor's evaluator."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from lab.cloud.environment_store import LATEST, Environment, EnvironmentStore
from lab.cloud.evaluator import ANONYMOUS, Evaluator
from lab.cloud.opened import Opened, read_duration, value_at
from lab.cloud.wire import (
    DONE,
    ORGANIZATION,
    Answer,
    ApiError,
    Json,
    Request,
    Route,
    bad_request,
    check_name,
    conflict,
)

E = "/api/esc/environments"
O = f"{E}/{{organization}}"  # noqa: E741
N = f"{O}/{{project}}/{{environment}}"


@dataclass(frozen=True)
class Environments:
    """The environments of the one organization."""

    store: EnvironmentStore
    evaluator: Evaluator
    opened: Opened = field(default_factory=Opened)

    def routes(self) -> list[Route]:
        def one(method: str, path: str, answer: Any) -> Route:
            return Route(method=method, pattern=f"{N}{path}", answer=answer)

        return [
            Route(method="GET", pattern=E, answer=self.index),
            Route(method="GET", pattern=O, answer=self.index),
            Route(method="POST", pattern=O, answer=self.create),
            # `yaml` stands where a project would.
            Route(method="POST", pattern=f"{O}/yaml/check", answer=self.check),
            Route(method="POST", pattern=f"{O}/yaml/open", answer=self.open),
            Route(method="GET", pattern=f"{O}/yaml/open/{{session}}", answer=self.read),
            one("GET", "", self.get),
            one("PATCH", "", self.update),
            one("DELETE", "", self.delete),
            one("POST", "/clone", self.clone),
            one("GET", "/decrypt", self.decrypt),
            one("POST", "/open", self.open),
            one("GET", "/open/{session}", self.read),
            one("GET", "/versions/{version}", self.get),
            one("GET", "/versions/{version}/decrypt", self.decrypt),
            one("POST", "/versions/{version}/open", self.open),
        ]

    def index(self, _request: Request) -> Answer:
        environments = [
            {
                "organization": ORGANIZATION,
                "project": environment.project,
                "name": environment.name,
                "created": environment.created,
                "modified": environment.modified,
            }
            for environment in self.store.all()
        ]
        return Answer(content={"environments": environments, "nextToken": ""})

    def create(self, request: Request) -> Answer:
        """Empty, as revision 1."""
        body = request.json()
        self.store.create(
            check_name("project name", body.get("project", "default")), check_name("environment name", body.get("name"))
        )
        return Answer(content={})

    def clone(self, request: Request) -> Answer:
        """The definition under another name; history and tags too where the request asks for them."""
        environment, revision = self.find(request)
        body = request.json()
        project = check_name("project name", body.get("project") or environment.project)
        name = check_name("environment name", body.get("name"))
        with self.store.holding(environment.project, environment.name) as source:
            revisions = source.revisions if body.get("preserveHistory") else source.revisions[revision - 1 :]
            clone = self.store.create(
                project, name, [self.store.definition(source, one["number"]) for one in revisions]
            )
            if body.get("preserveHistory") and body.get("preserveRevisionTags"):
                clone.revision_tags = source.revision_tags
            if body.get("preserveEnvironmentTags"):
                clone.tags = source.tags
            self.store.save(clone)
        return Answer(content={})

    def get(self, request: Request) -> Answer:
        """The definition as it is stored: secrets as ciphertext."""
        environment, revision = self.find(request)
        return _definition(environment, revision, self.store.definition(environment, revision))

    def decrypt(self, request: Request) -> Answer:
        environment, revision = self.find(request)
        stored = self.store.definition(environment, revision)
        return _definition(environment, revision, self.evaluator.decrypt(environment.full_name, stored))

    def update(self, request: Request) -> Answer:
        """A new revision. The body is YAML, whatever its type is.

        `If-Match`, or `ETag` as older clients call it, must name the latest revision where it is given.
        """
        environment, _ = self.find(request)
        etag = request.headers.get("if-match") or request.headers.get("etag", "")
        _refuse_other(etag, environment)
        definition = request.text()
        verdict = self.evaluator.check(environment.full_name, definition)
        found = verdict.get("diagnostics", [])
        if has_errors(found):
            raise bad_request("invalid environment", diagnostics=found)
        encrypted = self.evaluator.encrypt(environment.full_name, definition)
        with self.store.holding(environment.project, environment.name) as held:
            _refuse_other(etag, held)
            revision = self.store.add_revision(held, encrypted)
        content = {"diagnostics": found} if found else {}
        return Answer(content=content, headers=_headers(held, revision))

    def delete(self, request: Request) -> Answer:
        environment, _ = self.find(request)
        with self.store.holding(environment.project, environment.name) as held:
            self.store.remove(held)
        return DONE

    def check(self, request: Request) -> Answer:
        """What a definition would give, without opening anything; errors make it a 400 with the same content."""
        show = request.query.get("showSecrets") == "true"
        verdict = self.evaluator.check(ANONYMOUS, request.text(), show_secrets=show)
        found = verdict.get("diagnostics", [])
        content = dict(verdict.get("environment") or {})
        if found:
            content["diagnostics"] = found
        if has_errors(found):
            # The clients look for the code before they read the diagnostics.
            return Answer(status=400, content={"code": 400, "message": "evaluation failed", **content})
        return Answer(content=content)

    def open(self, request: Request) -> Answer:
        """Without a name in the path, a definition that is only sent along.

        The `environment:` list of a stack arrives as the imports of such a one.
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
            raise ApiError(400, "evaluation failed", diagnostics=found)
        content: Json = {"id": self.opened.add(name, evaluated.get("environment") or {}, seconds)}
        return Answer(content={**content, "diagnostics": found} if found else content)

    def read(self, request: Request) -> Answer:
        name = self.find(request)[0].full_name if "project" in request.params else ANONYMOUS
        opened = self.opened.get(name, request.params["session"])
        if "property" in request.query:
            return Answer(content=value_at(opened, request.query["property"]))
        return Answer(content=opened)

    def find(self, request: Request) -> tuple[Environment, int]:
        """The environment of the path and the revision that is meant; raises `ApiError` 404."""
        environment = self.store.load(request.params["project"], request.params["environment"])
        return environment, environment.resolve(request.params.get("version", LATEST))


def read_overrides(text: str) -> dict[str, str]:
    """What `pulumi up --override-env NAME=OTHER` sends: `{name: other}` as JSON in base64. Raises `ApiError` 400."""
    try:
        overrides = json.loads(base64.urlsafe_b64decode(text + "==") or "{}")
    except ValueError:
        overrides = None
    if not isinstance(overrides, dict) or not all(isinstance(name, str) for name in overrides.values()):
        raise bad_request("environmentOverrides is not an object of environments' names in base64")
    return overrides


def has_errors(diagnostics: list[Json]) -> bool:
    """A diagnostic without a severity is an error."""
    return any(diagnostic.get("severity", "error") == "error" for diagnostic in diagnostics)


def _refuse_other(etag: str, environment: Environment) -> None:
    if etag and etag != environment.etag(environment.latest):
        raise conflict("the environment was changed since it was read")


def _definition(environment: Environment, revision: int, text: str) -> Answer:
    return Answer(text=text, headers=_headers(environment, revision))


def _headers(environment: Environment, revision: int) -> dict[str, str]:
    return {"ETag": environment.etag(revision), "Pulumi-ESC-Revision": str(revision)}
