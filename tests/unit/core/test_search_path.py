"""Every look for a program, in every state a shell can be in: it finds the person's own, and never a lab's."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from lab.platform import target as lab_target
from lab.toolchain import of_user, version_of
from lab.toolchain.build import find_go
from lab.toolchain.resolve import ON_PATH
from runbooks.checks.machine import Tool, tool_is_there
from runbooks.core.errors import OpsError
from runbooks.core.search_path import find_program, is_lab, user_path
from runbooks.stacks.guard import find_kubectl, find_pulumi, find_tools
from runbooks.stacks.session import Session
from runbooks.stacks.target import Target
from runbooks.tools.modal import find_modal
from runbooks.tools.network import tailscale_status
from runbooks.tools.pulumi_home import has_language_host
from tests import fixtures
from tests.fixtures import executable

ROOT = Path(__file__).parents[3]
ANSWERS = {
    "etcd": f"etcd Version: {version_of('etcd')[1:]}",
    "kube-apiserver": f"Kubernetes {version_of('kube-apiserver')}",
    "kwok": f"kwok version {version_of('kwok')}",
    "helm": "v4.2.4",
    "pulumi": "v3.300.0",
    "pulumi-language-python": "",
    "pulumi-resource-kubernetes": "",
    "pulumi-resource-postgresql": "",
    "esc": "v1.0.0",
    "go": "go1.99.0",
    "modal": "modal 1.0.0",
    "tailscale": "{}",
    "kubectl": json.dumps({"clientVersion": {"gitVersion": version_of("kube-apiserver")}}),
}
"""What each program says, so that it would serve."""


def install(folder: Path) -> Path:
    """Every program, as a script of its own."""
    for name, answer in ANSWERS.items():
        executable(folder / name, f"echo '{answer}'")
    return folder


def link(folder: Path, programs: Path) -> Path:
    """A link for every program to the one in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ANSWERS:
        (folder / name).symlink_to(programs / name)
    return folder


# --- what PATH may hold ---------------------------------------------------------------------------------------------


def started(tmp: Path, mark: str = "lab.lock", state: str = ".ops") -> Path:
    """The place for the `bin` of a lab, of which this mark is there."""
    (tmp / state / "lab").mkdir(parents=True)
    (tmp / state / mark).touch()
    return tmp / state / "lab" / "bin"


def a_lab(tmp: Path, *place: str) -> Path:
    """The `bin` of a lab that was started there, with links to what it built."""
    return link(started(tmp, *place), built(tmp))


def built(tmp: Path) -> Path:
    return install(tmp / "cache" / "homelab-ops" / "bin" / "all-v1-0123456789ab")


def linked(path: Path, place: Path) -> Path:
    path.symlink_to(place)
    return path


def linked_lab(tmp: Path) -> Path:
    folder = install(started(tmp))
    linked(tmp / ".ops" / "lab", (tmp / ".ops" / "lab").rename(tmp / "large-disk"))
    return folder


SHELLS: dict[str, Callable[[Path], object]] = {
    "after lab.env": a_lab,
    "after lab.env, the lock is gone, the record is there": lambda tmp: install(started(tmp, "lab/lab.json")),
    "after lab.env, the lock is gone, the target is there": lambda tmp: install(started(tmp, "lab/target.json")),
    "after lab.env of two checkouts": lambda tmp: f"{a_lab(tmp)}:{a_lab(tmp / 'two', 'lab.lock', 'state')}",
    "the cache is gone": lambda tmp: link(started(tmp), Path("/gone")),
    "links to themselves": lambda tmp: link(started(tmp), tmp / ".ops/lab/bin"),
    "after lab.reset": started,
    "programs instead of links": lambda tmp: install(started(tmp)),
    "a slash at its end": lambda tmp: f"{a_lab(tmp)}/",
    "dots in it": lambda tmp: f"{a_lab(tmp)}/../../lab/./bin",
    "behind a link": lambda tmp: linked(tmp / "short", a_lab(tmp)),
    "a lab that is itself a link": linked_lab,
    "relative": lambda tmp: os.path.relpath(a_lab(tmp)),
    "the person's links to the lab's links": lambda tmp: link(tmp / "home" / "bin", a_lab(tmp)),
    "the person's links to what was built": lambda tmp: link(tmp / "home" / "bin", built(tmp)),
    "what was built": built,
    "a folder that links to itself": lambda tmp: f"{linked(tmp / 'circle', tmp / 'circle')}:{a_lab(tmp)}",
}


