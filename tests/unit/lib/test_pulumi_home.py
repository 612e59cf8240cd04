"""A PULUMI_HOME of one run: private, with the user's plugins, gone afterwards."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from runbooks.lib.errors import ToolFailed
from runbooks.lib.pulumi_home import ENVIRONMENT_FILES, NAME, made_private, plugin_folder


def test_it_holds_the_users_plugins_and_leaves_them_behind(tmp_path: Path) -> None:
    run, own = tmp_path / "runs" / "one", tmp_path / "own"
    run.mkdir(parents=True)
    with made_private(run, {"PULUMI_HOME": str(own)}, is_stand_in=False) as home:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        (home / "plugins" / "resource-kubernetes-v4").mkdir()
        (home / "logs").mkdir()
    assert not home.exists()
    assert (own / "plugins" / "resource-kubernetes-v4").is_dir()


def test_a_home_nobody_can_write_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("a file where the folder should be")
    with pytest.raises(ToolFailed, match="for pulumi's plugins cannot be made") as told:
        plugin_folder({"PULUMI_HOME": str(tmp_path / "own")})
    assert "PULUMI_HOME" in told.value.next_step


def test_the_stand_in_needs_no_plugins(tmp_path: Path) -> None:
    with made_private(tmp_path, {"PULUMI_HOME": str(tmp_path / "own")}, is_stand_in=True) as home:
        assert not (home / "plugins").exists()
    assert not (tmp_path / "own").exists()


def test_a_relative_home_is_the_one_below_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plugin_folder({"PULUMI_HOME": "own"}) == tmp_path / "own" / "plugins"


def test_what_a_killed_run_left_in_clear_goes_with_its_home(tmp_path: Path) -> None:
    killed = tmp_path / "runs" / "one"
    for folder in (NAME, ENVIRONMENT_FILES):
        (killed / folder).mkdir(parents=True)
    (killed / ENVIRONMENT_FILES / "0").write_text("the key of a certificate")
    (killed / "kubeconfig").write_text("token: x")
    (killed / "journal.jsonl").write_text("{}\n")
    run = tmp_path / "runs" / "two"
    run.mkdir()
    with made_private(run, {"PULUMI_HOME": str(tmp_path / "own")}, is_stand_in=True):
        assert [path.name for path in killed.iterdir()] == ["journal.jsonl"]
