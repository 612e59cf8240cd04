"""When a stack is not previewed again: never while anything that determines its plan is not what it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from runbooks.core.command import Command
from runbooks.core.errors import OpsError
from runbooks.core.files import ROOT
from runbooks.services import SERVICES, find_service
from runbooks.stacks import fingerprint, preparation
from runbooks.stacks.changed import changed_services
from runbooks.stacks.fingerprint import (
    RECORDER,
    Reads,
    changed_parts,
    fingerprint_of,
    hash_files,
    read_reads,
    read_record,
    reasons_to_ask,
    record_reads,
    write_record,
)
from runbooks.stacks.plan import StackPlan
from runbooks.stacks.preview import plan_run, plan_stack
from runbooks.stacks.service import Service
from runbooks.stacks.session import Once
from runbooks.tools.esc import Opened, Value
from runbooks.tools.stack import Stack
from tests.fixtures import Answer, ScriptedSession, creating, preview_answer, urn

COMPLETE = Reads(complete=True)


@pytest.fixture
def session(tmp_path: Path) -> ScriptedSession:
    made = ScriptedSession(tmp_path, {("preview", name): [Answer(stdout=preview_answer())] for name in ("db", "app")})
    made.write_state("db", outputs={"port": 5432})
    (tmp_path / "charts.yaml").write_text("some-chart: {version: 1.2.3, repository: https://charts.example.com}\n")
    return made


def reasons(session: Any, name: str = "app", changing: tuple[str, ...] = ()) -> list[str]:
    service = session.service(name)
    stack = session.stack(service)
    return reasons_to_ask(session, stack, fingerprint_of(session, service), read_record(session, stack), changing)


def notices(session: Any, name: str) -> bool:
    """Whether a change is noticed; one that makes a file invalid is refused by name."""
    try:
        return bool(reasons(session, name))
    except OpsError:
        return True


def record(session: Any, reads: Reads = COMPLETE, name: str = "app", *, applied: bool = True) -> None:
    service = session.service(name)
    write_record(session, session.stack(service), fingerprint_of(session, service), reads, applied=applied)


def previews(session: ScriptedSession) -> list[str]:
    return [service for verb, service in session.runner.ran if verb == "preview"]


def test_a_stack_is_asked_again_only_without_a_record(session: ScriptedSession) -> None:
    app = session.service("app")
    assert reasons(session)
    record(session)
    assert reasons(session) == []
    plan = plan_stack(session, app, changing=())
    assert plan.unchanged_since and not plan.has_changes and plan.unchanged_since in plan.state
    assert previews(session) == []
    assert not plan_stack(session, app).unchanged_since
    assert previews(session) == ["app"]


def test_a_stack_is_asked_again_after_a_rollback(session: ScriptedSession) -> None:
    record(session, replace(COMPLETE, files=(str(session.state_dir / "worktrees/4f0c-1-a/pulumi/app/__main__.py"),)))
    assert ["rolled back" in reason for reason in reasons(session)] == [True]


def test_the_same_files_in_the_checkout_of_a_rollback_are_what_was_applied(
    session: ScriptedSession, tmp_path: Path
) -> None:
    older = ScriptedSession(tmp_path / "worktrees" / "4f0c-1-a", {})
    shutil.copy(session.root / "charts.yaml", older.root)
    for service in session.services:
        shutil.copytree(session.stack(service).folder, older.stack(service).folder, dirs_exist_ok=True)
    older.state_dir = session.state_dir
    for service in session.services:
        record(older, name=service.name)
    assert changed_services(session) == {}
    (session.stack(session.service("app")).folder / "__main__.py").write_text("edited = True\n")
    assert list(changed_services(session)) == ["app"]


def test_a_producer_that_changes_makes_its_readers_be_asked(session: ScriptedSession) -> None:
    record(session, name="db")
    record(session)
    session.runner.script["preview", "db"] = creating("db")
    changed = session.root / "pulumi" / session.service("db").folder / "__main__.py"
    changed.write_text("changed = True\n")
    chosen = [(session.service("db"),), (session.service("app"),)]
    plan_run(session, chosen)
    assert previews(session) == ["db", "app"]


def test_what_is_compared_is_read_again_whatever_the_planning_pass_remembers(session: ScriptedSession) -> None:
    app, once = session.service("app"), Once()
    before = fingerprint_of(session, app, once)
    library = session.root / "pulumi" / "lib" / "new.py"
    library.parent.mkdir(exist_ok=True)
    library.write_text("a = 1\n")
    assert fingerprint_of(session, app, once) == before
    assert fingerprint_of(session, app) != before


def test_a_preview_with_changes_ends_an_equal_record(session: ScriptedSession) -> None:
    record(session)
    session.runner.script["preview", "app"] = creating("app")
    assert plan_stack(session, session.service("app")).has_changes
    assert reasons(session)


def test_what_was_only_previewed_still_writes_its_outputs(session: ScriptedSession) -> None:
    record(session, applied=False)
    plan: StackPlan = plan_stack(session, session.service("app"), changing=())
    assert plan.unchanged_since and plan.writes_outputs


CHART = {"urn": urn("app", "kubernetes:helm.sh/v4:Chart", "some"), "type": "kubernetes:helm.sh/v4:Chart"}


@pytest.mark.parametrize(
    ("reads", "state", "word"),
    [
        (Reads(), {}, "not known"),
        (replace(COMPLETE, outside=("the network",)), {}, "the network"),
        (replace(COMPLETE, outside=("the clock",)), {}, "the clock"),
        (replace(COMPLETE, files=("/etc/hostname",)), {}, "/etc/hostname"),
        (COMPLETE, {"pending": [{"type": "creating", "resource": {"urn": urn("app", "a:b:C", "d")}}]}, "interrupted"),
        (COMPLETE, {"resources": [CHART]}, "charts.yaml"),
        *[
            (COMPLETE, {"resources": [{"urn": urn("app", kind, "x"), **more}]}, kind)
            for kind, more in [
                ("kubernetes:yaml/v2:ConfigFile", {}),
                ("kubernetes:kustomize/v2:Directory", {}),
                ("pulumi-python:dynamic:Resource", {}),
                ("kubernetes:core/v1:Service", {"external": True}),
                ("kubernetes:core/v1:Secret", {"inputs": {"4dabf1": "c44067f5952c0a294b673a41bacd8c21"}}),
            ]
        ],
    ],
)
def test_what_no_fingerprint_holds_is_asked_each_time(
    session: ScriptedSession, reads: Reads, state: dict[str, Any], word: str
) -> None:
    session.write_state("app", **state)
    record(session, reads)
    assert any(word in reason for reason in reasons(session))


@pytest.mark.parametrize(
    ("pin", "asked"), [("1.2.3", False), ("v1.2.3-rc.1", False), ("1.x", True), ("^1.2.0", True), ("", True)]
)
def test_a_chart_without_an_exact_version_is_asked_each_time(session: ScriptedSession, pin: str, asked: bool) -> None:
    pins = session.root / "charts.yaml"
    pins.write_text(f"some-chart: {{version: '{pin}', repository: https://charts.example.com}}\n")
    session.write_state("app", resources=[CHART])
    cluster(session)
    record_preview(session, str(pins))
    assert bool(reasons(session)) is asked


def cluster(session: ScriptedSession, version: Any = "v1.34.1", *kinds: str) -> None:
    """What the cluster has, as another run finds it."""
    answers = [(("--raw=/version",), version), (("api-resources",), "\n".join(["pods v1 true Pod", *kinds]))]
    session.runner.known = [*answers, *(each for each in session.runner.known if each[0] == ("kube-system",))]
    session.known.once.answers.clear()


def record_preview(session: ScriptedSession, pins: str) -> None:
    """A recorded preview of `app`, whose program reads the pins."""
    service = session.service("app")
    command, read = record_reads(session, Command(argv=("pulumi",)), session.stack(service))
    path = Path(command.env["HOMELAB_OPS_READS"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{"file": {json.dumps(pins)}}}\n{{"end": true}}\n')
    record(session, read())


SERVICE_MONITOR = "servicemonitors monitoring.coreos.com/v1 true ServiceMonitor"


@pytest.mark.parametrize(
    ("now", "asked"),
    [
        (("v1.34.1",), False),
        (("v1.35.0",), True),
        (("v1.34.1", SERVICE_MONITOR), True),
        (((1, "", "error: unable to retrieve the complete list of server APIs"),), True),
    ],
)
def test_a_chart_is_asked_again_when_the_cluster_offers_something_else(
    session: ScriptedSession, now: tuple[Any, ...], asked: bool
) -> None:
    session.write_state("app", resources=[CHART])
    cluster(session)
    record_preview(session, str(session.root / "charts.yaml"))
    cluster(session, *now)
    assert bool(reasons(session)) is asked


def test_the_cluster_counts_as_it_was_before_the_chart_was_rendered(session: ScriptedSession) -> None:
    session.write_state("app", resources=[CHART])
    service = session.service("app")
    cluster(session)
    _, read = record_reads(session, Command(argv=("pulumi",)), session.stack(service))
    cluster(session, "v1.34.1", SERVICE_MONITOR)
    record(session, replace(read(), files=(str(session.root / "charts.yaml"),), complete=True))
    assert reasons(session)


def test_an_edit_between_the_reading_of_the_inputs_and_the_preview_is_not_recorded(session: ScriptedSession) -> None:
    app = session.service("app")
    program = session.root / "pulumi" / app.folder / "__main__.py"
    written: list[str] = []

    def edited(_: Command) -> str:
        written.append(program.read_text())
        program.write_text("edited = True\n")
        return preview_answer()

    session.runner.script["preview", "app"] = edited
    plan_stack(session, app)
    program.write_text(written[0])
    assert read_record(session, session.stack(app)) is None


@pytest.mark.parametrize("name", ["x" * 300, "\udcff", "a\0b"])
def test_a_name_that_no_file_can_have_is_hashed_all_the_same(session: ScriptedSession, name: str) -> None:
    record(session, replace(COMPLETE, files=(str(session.root / "pulumi" / name),)))
    assert reasons(session) == []


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("__main__.py", True),
        ("templates/web.yaml", True),
        # Helm leaves out what its ignore file says.
        (".helmignore", True),
        (".hidden", False),
        # The settings of a stack are a part of their own.
        ("Pulumi.mx.yaml", False),
        ("__pycache__/web.pyc", False),
    ],
)
def test_which_files_of_a_folder_count(tmp_path: Path, name: str, counts: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("1")
    before = hash_files([tmp_path])
    path.write_text("2")
    assert (hash_files([tmp_path]) != before) is counts


def test_every_part_that_differs_is_named() -> None:
    before, now = {"a": "1", "same": "1", "gone": ""}, {"a": "2", "same": "1", "new": ""}
    assert changed_parts(before, now) == ["a", "gone", "new"]


def test_an_unreadable_record_is_no_record(session: ScriptedSession) -> None:
    record(session)
    path = session.state_dir / "applied" / "mx" / "app.json"
    whole = {"at": "2026-01-02T03:04:05", "parts": {}, "reads": {}, "applied": {}}
    for text in (
        *(json.dumps(whole | {name: 1}) for name in whole),
        *("", "{", "[]", '{"at": 1}'),
        '{"at": "x", "parts": {}, "reads": {"new": 1}, "applied": true}',
    ):
        path.write_text(text)
        assert read_record(session, session.stack(session.service("app"))) is None


# The recorder


PROGRAM = """\
import os, socket, subprocess, sys, time
from pathlib import Path
import beside
{line}
"""


CALL = """import grpc
from pulumi.runtime.proto import resource_pb2 as p, resource_pb2_grpc as g
try: g.ResourceMonitorStub(grpc.insecure_channel("127.0.0.1:9")).{call}, timeout=1)
except grpc.RpcError: pass"""


@pytest.mark.parametrize(
    ("line", "kind", "what"),
    [
        ("open('/etc/hostname').read()", "file", "/etc/hostname"),
        ("Path('/nowhere/at-all').is_dir()", "file", "/nowhere/at-all"),
        ("os.path.exists('/usr/share/at-all')", "file", "/usr/share/at-all"),
        ("import shutil; assert shutil._use_fd_functions", None, None),
        ("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1)); open('/etc/hostname')", "full", None),
        ("os.listdir('/etc')", "file", "/etc"),
        ("os.environ.get('A_NAME')", "variable", "A_NAME"),
        ("'B_NAME' in os.environ", "variable", "B_NAME"),
        ("dict(os.environ)", "variable", "*"),
        ("time.time()", "outside", "the clock"),
        ("os.urandom(1)", "outside", "chance"),
        ("import random", "outside", "the clock or chance (__main__.py imports random)"),
        ("from datetime import datetime", "outside", "the clock or chance (__main__.py imports datetime)"),
        ("subprocess.run(['true'])", "outside", "a child process"),
        ("socket.getaddrinfo('127.0.0.1', 80)", "outside", "the network"),
        *[
            (CALL.format(call=call), "outside" if what else None, what and f"what {what} answers")
            for call, what in [
                ("Invoke(p.ResourceInvokeRequest(tok='a:b:c')", "a:b:c"),
                ("Call(p.ResourceCallRequest(tok='a:b:c')", "a:b:c"),
                ("ReadResource(p.ReadResourceRequest(type='a:b:C')", "a:b:C"),
                ("ReadResource(p.ReadResourceRequest(type='pulumi:pulumi:StackReference')", None),
            ]
        ],
        ("open(Path(__file__).with_name('out'), 'w')", "outside", "to write {folder}/out"),
    ],
)
def test_the_recorder_sees_what_a_program_reads(tmp_path: Path, line: str, kind: str | None, what: str | None) -> None:
    program, beside = tmp_path / "__main__.py", tmp_path / "beside.py"
    program.write_text(PROGRAM.format(line=line))
    beside.write_text("import json\n")
    executor = tmp_path / "bin" / "pulumi-language-python-exec"
    executor.parent.mkdir()
    executor.write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        f"runpy.run_path({str(program)!r}, run_name='__main__')\n"
    )
    facts = tmp_path / "facts"
    env = {"PYTHONPATH": str(RECORDER), "HOMELAB_OPS_READS": str(facts), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, str(executor)], env=env, check=True)
    reads = read_reads(facts)
    if kind == "full":
        assert not reads.complete
        return
    assert reads.complete and str(beside) in reads.files and str(program) in reads.files
    found = {"file": reads.files, "variable": reads.variables, "outside": reads.outside}
    if kind and what:
        assert what.format(folder=tmp_path) in found[kind]
    if kind != "outside":
        assert reads.outside == ()


# Every input, one change at a time

VARIABLE = "SITE"


class Platform(ScriptedSession):
    """The real project folders, with a state, an opened environment, tools and packages of their own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, {})
        shutil.rmtree(root / "pulumi")
        left_out = shutil.ignore_patterns("__pycache__", ".venv")
        shutil.copytree(ROOT / "pulumi", root / "pulumi", ignore=left_out)
        for name in ("charts.yaml", "uv.lock"):
            shutil.copy(ROOT / name, root / name)
        self.services = SERVICES
        self.site = {VARIABLE: "home"}
        self.values = {"k8s_namespace": "stitch", "POSTGRES_HOST": "db"}
        self.packages = root / ".venv" / "lib" / "python3.12" / "site-packages"
        self.tools = SimpleNamespace(pulumi=str(root / "bin" / "pulumi"), pulumi_version="v3.274.1")
        (self.packages / "pulumi-3.274.0.dist-info").mkdir(parents=True)
        (root / "bin").mkdir()
        (root / ".pulumi" / "plugins").mkdir(parents=True)
        for name in ("pulumi", "pulumi-resource-kubernetes", "pulumi-resource-postgresql"):
            (root / "bin" / name).write_text("1")
            (root / "bin" / name).chmod(0o755)
        self.env = {**self.env, "PATH": str(root / "bin"), "PULUMI_HOME": str(root / ".pulumi")}
        self.runner.environment = lambda extra: self.site | dict(extra)
        for module in (preparation, fingerprint):
            monkeypatch.setattr(module, "open_bound", lambda _, file: [self.opened()] if file.environment else [])
        for service in SERVICES:
            (root / "pulumi" / service.folder / ".hidden").write_text("hidden")
            self.write_state_of(service)

    def write_state_of(self, service: Service, data: str = "1", port: int = 5432) -> None:
        config_map = {"urn": urn(service.project_name, "kubernetes:core/v1:ConfigMap", "cm"), "inputs": {"data": data}}
        self.write_state(service.project_name, outputs={"port": port}, resources=[config_map])

    def stack(self, service: Any) -> Stack:
        return replace(
            super().stack(service), project=service.project_name, program=self.tools.pulumi, name="mx", config_file=None
        )

    def opened(self) -> Opened:
        return Opened(values=tuple(Value(path=(k,), value=v, secret=False) for k, v in self.values.items()))


