"""The tool chain: a program is the user's own, or built once; a build ends with its run. The Go here is a script."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import toolchain
from lab.platform import target
from lab.toolchain import Found, build, of_user, resolve, tools
from lab.toolchain.build import Build, Go, Progress, build_environment, cache_key, cached
from lab.toolchain.resolve import BUILT, INSTALLED, ON_PATH, progress_line, seconds_left
from lab.toolchain.tools import ESC_EVALUATOR, ETCD, KUBERNETES, PULUMI, PULUMI_KUBERNETES, TOOLS, Module, read_version
from runbooks.core.errors import OpsError, ToolFailed
from runbooks.core.files import Unwritable
from runbooks.tools.pulumi_home import wanted_plugins
from tests.fixtures import executable, is_alive, until

ROOT = Path(__file__).parents[3]
SCRIPT = """\
echo "$@" >> {folder}/calls
case "$*" in
    "env GOVERSION") echo {version}; exit 0 ;;
    *" -m -f "*) echo {folder}/module; exit 0 ;;
    "list "*) printf 'one\\ntwo\\nthree\\nfour\\n'; exit 0 ;;
esac
while [ "$1" != -o ]; do shift; done
output=$2
shift 2
{body}
"""
BUILDS = """
for package; do
    case $package in */v[0-9]) package=${package%/*} ;; esac
    echo > "$output/${package##*/}"
done
"""


class FakeGo:
    """`<folder>/path/go`, with the files that programs want beside them in `<folder>/module`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = f"{folder}/path:/usr/bin:/bin"
        for module in (PULUMI, PULUMI_KUBERNETES):
            for _, name in module.beside:
                (folder / "module" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "module" / name).touch()

    def install(self, body: str = BUILDS, *, version: str = "go1.99.0") -> Go:
        text = SCRIPT.format(folder=self.folder, version=version, body=body)
        program = executable(self.folder / "path" / "go", text)
        return Go(program=program, version=version, own=False)

    @property
    def builds(self) -> list[str]:
        """The arguments of each `go build` so far."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if line.startswith("build ")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("PULUMI_HOME", "PULUMI_IGNORE_AMBIENT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache" / "homelab-ops"


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    """The only Go, on a PATH that has no tool of the lab."""
    made = FakeGo(tmp_path)
    monkeypatch.setenv("PATH", made.path)
    made.install()
    return made


def run(module: Module, go: Go, report: Callable[[str], None] = print, stop: threading.Event | None = None) -> Path:
    return Build(module, go, report, stop or threading.Event()).run()


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.36.3", (1, 36, 3)),
        ("etcd Version: 3.6.16\nGit SHA: 1", (3, 6, 16)),
        ("go1.26.8", (1, 26, 8)),
        ("v4.2.4+gabc", (4, 2, 4)),
        ("devel", (0, 0, 0)),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int]) -> None:
    assert read_version(text) == version


def test_what_fits() -> None:
    assert tools.same_minor("Kubernetes v1.36.1", "v1.36.3")
    assert not tools.same_minor("Kubernetes v1.35.9", "v1.36.3")
    helm = next(tool for tool in TOOLS if tool.name == "helm")
    assert helm.fits("v3.18.0+g1", "v4.2.4")
    assert not helm.fits("v3.9.0+g1", "v4.2.4")


# --- built once is built --------------------------------------------------------------------------------------------

SOURCES = {
    "one/go.mod": "require example.org/one v1.2.3\nreplace (\n\tguard => ../guard\n\tsdk => ./sdk\n)\n",
    "one/go.sum": "example.org/one v1.2.3 h1:x=\n",
    "one/main/main.go": "package main\n",
    "one/sdk/go.mod": "module sdk\n",
    "one/sdk/v2/sdk.go": "package v2\n",
    "guard/go.mod": "module guard\n",
    "guard/guard.go": "package guard\n",
    "other/go.mod": "module other\n",
}
ONE = Module(name="one", path="example.org/one", seconds=1)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes `lab/toolchain` of a checkout of that name the one in use."""

    def use(name: str) -> Path:
        folder = tmp_path / name / "lab" / "toolchain"
        for path, text in SOURCES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        monkeypatch.setattr(tools, "HERE", folder)
        return folder

    return use