# --- who looks ------------------------------------------------------------------------------------------------------


def target(**tools: Path) -> Target:
    return fixtures.target(tools=MappingProxyType(tools))


class Running:
    """Answers as the program would."""

    def run(self, command: Any, **_: Any) -> Any:
        return SimpleNamespace(ok=True, stdout=ANSWERS[Path(command.argv[0]).name], stderr="", exit_code=0)


RUNNER: Any = Running()
NEWEST: Any = SimpleNamespace(run=lambda _: SimpleNamespace(ok=True, stdout="v3.274.1"))


def session() -> Any:
    return SimpleNamespace(env={"PULUMI_HOME": "/h"}, target=target(), tools=SimpleNamespace(pulumi="/p"))


LOOKS: dict[str, Callable[[], object]] = {
    "pulumi": lambda: find_pulumi(target()),
    "its language host": lambda: has_language_host(Path("/nowhere/pulumi")),
    "kubectl": lambda: find_kubectl(target()),
    "helm": lambda: find_tools(target(pulumi=ROOT / "inv"), {}, NEWEST).helm,
    "esc": lambda: not Session.esc.fget(session()).is_pulumi,
    "modal": lambda: find_modal({}),
    "tailscale": lambda: tailscale_status(RUNNER) is not None,
    "doctor": lambda: tool_is_there(Tool(name="helm", version=("version",), install=""), RUNNER).ok,
    "the lab's go": find_go,
    "the lab's kubectl": lambda: lab_target.kubectl().origin == ON_PATH,
    **{
        f"the lab's {name}": lambda name=name: of_user(name)
        for name in ANSWERS
        if name.startswith("pulumi-resource-") or name in ("etcd", "kube-apiserver", "kwok", "helm", "pulumi", "esc")
    },
}


def found() -> set[str]:
    """Who found something."""
    seen = set()
    for name, look in LOOKS.items():
        try:
            if look():
                seen.add(name)
        except OpsError:
            continue
    return seen


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets PATH. The Python environment holds nothing, and built programs are in `cache`."""
    for variable in ("PULUMI_HOME", "PULUMI_IGNORE_AMBIENT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "bin" / "python"))
    return lambda path: monkeypatch.setenv("PATH", path)


@pytest.mark.parametrize("state", SHELLS)
def test_a_look_finds_nothing_of_a_labs_and_the_persons_own_behind_it(
    tmp_path: Path, shell: Callable[[str], None], state: str
) -> None:
    path, own = str(SHELLS[state](tmp_path)), install(tmp_path / "own")
    shell(path)
    assert found() == set()
    shell(f"{path}:{own}")
    assert found() == set(LOOKS)
    assert find_pulumi(target()) == str(own / "pulumi")


def test_path_for_children_is_without_labs(tmp_path: Path) -> None:
    one, two, own = a_lab(tmp_path), a_lab(tmp_path / "other"), install(tmp_path / "own")
    assert user_path({"PATH": f"{one}:{own}:{two}:/bin:/:"}) == f"{own}:/bin:/:"


@pytest.mark.parametrize("name", ["lab/bin", "lab/tools", "laboratory/bin"])
def test_a_folder_of_the_persons_that_is_called_so_is_theirs(tmp_path: Path, name: str) -> None:
    own = install(tmp_path / name)
    (tmp_path / "target.json").touch()
    assert find_program("helm", {"PATH": str(own)}) == own / "helm"
    assert not is_lab(tmp_path / "lab")


def test_an_empty_entry_of_path_is_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(install(tmp_path / "own"))
    assert find_program("helm", {"PATH": "/nowhere:"}) == tmp_path / "own" / "helm"


def test_there_is_one_place_that_looks() -> None:
    """The runner and `place_of` ask what a child finds on the PATH that it gets."""
    looks = re.compile(r"shutil\.which|get_exec_path|find_executable")
    files = [path for folder in ("runbooks", "lab") for path in (ROOT / folder).rglob("*.py")]
    with_a_look = {path.relative_to(ROOT).as_posix() for path in files if looks.search(path.read_text("utf-8"))}
    assert with_a_look == {f"runbooks/{name}.py" for name in ("core/search_path", "core/runner", "tools/pulumi_home")}
