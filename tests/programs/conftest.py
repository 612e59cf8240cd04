"""How tests run the Pulumi programs: each run in a process of its own (`record.py`), equal runs once."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.services import find_service

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "pulumi"

if str(PROGRAMS) not in sys.path:
    sys.path.append(str(PROGRAMS))  # as each __main__.py does, for lib

EXPECTED = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "expected").glob("*.yaml"))
}
"""Of each service: see `test_services.py`."""


@dataclass(frozen=True)
class Recording:
    """A program's resources, exports, warnings, and the error that ended it.

    Resources are sorted by type and name, because independent resources register in any order.
    """

    resources: tuple[Mapping[str, Any], ...]
    exports: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]
    error: str | None

    def __getitem__(self, kind_and_name: tuple[str, str]) -> Mapping[str, Any]:
        """The one resource of that kind and logical name."""
        kind, name = kind_and_name
        (found,) = [r for r in self.resources if r["type"].endswith(f":{kind}") and r["name"] == name]
        return found

    def names(self) -> set[tuple[str, str]]:
        return {(resource["type"].rpartition(":")[2], resource["name"]) for resource in self.resources}

    def after(self, kind: str, name: str) -> set[tuple[str, str]]:
        """Return the direct dependencies of that resource, including those through its inputs."""
        return {(kind, name) for kind, name in self[kind, name]["after"]} & self.names()

    def all_before(self, kind: str, name: str) -> set[tuple[str, str]]:
        """Return all dependencies of that resource, direct and indirect."""
        direct = self.after(kind, name)
        return direct.union(*(self.all_before(*key) for key in direct))


class Recorder:
    """The process of `record.py`, which this process asks; equal runs once."""

    def __init__(self, errors: Path) -> None:
        # The SDK's mocks leave event loops open in their threads, and pulumi_postgresql warns of a class of its own
        # when it is imported; every other warning is an error.
        ignored = ("ignore::ResourceWarning", "ignore::DeprecationWarning:pulumi_postgresql.default_privileg")
        python = (sys.executable, "-W", "error", *(word for warning in ignored for word in ("-W", warning)))
        argv = [*python, str(ROOT / "tests/programs/record.py")]
        self.errors, self.known = errors, dict[str, Recording]()
        with errors.open("w") as file:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=file, text=True)

    def record(self, **given: Any) -> Recording:
        request = json.dumps(given)
        if request not in self.known:
            self.known[request] = self._record(request)
        return self.known[request]

    def _record(self, request: str) -> Recording:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        printed = [json.loads(self.process.stdout.readline() or "{}")]
        while printed[-1] and "exit" not in printed[-1]:
            printed.append(json.loads(self.process.stdout.readline() or "{}"))
        assert (printed[-1], self.errors.read_text(encoding="utf-8")) == ({"exit": 0}, "")
        answer, _ = printed
        resources = tuple(sorted(answer["resources"], key=lambda resource: (resource["type"], resource["name"])))
        return Recording(resources, answer["exports"], tuple(answer["warnings"]), answer["error"])

    def stop(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    made = Recorder(tmp_path_factory.mktemp("recorder") / "errors")
    yield made
    made.stop()


@pytest.fixture
def run_program(recorder: Recorder) -> Callable[..., Recording]:
    """Run the program of a folder below `pulumi/` with plain settings and secret ones, as texts.

    `stacks` are the other stacks it may refer to, with their outputs (`record.py`).
    """

    def run(
        folder: str,
        config: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        stacks: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Recording:
        together = {**(config or {}), **(secrets or {})}
        return recorder.record(
            folder=str(PROGRAMS / folder), config=together, secrets=sorted(secrets or {}), stacks=stacks or {}
        )

    return run


@pytest.fixture
def postgres_stack() -> dict[str, dict[str, Any]]:
    """The stack that runs Postgres, as `run_program` takes it, with names that differ from every default."""
    outputs = {
        "host": "postgresql-cluster-rw.db.svc.cluster.local",
        "port": 15432,
        "username": {"secret": "postgres"},
        "user": {"secret": "postgres"},
        "password": {"secret": "superuser-of-the-test"},
        "ts_hostname": "pg-on-the-tailnet",
        "k8s_namespace": "db",
    }
    return {"organization/postgresql/test": outputs}


@pytest.fixture
def run_service(run_program, postgres_stack):
    """Run the program of a service with what its file says, and more config; the keys of its secrets are secret."""

    def run(name: str, more: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None) -> Recording:
        expected = EXPECTED[name]
        hidden = {**expected.get("secrets", {}), **(secrets or {})}
        config = {**expected.get("config", {}), **(more or {})}
        hidden |= {key: value for key, value in config.items() if key in hidden}
        return run_program(find_service(name).folder, config, hidden, postgres_stack)

    return run


@pytest.fixture
def settings_of() -> Callable[[str], Any]:
    """The `Settings` class of a project, loaded from its file: as modules all of them would be called `settings`."""

    def load(folder: str) -> Any:
        spec = importlib.util.spec_from_file_location(f"settings of {folder}", PROGRAMS / folder / "settings.py")
        assert spec and spec.loader
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Settings

    return load


@pytest.fixture
def configured() -> Iterator[Callable[..., Any]]:
    """Call a function as if the stack's configuration were `config`, of which the keys in `secrets` are secret."""
    from pulumi.runtime import set_all_config

    # `Output` needs an event loop in this thread, and an earlier run may have closed it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def call(function: Callable[..., Any], *args: Any, config: Mapping[str, str], secrets: tuple[str, ...] = ()) -> Any:
        def within() -> Any:
            set_all_config(dict(config), list(secrets))
            return function(*args)

        return contextvars.copy_context().run(within)

    yield call
    asyncio.set_event_loop(None)
    loop.close()