CHANGES: dict[str, Callable[[Path], object]] = {
    **{path: lambda folder, path=path: (folder / path).write_text("// changed\n") for path in SOURCES},
    "another file": lambda folder: (folder / "one/main/new.go").touch(),
    "another name": lambda folder: (folder / "one/main/main.go").rename(folder / "one/main/main_darwin.go"),
    "not a source": lambda folder: (folder / "one/README.md").touch(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_source_is_another_build_and_another_checkout_is_not(
    checkout: Callable[[str], Path], change: str
) -> None:
    folder = checkout("one")
    before = cached(ONE)
    CHANGES[change](folder)
    assert (cached(ONE) == before) is (change in ("other/go.mod", "not a source"))
    checkout("two")
    assert cached(ONE) == before


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("lab.toolchain.build.FLAGS", (*build.FLAGS, "-race")),
        ("lab.toolchain.build.TOOLS", TOOLS[1:]),
        ("platform.machine", lambda: "riscv64"),
        ("platform.system", lambda: "Plan9"),
    ],
)
def test_so_are_other_flags_programs_and_machines(monkeypatch: pytest.MonkeyPatch, what: str, value: object) -> None:
    before = cache_key(ETCD)
    monkeypatch.setattr(what, value)
    assert cache_key(ETCD) != before


def test_another_go_is_not(go: FakeGo) -> None:
    first = resolve(print, ["etcd"])
    go.install("exit 1", version="go1.100.0")
    assert resolve(print, ["etcd"]) == first
    assert len(go.builds) == 1


# --- a build --------------------------------------------------------------------------------------------------------


def test_what_is_built_is_named_like_the_tool_and_kept(cache: Path, go: FakeGo) -> None:
    folder = run(ETCD, go.install())
    assert [path.name for path in folder.iterdir()] == ["etcd"]
    assert run(ETCD, go.install()) == folder
    assert len(go.builds) == 1
    assert {path.name for path in (cache / "bin").iterdir()} == {folder.name, f".{folder.name}.lock"}


def test_what_programs_look_for_beside_them_is_there(go: FakeGo) -> None:
    assert {"pulumi", "pulumi-language-python", "pulumi-language-python-exec", "esc"} == {
        path.name for path in run(PULUMI, go.install()).iterdir()
    }
    assert {"schema.json", "terraform-mapping.json"} < {
        path.name for path in run(PULUMI_KUBERNETES, go.install()).iterdir()
    }


def test_what_the_compiler_writes_meanwhile_is_in_the_cache(cache: Path, go: FakeGo, tmp_path: Path) -> None:
    run(ETCD, go.install(f'echo "$GOTMPDIR" > {tmp_path}/place; touch "$GOTMPDIR/half"; {BUILDS}'))
    place = Path((tmp_path / "place").read_text().strip())
    assert place.is_relative_to(cache / "bin") and not place.exists()


