"""The guard: the pinned cluster or nothing; and which tools a run takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import yaml

from runbooks.core.command import Command
from runbooks.core.errors import OutOfTime, Refused, ToolFailed
from runbooks.stacks.guard import confirm_cluster, find_kubectl, find_pulumi, find_tools, private_kubeconfig
from runbooks.stacks.target import Target
from runbooks.tools.kubectl import Kubectl
from runbooks.tools.pulumi_home import LANGUAGE_HOST
from tests import fixtures
from tests.fixtures import UID, ScriptedRunner, kubeconfig, namespace


@pytest.fixture
def target(tmp_path: Path) -> Target:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig()))
    return fixtures.target(kubeconfig=path, cluster_uid=UID)


def guard(target: Target, tmp_path: Path, reply: Any) -> ScriptedRunner:
    context, private = private_kubeconfig(target, tmp_path)
    runner = ScriptedRunner((("get", "namespace"), reply))
    kubectl = Kubectl(program="kubectl", kubeconfig=private)
    session: Any = SimpleNamespace(target=target, context=context, kubectl=kubectl, runner=runner)
    confirm_cluster(session)
    return runner


def test_the_pinned_cluster_passes_and_is_asked_through_the_private_kubeconfig(target: Target, tmp_path: Path) -> None:
    runner = guard(target, tmp_path, namespace(uid=UID))
    assert f"--kubeconfig={tmp_path / 'kubeconfig'}" in runner.commands[0].argv
    assert "--request-timeout=10s" in runner.commands[0].argv
    assert json.loads((tmp_path / "kubeconfig").read_text())["current-context"] == "home"


def test_another_cluster_is_refused_with_both_identities(target: Target, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        guard(target, tmp_path, namespace(uid="ffff-0000"))
    assert "ffff-0000" in caught.value.summary
    assert "https://10.0.0.2:6443" in caught.value.summary
    assert UID in caught.value.expected
    assert "target.show" in caught.value.next_step
    assert caught.value.exit_code == 5


def test_an_unpinned_target_is_refused_with_the_command_that_pins(target: Target, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        guard(replace(target, cluster_uid=""), tmp_path, namespace(uid=UID))
    assert caught.value.next_step == "./inv --target home target.pin"
    assert UID in caught.value.summary


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        ((1, "", "Unable to connect to the server: dial tcp 10.0.0.2:6443: i/o timeout"), "does not answer"),
        ((1, "", "error: You must be logged in to the server (Unauthorized)"), "does not accept the credentials"),
        ((1, "", 'Error from server (NotFound): namespaces "kube-system" not found'), "does not exist"),
        ((0, "<html>", ""), "not JSON"),
        (namespace(uid=""), "no UID"),
        (namespace(name="default"), "no UID"),
        ({}, "no UID"),
    ],
)
def test_a_cluster_that_does_not_say_who_it_is_is_refused(
    target: Target, tmp_path: Path, reply: Any, seen: str
) -> None:
    with pytest.raises(Refused) as caught:
        guard(target, tmp_path, reply)
    assert seen in caught.value.summary
    assert UID in caught.value.expected
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("why", "named"),
    [
        ("executable kubelogin not found", "login plug-in kubelogin"),
        ("plugin cannot support interactive mode: standard input is not a terminal", "interactiveMode"),
        ("executable kubelogin failed with exit code 1", "above"),
    ],
)
def test_why_a_login_plugin_failed(target: Target, tmp_path: Path, why: str, named: str) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "kubelogin"}
    target.kubeconfig.write_text(yaml.safe_dump(kubeconfig(user={"exec": plugin})))
    with pytest.raises(Refused) as caught:
        guard(target, tmp_path, (1, "", f"Unable to connect to the server: getting credentials: exec: {why}"))
    assert named in caught.value.summary.partition("likely")[2]


def test_a_login_plugin_that_hangs_is_named(target: Target, tmp_path: Path) -> None:
    def hang(_: Command) -> None:
        raise OutOfTime("kubectl did not answer")

    for user, is_named in (({"exec": {"command": "kubelogin"}}, True), ({"token": "t"}, False)):
        target.kubeconfig.write_text(yaml.safe_dump(kubeconfig(user=user)))
        with pytest.raises(OutOfTime) as caught:
            guard(target, tmp_path, hang)
        assert ("kubelogin" in caught.value.summary) is is_named


@pytest.mark.parametrize("context", ["", "absent"])
def test_an_empty_or_missing_context_is_refused_before_anything_starts(
    target: Target, tmp_path: Path, context: str
) -> None:
    with pytest.raises(Refused):
        private_kubeconfig(replace(target, context=context), tmp_path)
    assert not (tmp_path / "kubeconfig").exists()


# Config that leads elsewhere


# The tools of a run: a real target takes those of the user alone, the lab what it chose where theirs do not serve


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def target_with(*, ephemeral: bool = False, **tools: Path) -> Target:
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
    lab = target_with(ephemeral=True, pulumi=programs(tmp_path / "built", *built) / "pulumi")
    if taken:
        assert find_pulumi(lab) == str(tmp_path / taken)
    else:
        with pytest.raises(ToolFailed) as caught:
            find_pulumi(lab)
        assert caught.value.next_step == "./inv lab.up"


def test_a_real_target_takes_the_pulumi_on_path_or_none(path: Path) -> None:
    with pytest.raises(ToolFailed, match="not on PATH") as caught:
        find_pulumi(target_with())
    assert "get.pulumi.com" in caught.value.next_step
    assert "the lab's own serves the lab alone" in caught.value.expected
    programs(path, "pulumi")
    assert find_pulumi(target_with()) == str(path / "pulumi")


def test_a_language_host_beside_the_program_that_a_link_leads_to(tmp_path: Path, path: Path) -> None:
    cellar = programs(tmp_path / "cellar", "pulumi", LANGUAGE_HOST)
    (path / "pulumi").symlink_to(cellar / "pulumi")
    built = programs(tmp_path / "built", "pulumi") / "pulumi"
    assert find_pulumi(target_with(ephemeral=True, pulumi=built)) == str(path / "pulumi")


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

    assert found_for(target_with(ephemeral=True, pulumi=built / "pulumi")) == on_lab
    if elsewhere:
        assert found_for(target_with()) == elsewhere
        return
    for chosen, command in (
        (target_with(), "get.pulumi.com"),
        (target_with(ephemeral=True, pulumi=path / "pulumi"), "lab.up"),
    ):
        with pytest.raises(ToolFailed) as caught:
            find_tools(chosen, {}, runner)
        assert {said, "v3.227.0"} <= set(" ".join(caught.value.lines()).split())
        assert command in caught.value.next_step


def test_the_labs_own_kubectl_before_the_one_on_path(tmp_path: Path, path: Path) -> None:
    programs(path, "kubectl")
    own = programs(tmp_path / "own", "kubectl") / "kubectl"
    assert find_kubectl(target_with(ephemeral=True, kubectl=own)) == str(own)
    assert find_kubectl(target_with()) == str(path / "kubectl")
    own.unlink()
    assert find_kubectl(target_with(ephemeral=True, kubectl=own)) == str(path / "kubectl")
