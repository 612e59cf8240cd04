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
from runbooks.stacks.session import Session
from runbooks.stacks.target import Target
from runbooks.stacks.toolbox import find_kubectl, find_pulumi, find_tools
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


def link(folder: Path, where: Callable[[str], Path]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ANSWERS:
        (folder / name).symlink_to(where(name))
    return folder


# --- what PATH may hold ---------------------------------------------------------------------------------------------


def a_lab(state: Path) -> Path:
    """The `bin` of a lab that was started there, with links to what it built."""
    (state / "lab").mkdir(parents=True, exist_ok=True)
    (state / "lab.lock").touch()
    built = install(state.parent / "cache" / "homelab-ops" / "bin" / "all-v1-0123456789ab")
    return link(state / "lab" / "bin", lambda name: built / name)


def with_lost_lock(tmp: Path, mark: str) -> str:
    folder = a_lab(tmp / ".ops")
    (tmp / ".ops" / "lab.lock").unlink()
    (tmp / ".ops" / "lab" / mark).touch()
    return str(folder)


def a_lab_of(make: Callable[[Path], object]) -> Callable[[Path], str]:
    """A lab whose `bin` holds what `make` puts there."""

    def made(tmp: Path) -> str:
        (tmp / ".ops").mkdir()
        (tmp / ".ops" / "lab.lock").touch()
        make(tmp / ".ops" / "lab" / "bin")
        return str(tmp / ".ops" / "lab" / "bin")

    return made


def behind_a_link(tmp: Path) -> str:
    folder = a_lab(tmp / ".ops")
    (tmp / "short").symlink_to(folder, target_is_directory=True)
    return str(tmp / "short")


def linked_lab(tmp: Path) -> str:
    a_lab(tmp / ".ops")
    (tmp / ".ops" / "lab").rename(tmp / "large-disk")
    (tmp / ".ops" / "lab").symlink_to(tmp / "large-disk", target_is_directory=True)
    return str(tmp / ".ops" / "lab" / "bin")


def relative(tmp: Path) -> str:
    return os.path.relpath(a_lab(tmp / ".ops"), Path.cwd())


def own_links_to(place: Callable[[Path], Path]) -> Callable[[Path], str]:
    def make(tmp: Path) -> str:
        folder = place(a_lab(tmp / ".ops"))
        return str(link(tmp / "home" / "bin", lambda name: folder / name))

    return make


def folder_of_links_in_a_circle(tmp: Path) -> str:
    (tmp / "circle").symlink_to(tmp / "circle")
    return f"{tmp / 'circle'}:{a_lab(tmp / '.ops')}"


SHELLS: dict[str, Callable[[Path], str]] = {
    "after lab.env": lambda tmp: str(a_lab(tmp / ".ops")),
    "after lab.env, the lock is gone, the record is there": lambda tmp: with_lost_lock(tmp, "lab.json"),
    "after lab.env, the lock is gone, the target is there": lambda tmp: with_lost_lock(tmp, "target.json"),
    "after lab.env of two checkouts": lambda tmp: f"{a_lab(tmp / 'one' / '.ops')}:{a_lab(tmp / 'two' / 'state')}",
    "the cache is gone": a_lab_of(lambda folder: link(folder, lambda name: Path("/gone") / name)),
    "links to themselves": a_lab_of(lambda folder: link(folder, lambda name: folder / name)),
    "after lab.reset": a_lab_of(lambda _: None),
    "programs instead of links": a_lab_of(install),
    "a slash at its end": lambda tmp: f"{a_lab(tmp / '.ops')}/",
    "dots in it": lambda tmp: f"{a_lab(tmp / '.ops')}/../../lab/./bin",
    "behind a link": behind_a_link,
    "a lab that is itself a link": linked_lab,
    "relative": relative,
    "the person's links to the lab's links": own_links_to(lambda folder: folder),
    "the person's links to what was built": own_links_to(lambda folder: (folder / "etcd").resolve().parent),
    "what was built": lambda tmp: str((a_lab(tmp / ".ops") / "etcd").resolve().parent),
    "a folder that links to itself": folder_of_links_in_a_circle,
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
    path, own = SHELLS[state](tmp_path), install(tmp_path / "own")
    shell(path)
    assert found() == set()
    shell(f"{path}:{own}")
    assert found() == set(LOOKS)
    assert find_pulumi(target()) == str(own / "pulumi")


def test_path_for_children_is_without_labs(tmp_path: Path) -> None:
    one, two, own = a_lab(tmp_path / ".ops"), a_lab(tmp_path / "other" / "state"), install(tmp_path / "own")
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