@pytest.mark.parametrize(("cores", "jobs"), [(1, 1), (2, 2), (64, build.JOBS)])
def test_memory_is_bounded_on_large_machines(
    go: FakeGo, monkeypatch: pytest.MonkeyPatch, cores: int, jobs: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    run(ETCD, go.install())
    assert f" -p={jobs} " in go.builds[0]


def test_two_at_once_build_once(go: FakeGo, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program = go.install(f"cat {gate} >/dev/null; {BUILDS}")
    waits = threading.Event()
    report = lambda line: waits.set() if "waiting" in line else None  # noqa: E731
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(run, ETCD, program, report) for _ in range(2)]
        assert waits.wait(10)
        gate.write_text("go on")
        assert both[0].result(10) == both[1].result(10) == cached(ETCD)
    assert len(go.builds) == 1


def test_a_failed_build_is_one_error_with_the_log(cache: Path, go: FakeGo) -> None:
    with pytest.raises(ToolFailed, match=r"building etcd .* failed .* proxy is down") as failed:
        run(ETCD, go.install("echo 'no such module: proxy is down' >&2; exit 1"))
    log = cache / "bin" / f"{cache_key(ETCD)}.log"
    assert str(log) in failed.value.next_step
    assert "proxy is down" in log.read_text()
    assert {path.name for path in log.parent.iterdir()} == {log.name, f".{cache_key(ETCD)}.lock"}
    run(ETCD, go.install())
    assert not log.exists()


@pytest.mark.parametrize("place", ["", "bin"])
def test_a_cache_that_takes_nothing_is_an_error_with_a_way_out(cache: Path, go: FakeGo, place: str) -> None:
    (cache / place).parent.mkdir(parents=True, exist_ok=True)
    (cache / place).touch()
    with pytest.raises(Unwritable, match="the cache of the lab's programs cannot be written") as refused:
        run(ETCD, go.install())
    assert "XDG_CACHE_HOME" in refused.value.next_step


@pytest.mark.parametrize(
    ("name", "days", "stays"),
    [
        ("etcd-v3.0.0-0123456789ab", 31, False),
        ("etcd-v3.0.0-0123456789ab", 29, True),
        ("helm-v3.0.0-0123456789ab", 31, True),
        ("etcd-v3.0.0-runs", 31, True),
    ],
)
def test_an_old_build_is_removed_unless_it_is_in_use(
    cache: Path, go: FakeGo, name: str, days: int, stays: bool
) -> None:
    old = cache / "bin" / name
    old.mkdir(parents=True)
    shutil.copy("/bin/sleep", old / "etcd")
    moment = time.time() - days * 24 * 3600
    os.utime(old, (moment, moment))
    running = subprocess.Popen([old / "etcd", "60"]) if name.endswith("runs") else None
    try:
        assert run(ETCD, go.install()).is_dir()
    finally:
        if running:
            running.kill()
            running.wait()
    assert old.exists() is stays
    assert (cached(ETCD) / "etcd").exists()


def test_what_a_killed_build_left_is_cleared(cache: Path, go: FakeGo) -> None:
    left = cache / "bin" / f".{cache_key(ETCD)}.unfinished" / "programs"
    left.mkdir(parents=True)
    (left / "half").touch()
    assert [path.name for path in run(ETCD, go.install()).iterdir()] == ["etcd"]
    assert not left.parent.exists()


# --- how far it is --------------------------------------------------------------------------------------------------


def test_the_line_names_what_is_built_and_how_far_the_rest_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n")
    builds = [Progress(ETCD, log, done=True), Progress(PULUMI, log, total=4), Progress(KUBERNETES, tmp_path / "none")]
    assert progress_line(builds, 120).startswith("built etcd; building pulumi (2 of 4 packages), kubernetes; about ")
    assert progress_line(builds, 120).endswith(" min left")
    assert 0 < seconds_left(builds, 1e6) < math.inf
    for progress in builds:
        progress.done = True
    assert seconds_left(builds, 120) == 0 and progress_line(builds, 120) == "built etcd, pulumi, kubernetes"


# --- found before built ---------------------------------------------------------------------------------------------

HOST = "pulumi-language-python"


@pytest.mark.parametrize(
    ("says", "has_host", "used"),
    [
        ("v3.227.0", True, True),
        ("v4.0.0", True, True),
        ("v3.226.0", True, False),
        ("v2.300.0", True, False),
        ("v3.300.1", False, False),
        ("no version", True, False),
    ],
)
def test_a_pulumi_of_the_user_is_used_with_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: FakeGo, says: str, has_host: bool, used: bool
) -> None:
    """tests/unit/stacks/test_guard.py has where else that may be."""
    own = tmp_path / "own"
    executable(own / "pulumi", f'[ "$PULUMI_SKIP_UPDATE_CHECK" = true ] && echo {says}')
    if has_host:
        executable(own / HOST)
    monkeypatch.setenv("PATH", f"{own}:{go.path}")
    found = resolve(print, ["pulumi", HOST, "esc"])
    if used:
        assert found == {"pulumi": Found(name="pulumi", program=own / "pulumi", version=says, origin=ON_PATH)}
        assert go.builds == []
    else:
        assert {name: tool.origin for name, tool in found.items()} == dict.fromkeys(("pulumi", HOST, "esc"), BUILT)
        assert all(tool.program.is_file() for tool in found.values())


def test_an_esc_of_the_user_is_used_beside_a_built_pulumi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: FakeGo
) -> None:
    own = executable(tmp_path / "own" / "esc", "echo v0.13.2")
    monkeypatch.setenv("PATH", f"{own.parent}:{go.path}")
    found = resolve(print, ["pulumi", HOST, "esc"])
    assert found["esc"] == Found(name="esc", program=own, version="v0.13.2", origin=ON_PATH)
    assert found["pulumi"].origin == BUILT


