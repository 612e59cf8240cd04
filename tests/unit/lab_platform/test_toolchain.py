"""The tool chain is found or built once. The Go here is a script."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from lab.toolchain import build as building
from lab.toolchain import golang, resolve, version_of
from lab.toolchain.golang import Go, build_environment
from lab.toolchain.resolve import on_path
from lab.toolchain.tools import ESC, ETCD, HELM, KUBERNETES, TOOLS, helm_renders_charts, read_version, same_minor
from runbooks.lib.errors import OpsError, ToolFailed

GO = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in env) echo {version}; exit 0 ;; esac
while [ "$#" -gt 0 ]; do
  if [ "$1" = -o ]; then output=$2; fi
  shift
done
{body}
"""
PROGRAMS = "server kwok helm evaluator kube-apiserver kube-controller-manager kube-scheduler"
BUILDS = f'for name in {PROGRAMS}; do echo > "$output/$name"; done'


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "homelab-ops"


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def fake_go(tmp_path: Path, calls: Path, body: str = BUILDS, version: str = "go1.99.0") -> Go:
    folder = tmp_path / "path"
    folder.mkdir(exist_ok=True)
    program = script(folder / "go", GO.format(calls=calls, version=version, body=body))
    return Go(program=program, version=version, own=False)


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


def test_versions_stand_in_the_module_files() -> None:
    assert all(read_version(version_of(tool.name)) > (0, 0, 0) for tool in TOOLS)
    assert version_of("kube-apiserver") == version_of("kube-scheduler")


def test_what_fits() -> None:
    assert same_minor("Kubernetes v1.36.1", "v1.36.3")
    assert not same_minor("Kubernetes v1.35.9", "v1.36.3")
    assert helm_renders_charts("v3.18.0+g1", "v4.2.4")
    assert not helm_renders_charts("v3.9.0+g1", "v4.2.4")


def test_the_servers_are_told_their_version() -> None:
    assert f"gitVersion={KUBERNETES.version}" in building.linker_flags(KUBERNETES)
    assert building.linker_flags(ETCD) == "-s -w"


def test_another_go_or_module_is_another_build(cache: Path, tmp_path: Path, calls: Path) -> None:
    one, other = fake_go(tmp_path, calls, version="go1.99.0"), fake_go(tmp_path, calls, version="go1.99.1")
    assert building.cached(ETCD, one) != building.cached(ETCD, other)
    assert building.cached(ETCD, one) != building.cached(HELM, one)
    assert building.cached(ETCD, one).parent == cache / "bin"


def test_what_is_built_is_named_like_the_tool_and_kept(cache: Path, tmp_path: Path, calls: Path) -> None:
    go = fake_go(tmp_path, calls)
    said: list[str] = []
    folder = building.build(ETCD, go, said.append, threading.Event())
    assert (folder / "etcd").is_file()
    assert said == [f"built etcd {ETCD.version} in 0 s"]
    again = building.build(ETCD, go, said.append, threading.Event())
    assert again == folder
    assert len(calls.read_text().splitlines()) == 1
    assert [path.name for path in (cache / "bin").iterdir() if not path.name.endswith(".lock")] == [folder.name]


