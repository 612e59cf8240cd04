"""Routes of an environment's revisions, revision tags and tags."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from lab.cloud.environment_store import LATEST, Environment, EnvironmentStore, now
from lab.cloud.environments import N
from lab.cloud.wire import DONE, USER, Answer, ApiError, Json, Request, Route, check_name

_EDITOR: Json = {"editorLogin": USER, "editorName": USER}

NO_MORE = "0"
"""`nextToken` of the last page of tags. The CLI reads pages until it gets this, also after an empty token."""


@dataclass(frozen=True)
class Revisions:
    """Reads revisions; writes only tags."""

    store: EnvironmentStore

    def routes(self) -> list[Route]:
        return [
            Route("GET", N + "/versions", self.index),
            Route("GET", N + "/versions/tags", self.revision_tags),
            Route("POST", N + "/versions/tags", self.name_revision),
            Route("GET", N + "/versions/tags/{tag}", self.revision_tag),
            Route("PATCH", N + "/versions/tags/{tag}", self.move_revision_tag),
            Route("DELETE", N + "/versions/tags/{tag}", self.drop_revision_tag),
            Route("GET", N + "/tags", self.tags),
            Route("POST", N + "/tags", self.add_tag),
            Route("GET", N + "/tags/{tag}", self.tag),
            Route("PATCH", N + "/tags/{tag}", self.change_tag),
            Route("DELETE", N + "/tags/{tag}", self.drop_tag),
        ]

    def index(self, request: Request) -> Answer:
        """List the newest first, those `before` a number, at most `count`."""
        environment = self._load(request)
        before, count = request.number("before"), request.number("count")
        listed = [_revision(environment, one) for one in reversed(environment.revisions)]
        if before:
            listed = [one for one in listed if one["number"] < before]
        return Answer(content=listed[:count] if count else listed)

    def revision_tags(self, request: Request) -> Answer:
        """List by name those after `after`, at most `count`. The CLI reads pages until one is empty."""
        environment = self._load(request)
        after, count = request.query.get("after", ""), request.number("count")
        names = [name for name in sorted((LATEST, *environment.revision_tags)) if name > after]
        listed = [_revision_tag(environment, name) for name in (names[:count] if count else names)]
        return Answer(content={"tags": listed, "nextToken": ""})

    def revision_tag(self, request: Request) -> Answer:
        return Answer(content=_revision_tag(self._load(request), request.params["tag"]))

    def name_revision(self, request: Request) -> Answer:
        body = request.json()
        name = check_name("revision tag", body.get("name"))
        if name == LATEST or name[0].isdecimal():
            raise ApiError(400, f"a revision tag cannot be called {name!r}")
        with self._lock(request) as environment:
            if name in environment.revision_tags:
                raise ApiError(409, "revision tag already exists")
            self._point(environment, name, body.get("revision"))
        return DONE

    def move_revision_tag(self, request: Request) -> Answer:
        with self._lock(request) as environment:
            _own_revision_tag(environment, request)
            self._point(environment, request.params["tag"], request.json().get("revision"))
        return DONE

    def _point(self, environment: Environment, name: str, revision: object) -> None:
        number = environment.latest if revision is None else environment.resolve(str(revision))
        known = environment.revision_tags.get(name, {"created": now()})
        environment.revision_tags[name] = {**known, "revision": number, "modified": now()}
        self.store.save(environment)

    def drop_revision_tag(self, request: Request) -> Answer:
        with self._lock(request) as environment:
            del environment.revision_tags[_own_revision_tag(environment, request)]
            self.store.save(environment)
        return DONE

    def tags(self, request: Request) -> Answer:
        """List all tags; `after` and `count` are ignored."""
        environment = self._load(request)
        found = {name: _tag(environment, name) for name in environment.tags}
        return Answer(content={"tags": found, "nextToken": NO_MORE})

    def tag(self, request: Request) -> Answer:
        return Answer(content=_tag(self._load(request), request.params["tag"]))

    def add_tag(self, request: Request) -> Answer:
        body = request.json()
        name = check_name("tag", body.get("name"))
        with self._lock(request) as environment:
            if name in environment.tags:
                raise ApiError(409, "tag already exists")
            environment.tags[name] = {"value": str(body.get("value", "")), "created": now(), "modified": now()}
            self.store.save(environment)
        return Answer(content=_tag(environment, name))

    def change_tag(self, request: Request) -> Answer:
        """Change value, name or both, if the current value is the one in the request."""
        body = request.json()
        wanted = body.get("newTag") or {}
        with self._lock(request) as environment:
            old = _tag(environment, request.params["tag"])
            if (body.get("currentTag") or {}).get("value") != old["value"]:
                raise ApiError(409, "the tag was changed since it was read")
            name = check_name("tag", wanted.get("name") or old["name"])
            if name != old["name"] and name in environment.tags:
                raise ApiError(409, "tag already exists")
            kept = environment.tags.pop(old["name"])
            environment.tags[name] = {**kept, "value": str(wanted.get("value") or old["value"]), "modified": now()}
            self.store.save(environment)
        return Answer(content=_tag(environment, name))

    def drop_tag(self, request: Request) -> Answer:
        with self._lock(request) as environment:
            del environment.tags[_tag(environment, request.params["tag"])["name"]]
            self.store.save(environment)
        return DONE

    def _load(self, request: Request) -> Environment:
        return self.store.load(request.params["project"], request.params["environment"])

    def _lock(self, request: Request) -> AbstractContextManager[Environment]:
        return self.store.lock(request.params["project"], request.params["environment"])


def _revision(environment: Environment, stored: Json) -> Json:
    number = stored["number"]
    names = [name for name, tag in sorted(environment.revision_tags.items()) if tag["revision"] == number]
    return {
        "number": number,
        "created": stored["created"],
        "creatorLogin": USER,
        "creatorName": USER,
        "tags": [LATEST, *names] if number == environment.latest else names,
    }


def _revision_tag(environment: Environment, name: str) -> Json:
    if name == LATEST:
        times = {"created": environment.created, "modified": environment.modified}
        stored: Json = {"revision": environment.latest, **times}
    elif name in environment.revision_tags:
        stored = environment.revision_tags[name]
    else:
        raise ApiError(404, f"revision tag '{name}' not found")
    return {"name": name, **stored, **_EDITOR}


def _own_revision_tag(environment: Environment, request: Request) -> str:
    name = request.params["tag"]
    if name not in environment.revision_tags:
        raise ApiError(404, f"revision tag '{name}' not found")
    return name


def _tag(environment: Environment, name: str) -> Json:
    if name not in environment.tags:
        raise ApiError(404, f"tag '{name}' not found")
    return {"id": name, "name": name, **environment.tags[name], **_EDITOR}
