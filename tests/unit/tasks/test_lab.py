"""lab.*: thin over the platform; what they tell and when they ask."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lab import platform
from lab.operators import postgres
from lab.platform.paths import LabPaths
from lab.platform.supervisor import hold_lock
from lab.toolchain import Found
from runbooks.core.errors import NotApproved, NotFound
from runbooks.run import open_session
from runbooks.tasks import lab
from tests.fixtures import Repo


@pytest.fixture
def calls(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """The platform, replaced: it notes what it was asked."""
    asked: list[tuple[str, Path]] = []

    def note(name: str, answer: Any = None) -> Callable[..., Any]:
        def call(state: Path, *_: Any) -> Any:
            asked.append((name, state))
            return answer

        return call

    component = platform.ComponentStatus(
        name="etcd", ready=True, health="ready", version="v3.6.16", pid=42, port=2379, memory=52_000_000
    )
    stopped = platform.ComponentStatus(name="kwok", ready=False, health="stopped", version="v0.8.0", port=10247)
    for name, answer in (("up", None), ("down", None), ("reset", None), ("status", [component, stopped])):
        monkeypatch.setattr(platform, name, note(name, answer))
    exports = {"KUBECONFIG": "/lab/it's/kubeconfig", "PGPORT": "5432"}
    monkeypatch.setattr(platform, "environment", note("environment", exports))
    monkeypatch.setattr("runbooks.run.open_lab_session", lambda *_: nullcontext())
    monkeypatch.setattr("runbooks.stacks.environments.apply_definitions", lambda _: asked.append(("apply", repo.state)))
    return asked


def run(repo: Repo, name: str, **options: Any) -> None:
    getattr(lab, name).body(repo.c, **options)


def test_status_has_one_line_a_part(repo: Repo, calls: list[tuple[str, Path]]) -> None:
    run(repo, "status")
    lines = [line.split() for line in repo.printed().splitlines()]
    assert ["etcd", "42", "2379", "52", "MB", "ready", "v3.6.16"] in lines
    assert ["kwok", "-", "10247", "-", "stopped", "v0.8.0"] in lines
    assert calls == [("status", repo.state)]


def test_status_says_where_each_tool_came_from(
    repo: Repo, calls: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str, version: str, origin: str, program: str) -> Found:
        return Found(name=name, version=version, origin=origin, program=Path(program))

    plugin = repo.home / ".pulumi/plugins/resource-kubernetes-v4.34.0/pulumi-resource-kubernetes"
    tools = [
        found("kubectl", "v1.36.3", "on PATH", "/usr/bin/kubectl"),
        found("pulumi-resource-kubernetes", "v4.34.0", "plugin folder", str(plugin)),
        found("pulumi-resource-kubernetes", "v4.0.0-20260115033456-f47bc2d6f199", "built here", "/cache/provider"),
    ]
    monkeypatch.setattr(platform, "tools", lambda _: tools)
    run(repo, "status")
    lines = [line.rstrip() for line in repo.printed().splitlines()]
    rows = lines[lines.index("Tools of the lab") + 1 :]
    assert [re.split(r" {2,}", line) for line in rows if line][-3:] == [
        ["kubectl", "v1.36.3", "on PATH /usr/bin/kubectl"],
        ["pulumi-resource-kubernetes", "v4.34.0", "plugin folder ~/.pulumi/plugins"],
        ["pulumi-resource-kubernetes", "v4.0.0-20260115", "built here"],
    ]

    repo.c.config.ops.json = True
    monkeypatch.setattr("runbooks.core.reporter._in_use", [])
    run(repo, "status")
    events = [json.loads(line) for line in repo.printed().splitlines()]
    programs = [(event["version"], event["program"]) for event in events if event["event"] == "tool"]
    assert programs == [(tool.version, str(tool.program)) for tool in tools]


@pytest.mark.parametrize("kept", [None, "", "[{}]", '[{"name": "x"}]', '{"kubectl": 1}', '[{"name": "x", "extra": 1}]'])
def test_status_of_a_lab_whose_tools_are_not_known(repo: Repo, calls: list[tuple[str, Path]], kept: str | None) -> None:
    if kept is not None:
        (repo.state / "lab").mkdir(parents=True)
        (repo.state / "lab" / "tools.json").write_text(kept)
    run(repo, "status")
    said = repo.printed()
    assert "etcd" in said and "Tools of the lab" not in said


def test_status_of_a_lab_that_never_ran(repo: Repo) -> None:
    run(repo, "status")
    assert repo.printed() == "There is no lab here; ./inv lab.up starts one.\n"


def test_status_while_another_command_starts_the_lab(repo: Repo) -> None:
    with hold_lock(LabPaths(repo.state), print):
        run(repo, "status")
    assert "Another command" in repo.printed() and "lab.up" not in repo.printed()
    run(repo, "status")
    assert "lab.up" in repo.printed()


def test_status_has_a_line_for_each_postgres(
    repo: Repo, calls: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = repo.state / "lab/postgres/shop/db/data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    running = [postgres.Postmaster(os.getpid(), 5432, data, ready=ready) for ready in (True, False)]
    monkeypatch.setattr(postgres, "servers", lambda folder: running if folder == repo.state / "lab" else [])
    run(repo, "status")
    lines = [line.split() for line in repo.printed().splitlines() if "postgres" in line]
    known = ["postgres", "shop/db", str(os.getpid()), "5432"]
    assert [(words[:4], words[-2:]) for words in lines] == [(known, ["ready", "v18"]), (known, ["starting", "v18"])]


def test_up_and_down_hand_over(repo: Repo, calls: list[tuple[str, Path]]) -> None:
    run(repo, "up")
    run(repo, "down")
    assert [name for name, _ in calls] == ["up", "apply", "status", "down"]
    assert {state for _, state in calls} == {repo.state}


def test_env_prints_what_a_shell_takes(repo: Repo, calls: list[tuple[str, Path]]) -> None:
    (repo.state / "lab").mkdir(parents=True)
    (repo.state / "lab" / "target.json").write_text("{}")
    run(repo, "env")
    told = repo.printed()
    shell = subprocess.run(
        ["sh", "-c", f"{told}\necho $KUBECONFIG $PGPORT"], capture_output=True, text=True, check=True
    )
    assert shell.stdout == "/lab/it's/kubeconfig 5432\n"
    assert all(line.startswith("export ") and shlex.split(line) for line in told.splitlines())


def test_env_of_a_lab_that_never_ran(repo: Repo, calls: list[tuple[str, Path]]) -> None:
    with pytest.raises(NotFound) as caught:
        run(repo, "env")
    assert caught.value.next_step == "./inv lab.up"
    assert calls == []


def test_reset_asks(repo: Repo, calls: list[tuple[str, Path]]) -> None:
    run(repo, "reset")
    assert calls == [], "there is nothing to throw away"
    (repo.state / "lab").mkdir(parents=True)
    with pytest.raises(NotApproved) as caught:
        run(repo, "reset")
    assert caught.value.next_step == "./inv lab.reset --yes"
    assert calls == []

    repo.types("y")
    run(repo, "reset")
    run(repo, "reset", yes=True)
    assert [name for name, _ in calls] == ["reset", "reset"]


@pytest.mark.parametrize("is_up", [False, True])
def test_a_run_on_the_lab_starts_it_first_unless_it_runs(
    repo: Repo, calls: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch, is_up: bool
) -> None:
    monkeypatch.setattr(platform, "is_up", lambda _: is_up)
    repo.c.config.ops.target = "lab"
    with pytest.raises(NotFound), open_session(repo.c, "preview.all"):
        pytest.fail("there is no target.json")
    assert calls == ([] if is_up else [("up", repo.state)])
    assert is_up or repo.printed().startswith("This works on the lab")