def test_two_at_once_build_once(cache: Path, tmp_path: Path, calls: Path) -> None:
    go = fake_go(tmp_path, calls, body=f"while ! [ -e {tmp_path}/go-on ]; do :; done; {BUILDS}")
    said: list[str] = []
    waits = threading.Event()

    def report(line: str) -> None:
        said.append(line)
        if "waiting" in line:
            waits.set()

    threads = [threading.Thread(target=building.build, args=(ETCD, go, report, threading.Event())) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waits.wait(10)
    (tmp_path / "go-on").touch()
    for thread in threads:
        thread.join(10)
    assert len(calls.read_text().splitlines()) == 1
    assert building.cached(ETCD, go).is_dir()


def test_a_failed_build_is_one_error_with_the_log(cache: Path, tmp_path: Path, calls: Path) -> None:
    go = fake_go(tmp_path, calls, body="echo 'no such module: proxy is down'; exit 1")
    with pytest.raises(ToolFailed, match=r"building etcd .* failed .* proxy is down") as failed:
        building.build(ETCD, go, print, threading.Event())
    log = cache / "bin" / f"{building.cache_key(ETCD, go)}.log"
    assert str(log) in failed.value.next_step
    assert log.is_file()
    assert not building.cached(ETCD, go).exists()


def test_a_stopped_build_leaves_no_process(cache: Path, tmp_path: Path, calls: Path) -> None:
    go = fake_go(tmp_path, calls, body="sleep 600")
    stop = threading.Event()
    stopper = threading.Timer(0.3, stop.set)
    stopper.start()
    with pytest.raises(ToolFailed):
        building.build(ETCD, go, print, stop)
    stopper.join()
    assert not building.cached(ETCD, go).exists()


def test_what_a_killed_build_left_is_cleared(cache: Path, tmp_path: Path, calls: Path) -> None:
    go = fake_go(tmp_path, calls)
    left = cache / "bin" / f".{building.cache_key(ETCD, go)}.12345"
    left.mkdir(parents=True)
    (left / "half").touch()
    building.build(ETCD, go, print, threading.Event())
    assert not left.exists()


def test_a_fitting_program_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = next(tool for tool in TOOLS if tool.name == "etcd")
    program = script(tmp_path / "etcd", f"#!/bin/sh\necho etcd Version: {ETCD.version[1:]}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert on_path(etcd) == program
    assert resolve(print, ["etcd"]) == {"etcd": program}
    script(tmp_path / "etcd", "#!/bin/sh\necho etcd Version: 3.4.1\n")
    assert on_path(etcd) is None
    script(tmp_path / "etcd", "#!/bin/sh\nexit 1\n")
    assert on_path(etcd) is None


def test_everything_missing_is_built_side_by_side(
    cache: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, calls)
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    said: list[str] = []
    found = resolve(said.append)
    assert set(found) == {tool.name for tool in TOOLS}
    assert all(path.is_file() and path.is_relative_to(cache) for path in found.values())
    assert said[0].startswith("building kubernetes v1.")
    assert resolve(said.append) == found


def test_a_failed_build_ends_the_others(
    cache: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'case "$PWD" in */kubernetes) sleep 600 ;; */helm) echo broken; exit 1 ;; esac'
    fake_go(tmp_path, calls, body=body)
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    with pytest.raises(ToolFailed, match=r"building helm .* broken"):
        resolve(print)


def test_an_old_go_on_path_gives_way_to_the_environments_own(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, calls, version="go1.18.0")
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    found = golang.find_go()
    assert found.own
    assert read_version(found.version) >= golang.oldest_go()


def test_no_usable_go_is_an_error_that_says_what_was_seen(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = fake_go(tmp_path, calls, version="go1.18.0")
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    monkeypatch.setattr(golang.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(OpsError) as refused:
        golang.find_go()
    assert f"{go.program} is go1.18.0" in refused.value.summary
    assert "uv sync" in refused.value.next_step


def test_a_build_does_not_depend_on_the_callers_settings(tmp_path: Path, calls: Path) -> None:
    go = fake_go(tmp_path, calls)
    theirs = {"HOME": "/home/me", "GOFLAGS": "-mod=vendor", "GOOS": "plan9", "GOPROXY": "https://p", "GOPATH": "/g"}
    environment = build_environment(go, tmp_path, theirs)
    assert environment["GOFLAGS"] == "-buildvcs=false"
    assert "GOOS" not in environment
    assert (environment["GOPROXY"], environment["GOPATH"]) == ("https://p", "/g")
    assert environment["GOTOOLCHAIN"] == "local"


def test_without_a_go_of_their_own_its_caches_are_ours(tmp_path: Path, calls: Path) -> None:
    go = Go(program=fake_go(tmp_path, calls).program, version="go1.99.0", own=True)
    environment = build_environment(go, tmp_path, {"HOME": "/home/me", "GOPATH": "/g"})
    assert all(environment[name].startswith(str(tmp_path)) for name in ("GOPATH", "GOMODCACHE", "GOCACHE"))


def test_our_own_go_caches_go_when_nobody_builds(tmp_path: Path) -> None:
    (tmp_path / "go" / "mod").mkdir(parents=True)
    (tmp_path / "go" / "mod" / "file").write_bytes(b"1234")
    with golang.using_caches(tmp_path):
        assert golang.clear_own_caches(tmp_path) == 0
        assert (tmp_path / "go").is_dir()
    assert golang.clear_own_caches(tmp_path) == 4
    assert not (tmp_path / "go").exists()
    assert golang.clear_own_caches(tmp_path) == 0


def test_our_own_program_is_built_anew_when_its_source_changed(
    cache: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = fake_go(tmp_path, calls)
    monkeypatch.setattr("lab.toolchain.tools.HERE", tmp_path)
    (tmp_path / "esc" / "evaluator").mkdir(parents=True)
    for name, text in {"go.mod": f"require {ESC.path} v1.2.3\n", "go.sum": "", "evaluator/main.go": "one"}.items():
        (tmp_path / "esc" / name).write_text(text)
    before = building.cached(ESC, go)
    assert building.cached(ESC, go) == before
    (tmp_path / "esc" / "evaluator" / "main.go").write_text("other")
    assert building.cached(ESC, go) != before


def test_a_program_of_ours_is_never_taken_from_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = next(tool for tool in TOOLS if tool.module is ESC)
    script(tmp_path / ours.name, "#!/bin/sh\necho 1.2.3\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert on_path(ours) is None
