"""The ESC half of the API, and the names of environments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.engine.cloud_client import ENVIRONMENTS, CloudClient, segment
from lab.engine.failures import UsageError

DURATION = "2h0m0s"
_ROOT = "/api/esc/environments"
_WRONG_NAME = "environment names are [<org-name>/][<project-name>/]<environment-name>[@<version>]"


@dataclass(frozen=True)
class EnvironmentName:
    """``version`` is a revision number or a tag, "" for the latest."""

    organization: str
    project: str
    name: str
    version: str = ""

    @property
    def qualified(self) -> str:
        return f"{self.organization}/{self.project}/{self.name}"

    @property
    def path(self) -> str:
        """Of the environment itself, whatever the version."""
        return "/".join([_ROOT, *(segment(part) for part in (self.organization, self.project, self.name))])

    @property
    def versioned_path(self) -> str:
        return f"{self.path}/versions/{segment(self.version)}" if self.version else self.path


def read_name(text: str, organization: str) -> EnvironmentName:
    """One part is an environment of the project ``default``, two are project and environment."""
    bare, _, version = text.partition("@")
    if not version:
        # ":tag" is the older way to name a version.
        bare, _, version = bare.partition(":")
    parts = bare.split("/")
    if not all(parts) or len(parts) > 3:
        raise UsageError(f"invalid environment name '{text}': {_WRONG_NAME}")
    project = parts[-2] if len(parts) > 1 else "default"
    return EnvironmentName(parts[0] if len(parts) == 3 else organization, project, parts[-1], version)


@dataclass(frozen=True)
class Definition:
    """A stored definition: YAML, the ETag to change it with, and its revision."""

    yaml: str
    etag: str
    revision: int


class EscClient:
    """Failures are ``CloudError``; those of an evaluation have ``diagnostics`` in their body."""

    def __init__(self, client: CloudClient, organization: str) -> None:
        self._client = client.accepting(ENVIRONMENTS)
        self.organization = organization

    def environments(self, organization: str = "") -> list[dict[str, Any]]:
        """Entries with organization, project and name."""
        path = f"{_ROOT}/{segment(organization)}" if organization else _ROOT
        query: dict[str, str] = {}
        found: list[dict[str, Any]] = []
        while True:
            answer = self._client.json("GET", path, query=query)
            found += answer.get("environments") or []
            if not answer.get("nextToken"):
                return found
            query = {"continuationToken": answer["nextToken"]}

    def create(self, name: EnvironmentName) -> None:
        body = {"project": name.project, "name": name.name}
        self._client.call("POST", f"{_ROOT}/{segment(name.organization)}", content=body)

    def definition(self, name: EnvironmentName, *, in_clear: bool = False) -> Definition:
        reply = self._client.call("GET", name.versioned_path + ("/decrypt" if in_clear else ""))
        revision = reply.headers.get("pulumi-esc-revision", "0")
        return Definition(reply.text, reply.headers.get("etag", ""), int(revision) if revision.isdigit() else 0)

    def update(self, name: EnvironmentName, yaml: str, etag: str = "") -> tuple[int, list[dict[str, Any]]]:
        """The new revision and its warnings. With ``etag`` only if nobody else has changed it."""
        reply = self._client.call("PATCH", name.path, text=yaml, headers={"ETag": etag} if etag else None)
        revision = reply.headers.get("pulumi-esc-revision", "0")
        body = reply.content if isinstance(reply.content, dict) else {}
        return int(revision) if revision.isdigit() else 0, list(body.get("diagnostics") or ())

    def delete(self, name: EnvironmentName) -> None:
        self._client.call("DELETE", name.path)

    def open(self, name: EnvironmentName, duration: str = DURATION) -> dict[str, Any]:
        """The evaluated environment, secrets in clear."""
        opened = self._client.json("POST", f"{name.versioned_path}/open", query={"duration": duration})
        return dict(self._client.json("GET", f"{name.path}/open/{segment(opened['id'])}"))

    def check(self, yaml: str, *, show_secrets: bool = False) -> dict[str, Any]:
        """What a definition gives without opening anything."""
        query = {"showSecrets": "true" if show_secrets else "false"}
        path = f"{_ROOT}/{segment(self.organization)}/yaml/check"
        return dict(self._client.json("POST", path, query=query, text=yaml) or {})

    def open_definition(self, yaml: str) -> dict[str, Any]:
        path = f"{_ROOT}/{segment(self.organization)}/yaml/open"
        opened = self._client.json("POST", path, query={"duration": DURATION}, text=yaml)
        return dict(self._client.json("GET", f"{path}/{segment(opened['id'])}"))

    def revisions(self, name: EnvironmentName) -> list[dict[str, Any]]:
        """Newest first."""
        answer = self._client.json("GET", f"{name.path}/versions")
        return list(answer or ())

    def revision_tags(self, name: EnvironmentName) -> list[dict[str, Any]]:
        answer = self._client.json("GET", f"{name.path}/versions/tags")
        return list((answer or {}).get("tags") or ())

    def tag_revision(self, name: EnvironmentName, tag: str, revision: int) -> None:
        """Makes the tag, or moves it."""
        known = {one.get("name") for one in self.revision_tags(name)}
        body: dict[str, Any] = {"revision": revision}
        if tag in known:
            self._client.call("PATCH", f"{name.path}/versions/tags/{segment(tag)}", content=body)
        else:
            self._client.call("POST", f"{name.path}/versions/tags", content={"name": tag, **body})

    def drop_revision_tag(self, name: EnvironmentName, tag: str) -> None:
        self._client.call("DELETE", f"{name.path}/versions/tags/{segment(tag)}")


def imports(environments: Any) -> str:
    """The definition that a stack's ``environment:`` stands for; JSON is YAML too."""
    content: Mapping[str, Any] = environments if isinstance(environments, dict) else {"imports": list(environments)}
    return json.dumps(content)
