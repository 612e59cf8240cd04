"""ESC environments on disk: `environments/<project>/<name>/` with `environment.json` and `revisions/<n>.yaml`.

The definitions are as their clients sent them, with static secrets encrypted.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.cloud import files
from lab.cloud.wire import ApiError, Json, is_name
from lab.platform.paths import write_private

LATEST = "latest"
DEFAULT_PROJECT = "default"
"""The project of names in `imports` that have only one part."""


@dataclass
class Environment:
    """The content of `environment.json`. Revisions count from 1, which exists from the environment's creation."""

    project: str
    name: str
    created: str
    modified: str
    revisions: list[Json] = field(default_factory=list)
    """`{number, created, etag}`, oldest first."""
    revision_tags: dict[str, Json] = field(default_factory=dict)
    """`{revision, created, modified}` by name; `latest` is not among them."""
    tags: dict[str, Json] = field(default_factory=dict)
    """`{value, created, modified}` by name."""

    @property
    def full_name(self) -> str:
        return f"{self.project}/{self.name}"

    @property
    def latest(self) -> int:
        return len(self.revisions)

    def etag(self, revision: int) -> str:
        return str(self.revisions[revision - 1]["etag"])

    def resolve(self, version: str) -> int:
        """The number of the revision that a number or a revision tag names; raises `ApiError` 404."""
        if version == LATEST:
            return self.latest
        if version.isdecimal() and 1 <= int(version) <= self.latest:
            return int(version)
        if version in self.revision_tags:
            return int(self.revision_tags[version]["revision"])
        raise ApiError(404, f"revision '{version}' of environment '{self.full_name}' not found")


def now() -> str:
    """The current time in the API's format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class EnvironmentStore:
    """Reads and writes environments. Callers hold `lock` while they call a method that changes one."""

    root: Path
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        files.make_private(self.root)
        files.clear_removed(self.root)

    @contextlib.contextmanager
    def lock(self, project: str, name: str) -> Iterator[Environment]:
        """The environment, with no other request changing it. Raises `ApiError` 404."""
        with self._lock:
            yield self.load(project, name)

    def load(self, project: str, name: str) -> Environment:
        """Raises `ApiError` 404."""
        stored = None
        if is_name(project) and is_name(name):
            stored = files.read_json(self.root / project / name / "environment.json")
        if stored is None:
            raise ApiError(404, f"environment '{project}/{name}' not found")
        return Environment(**stored)

    def create(self, project: str, name: str, definitions: Sequence[str] = ("",)) -> Environment:
        """Create an environment with a revision for each definition. Raises `ApiError` 409 if the name exists."""
        moment = now()
        environment = Environment(project=project, name=name, created=moment, modified=moment)
        with self._lock:
            if (self._folder(environment) / "environment.json").exists():
                raise ApiError(409, "environment already exists")
            files.make_private(self._folder(environment) / "revisions")
            for definition in definitions:
                self.add_revision(environment, definition)
        return environment

    def add_revision(self, environment: Environment, definition: str) -> int:
        """Add a revision with this definition and return its number. The text is written before anything names it."""
        number = environment.latest + 1
        write_private(self._revision_file(environment, number), definition)
        etag = hashlib.sha256(f"{number}\n{definition}".encode()).hexdigest()[:16]
        environment.modified = now()
        environment.revisions.append({"number": number, "created": environment.modified, "etag": etag})
        self.save(environment)
        return number

    def save(self, environment: Environment) -> None:
        files.write_json(self._folder(environment) / "environment.json", asdict(environment))

    def definition(self, environment: Environment, revision: int) -> str:
        return self._revision_file(environment, revision).read_text("utf-8")

    def remove(self, environment: Environment) -> None:
        files.remove(self._folder(environment))

    def all(self) -> list[Environment]:
        found = []
        for project, name in files.entries(self.root):
            # Removed meanwhile, or a creation that a crash interrupted.
            with contextlib.suppress(ApiError):
                found.append(self.load(project, name))
        return found

    def read_import(self, name: str) -> str:
        """Read the definition that an entry of `imports` names: `[project/]name[@version]`; raises `ApiError` 404."""
        path, _, version = name.partition("@")
        project, _, short = path.rpartition("/")
        environment = self.load(project or DEFAULT_PROJECT, short)
        return self.definition(environment, environment.resolve(version or LATEST))

    def _folder(self, environment: Environment) -> Path:
        return self.root / environment.project / environment.name

    def _revision_file(self, environment: Environment, revision: int) -> Path:
        return self._folder(environment) / "revisions" / f"{revision}.yaml"
