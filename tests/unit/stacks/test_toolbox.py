"""Which tools a run takes: a real target the person's alone, the lab what it chose where theirs does not serve."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from runbooks.core.errors import ToolFailed
from runbooks.stacks.guard import find_kubectl, find_pulumi, find_tools
from runbooks.stacks.target import Target
from runbooks.tools.pulumi_home import LANGUAGE_HOST
from tests import fixtures
from tests.fixtures import ScriptedRunner


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def target(*, ephemeral: bool = False, **tools: Path) -> Target:
    return fixtures.target(ephemeral=ephemeral, tools=MappingProxyType(tools))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    folder = programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(
    ("on_path", "built", "taken"),
    [
        (("pulumi", LANGUAGE_HOST), ("pulumi",), "bin/pulumi"),
        (("pulumi", LANGUAGE_HOST), (), "bin/pulumi"),
        (("pulumi",), ("pulumi",), "built/pulumi"),
        ((), ("pulumi",), "built/pulumi"),
        # The cache was cleared meanwhile.
        (("pulumi",), (), "bin/pulumi"),
        ((), (), ""),
    ],
)
def test_the_lab_takes_its_own_pulumi_where_the_persons_cannot_run_python(
    tmp_path: Path, path: Path, on_path: tuple[str, ...], built: tuple[str, ...], taken: str
) -> None:
    programs(path, *on_path)
    lab = target(ephemeral=True, pulumi=programs(tmp_path / "built", *built) / "pulumi")
    if taken:
        assert find_pulumi(lab) == str(tmp_path / taken)
    else:
        with pytest.raises(ToolFailed) as caught:
            find_pulumi(lab)
        assert caught.value.next_step == "./inv lab.up"


def test_a_real_target_takes_the_pulumi_on_path_or_none(path: Path) -> None:
    with pytest.raises(ToolFailed, match="not on PATH") as caught:
        find_pulumi(target())
    assert "get.pulumi.com" in caught.value.next_step
    assert "the lab's own serves the lab alone" in caught.value.expected
    programs(path, "pulumi")
    assert find_pulumi(target()) == str(path / "pulumi")


def test_a_language_host_beside_the_program_that_a_link_leads_to(tmp_path: Path, path: Path) -> None:
    cellar = programs(tmp_path / "cellar", "pulumi", LANGUAGE_HOST)
    (path / "pulumi").symlink_to(cellar / "pulumi")
    built = programs(tmp_path / "built", "pulumi") / "pulumi"
    assert find_pulumi(target(ephemeral=True, pulumi=built)) == str(path / "pulumi")


@pytest.mark.parametrize(
    ("said", "on_lab", "elsewhere"),
    [
        ("v3.226.9", "built v3.274.1", ""),
        ("v3.227.0", "bin v3.227.0", "bin v3.227.0"),
        ("v4.0.0", "bin v4.0.0", "bin v4.0.0"),
    ],
)
def test_a_pulumi_that_is_too_old(tmp_path: Path, path: Path, said: str, on_lab: str, elsewhere: str) -> None:
    programs(path, "pulumi", LANGUAGE_HOST)
    built = programs(tmp_path / "built", "pulumi")
    runner: Any = ScriptedRunner(((f"{path}/",), said), ((f"{built}/",), "v3.274.1"))

    def found_for(chosen: Target) -> str:
        tools = find_tools(chosen, {}, runner)
        return f"{Path(tools.pulumi).parent.name} {tools.pulumi_version}"

    assert found_for(target(ephemeral=True, pulumi=built / "pulumi")) == on_lab
    if elsewhere:
        assert found_for(target()) == elsewhere
        return
    for chosen, command in ((target(), "get.pulumi.com"), (target(ephemeral=True, pulumi=path / "pulumi"), "lab.up")):
        with pytest.raises(ToolFailed) as caught:
            find_tools(chosen, {}, runner)
        assert {said, "v3.227.0"} <= set(" ".join(caught.value.lines()).split())
        assert command in caught.value.next_step


def test_the_labs_own_kubectl_before_the_one_on_path(tmp_path: Path, path: Path) -> None:
    programs(path, "kubectl")
    own = programs(tmp_path / "own", "kubectl") / "kubectl"
    assert find_kubectl(target(ephemeral=True, kubectl=own)) == str(own)
    assert find_kubectl(target()) == str(path / "kubectl")
    own.unlink()
    assert find_kubectl(target(ephemeral=True, kubectl=own)) == str(path / "kubectl")