@pytest.mark.parametrize("name", ["kubernetes", "postgresql"])
@pytest.mark.parametrize("suffix", ["", "0"], ids=["installed", "another version"])
def test_an_installed_plugin_of_the_wanted_version_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: FakeGo, name: str, suffix: str
) -> None:
    """One on PATH is ignored here. tests/unit/tools/test_pulumi_home.py has what else counts as installed."""
    (version,) = (plugin.version for plugin in wanted_plugins() if plugin.name == name)
    program = f"pulumi-resource-{name}"
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "persons"))
    monkeypatch.setenv("PULUMI_IGNORE_AMBIENT_PLUGINS", "true")
    monkeypatch.setenv("PATH", f"{executable(tmp_path / 'own' / program).parent}:{go.path}")
    folder = tmp_path / "persons" / "plugins" / f"resource-{name}-v{version}{suffix}"
    installed = Found(name=program, program=executable(folder / program), version=f"v{version}", origin=INSTALLED)
    assert of_user(program) == (None if suffix else installed)
    if name == "kubernetes":
        assert resolve(print, [program])[program].origin == (BUILT if suffix else INSTALLED)
    else:
        assert target.postgresql_plugin().origin == (target.REPOSITORY if suffix else INSTALLED)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        (f"echo etcd Version: {ETCD.version[1:]}", True),
        ("echo etcd Version: 3.4.1", False),
        ("exit 1", False),
        (f"echo {ETCD.version}; exit 1", False),
        ("cat; exit 1", False),
        (r"printf '\377\n'", False),
    ],
)
def test_a_program_on_path_is_used_when_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: FakeGo, text: str, used: bool
) -> None:
    program = executable(tmp_path / "own" / "etcd", text)
    monkeypatch.setenv("PATH", f"{program.parent}:{go.path}")
    (found,) = resolve(print, ["etcd"]).values()
    assert (found.program, found.origin) == ((program, ON_PATH) if used else (cached(ETCD) / "etcd", BUILT))


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS if tool.module is ESC_EVALUATOR or tool.name == HOST])
def test_a_program_of_ours_is_never_taken_from_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PATH", str(executable(tmp_path / "own" / name, "echo 1.2.3").parent))
    assert of_user(name) is None


# --- all of them ----------------------------------------------------------------------------------------------------


def test_everything_missing_is_built_side_by_side(cache: Path, go: FakeGo) -> None:
    printed: list[str] = []
    names = [tool.name for tool in TOOLS]
    found = resolve(printed.append, names)
    assert set(found) == set(names)
    assert all(tool.program.is_file() and tool.program.is_relative_to(cache) for tool in found.values())
    assert printed[0].startswith(f"building pulumi {PULUMI.version}, kubernetes v1.")
    assert resolve(printed.append, names) == found
    assert len(go.builds) == len({tool.module.name for tool in TOOLS})


def test_helm_is_not_among_what_the_lab_starts_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(toolchain, "resolve", lambda _, names: asked.extend(names) or {})
    monkeypatch.setattr(target, "kubectl", lambda: Found(name="kubectl", program=tmp_path, version="", origin=""))
    target.find_tools(print)
    assert set(asked) == {tool.name for tool in TOOLS} - {"helm"}


def test_a_failed_build_ends_the_others(go: FakeGo) -> None:
    go.install('case "$PWD" in */kubernetes) sleep 600 ;; */helm) echo broken >&2; exit 1 ;; esac')
    with pytest.raises(ToolFailed, match=r"building helm .* broken"):
        resolve(print, ["helm", "kube-apiserver"])


# --- the Go that builds ---------------------------------------------------------------------------------------------


def test_an_old_go_on_path_gives_way_to_the_environments_own(go: FakeGo) -> None:
    go.install(version="go1.18.0")
    found = build.find_go()
    assert found.own
    assert read_version(found.version) >= build.oldest_go()