Change = AbstractContextManager[Any]
"""Makes a change, and takes it back at its end."""


@contextmanager
def edited(path: Path, *, longer: bool = True) -> Iterator[None]:
    before, facts = path.read_bytes(), path.stat()
    path.write_bytes(before + b"#" if longer else bytes([before[0] ^ 1]) + before[1:])
    yield
    path.write_bytes(before)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@contextmanager
def renamed(path: Path) -> Iterator[None]:
    other = path.rename(path.with_name(f"x{path.name}"))
    yield
    other.rename(path)


@contextmanager
def created(path: Path) -> Iterator[None]:
    path.mkdir()
    (path / "new.py").touch()
    yield
    shutil.rmtree(path)


@contextmanager
def state_changed(platform: Platform, service: Service, **changed: Any) -> Iterator[None]:
    platform.write_state_of(service, **changed)
    yield
    platform.write_state_of(service)


def changes_of(platform: Platform, service: Service) -> Iterator[tuple[str, Change]]:
    """Every change of what determines the plan of this service, where it really lives."""
    root, folder = platform.root, platform.root / "pulumi" / service.folder
    own = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("Pulumi.")]
    others = [root / "charts.yaml", root / "uv.lock", folder / "Pulumi.yaml", folder / "Pulumi.mx.yaml"]
    programs = [root / "bin" / "pulumi", root / "bin" / "pulumi-resource-kubernetes"]
    for path in (*own, *(root / "pulumi" / "lib").glob("*.py"), *others, *programs):
        yield f"{path}, longer", edited(path)
    for path in (*own, *programs):
        yield f"{path}, other bytes", edited(path, longer=False)
    for path in (*own, *platform.packages.iterdir()):
        yield f"the name of {path}", renamed(path)
    yield "a new file", created(folder / "new")
    yield "a new package", created(platform.packages / "new-1.0.0.dist-info")
    yield "pulumi's version", patch.object(platform.tools, "pulumi_version", "v3.999.9")
    yield "a variable", patch.dict(platform.site, {VARIABLE: "other"})
    yield "the cluster", patch.object(platform.target, "cluster_uid", "other")
    yield "the backend", patch.object(platform.target, "backend", "file:///other")
    yield "its state", state_changed(platform, service, data="2")
    for producer in service.reads_outputs_of:
        yield f"the outputs of {producer}", state_changed(platform, find_service(producer), port=1)
    if service.environment:
        yield "its environment", patch.dict(platform.values, {"POSTGRES_HOST": "other"})


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_no_change_of_an_input_goes_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    platform = Platform(tmp_path, monkeypatch)
    hidden = str(tmp_path / "pulumi" / service.folder / ".hidden")
    record(platform, Reads(files=(hidden,), variables=(VARIABLE,), complete=True), service.name)
    for what, change in changes_of(platform, service):
        with change:
            assert notices(platform, service.name), f"{what} changed, and it would not be asked"
    assert reasons(platform, service.name) == [], "all is put back"