def test_no_usable_go_is_an_error_that_says_what_was_seen(
    go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = go.install(version="go1.18.0").program
    monkeypatch.setattr(build.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(OpsError) as refused:
        build.find_go()
    assert f"{program} is go1.18.0" in refused.value.summary
    assert "uv sync" in refused.value.next_step


def test_a_build_does_not_depend_on_the_callers_settings(go: FakeGo, tmp_path: Path) -> None:
    theirs = {"HOME": "/home/me", "GOFLAGS": "-mod=vendor", "GOOS": "plan9", "GOPROXY": "https://p", "GOPATH": "/g"}
    environment = build_environment(go.install(), tmp_path, theirs)
    assert environment["GOFLAGS"] == "-buildvcs=false"
    assert "GOOS" not in environment
    assert (environment["GOPROXY"], environment["GOPATH"]) == ("https://p", "/g")
    assert environment["GOTOOLCHAIN"] == "local"


def test_without_a_go_of_their_own_its_caches_are_ours(go: FakeGo, tmp_path: Path) -> None:
    own = Go(program=go.install().program, version="go1.99.0", own=True)
    environment = build_environment(own, tmp_path, {"HOME": "/home/me", "GOPATH": "/g"})
    assert all(environment[name].startswith(str(tmp_path)) for name in ("GOPATH", "GOMODCACHE", "GOCACHE"))


def test_our_own_go_caches_are_removed_when_no_build_runs(tmp_path: Path) -> None:
    (tmp_path / "go" / "mod").mkdir(parents=True)
    (tmp_path / "go" / "mod" / "file").write_bytes(b"1234")
    with build.using_caches(tmp_path):
        assert build.clear_own_caches(tmp_path) == 0
        assert (tmp_path / "go").is_dir()
    assert build.clear_own_caches(tmp_path) == 4
    assert not (tmp_path / "go").exists()
    assert build.clear_own_caches(tmp_path) == 0


# --- a build ends with the run that started it, however that ends ---------------------------------------------------

RUN = "from lab.toolchain import resolve; resolve(print, ['etcd'])"
COMPILER = """
sh -c 'trap "" TERM INT HUP; echo $$ >> {pids}; exec sleep 600' &
echo $$ >> {pids}
wait
"""
"""A build that has started a compiler, which does not listen to anything, and never ends."""


class Going(FakeGo):
    """A Go with that build."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.program = self.install(COMPILER.format(pids=folder / "pids"))

    @property
    def pids(self) -> list[int]:
        """Of the Go and its compiler."""
        file = self.folder / "pids"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def has_begun(self) -> bool:
        return len(self.pids) == 2

    def has_ended(self) -> bool:
        return not any(map(is_alive, self.pids))


@pytest.fixture
def going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Going]:
    made = Going(tmp_path)
    monkeypatch.setenv("PATH", made.path)
    yield made
    for pid in filter(is_alive, made.pids):
        os.kill(pid, signal.SIGKILL)


def lock_file() -> Path:
    return cached(ETCD).with_name(f".{cached(ETCD).name}.lock")


def is_free() -> bool:
    with lock_file().open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_ended_ends_its_build_and_the_next_builds_it(going: Going, number: signal.Signals) -> None:
    """The compiler holds the lock too, whichever number its file has in the run."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as started:
        until(going.has_begun, "the build begins")
        assert not is_free()
        for pid in going.pids if Path("/proc/self/fd").exists() else ():
            assert lock_file() in {fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
        started.send_signal(number)
    until(going.has_ended, "Go and compiler end")
    until(is_free, "the lock is free")
    assert not cached(ETCD).exists()
    assert (run(ETCD, going.install()) / "etcd").is_file()


def test_the_stop_event_ends_it(going: Going, tmp_path: Path) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        building = pool.submit(run, ETCD, going.program, print, stop)
        until(going.has_begun, "the build begins")
        stop.set()
        with pytest.raises(ToolFailed, match="was stopped") as stopped:
            building.result(20)
    until(going.has_ended, "Go and compiler end")
    assert "run the same command again" in stopped.value.next_step
    assert is_free()
    assert not list((tmp_path / "cache/homelab-ops/bin").glob(".*.unfinished"))


def test_the_stop_event_ends_the_wait_for_another_run(going: Going) -> None:
    lock_file().parent.mkdir(parents=True)
    stop = threading.Event()
    with lock_file().open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ToolFailed, match="was stopped"):
            run(ETCD, going.program, lambda _: stop.set(), stop)
    assert going.pids == []
