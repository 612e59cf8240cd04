"""A PULUMI_HOME of one run: private, with the user's plugins, removed afterwards; and where plugins are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbooks.core.files import Unwritable
from runbooks.tools.pulumi_home import (
    LANGUAGE_HOST,
    Plugin,
    has_language_host,
    place_of,
    plugin_folder,
    user_credentials,
    user_home,
    wanted_plugins,
)
from tests.fixtures import executable


def test_a_home_that_cannot_be_written_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("a file where the folder should be")
    with pytest.raises(Unwritable, match="for pulumi's plugins") as told:
        plugin_folder({"PULUMI_HOME": str(tmp_path / "own")})
    assert "PULUMI_HOME" in told.value.next_step


@pytest.mark.parametrize("mark", ["lab.lock", "lab/lab.json", "lab/target.json"])
def test_what_lab_env_put_there_is_no_home_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """Also after `lab.reset`, which leaves nothing but the lock: else the lab's folder of plugins leads to itself."""
    (tmp_path / "lab").mkdir()
    (tmp_path / mark).touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    of_lab = str(tmp_path / "lab" / "pulumi")
    assert user_home({"PULUMI_HOME": of_lab}) == tmp_path / "home" / ".pulumi"
    assert user_credentials({"PULUMI_HOME": of_lab, "PULUMI_CREDENTIALS_PATH": of_lab}) == tmp_path / "home" / ".pulumi"


def test_a_relative_home_is_the_one_below_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plugin_folder({"PULUMI_HOME": "own"}) == tmp_path / "own" / "plugins"


PLUGIN = Plugin(name="postgresql", version="3.18.2")


def test_an_sdk_without_a_plugin_asks_for_none(tmp_path: Path) -> None:
    for name, said in (("a", {"resource": False}), ("b", {"resource": True, "name": "b", "version": "1.0.0"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pulumi-plugin.json").write_text(json.dumps(said))
    (plugin,) = wanted_plugins(tmp_path)
    assert plugin.install == "pulumi plugin install resource b v1.0.0"


def program(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "pulumi-resource-postgresql"
    made.touch(mode=0o755)
    return made


@pytest.mark.parametrize(
    ("name", "found"), [("postgresql-v3.18.2", True), ("postgresql-v3.18.1", False), ("kubernetes-v3.18.2", False)]
)
def test_the_folder_has_it_whole_and_in_exactly_that_version(tmp_path: Path, name: str, found: bool) -> None:
    folder = tmp_path / f"resource-{name}"
    folder.mkdir()
    assert place_of(PLUGIN, tmp_path, {"PATH": ""}) == ""
    program(folder)
    assert place_of(PLUGIN, tmp_path, {"PATH": ""}) == (str(folder) if found else "")
    folder.with_name(f"{folder.name}.partial").touch()
    assert place_of(PLUGIN, tmp_path, {"PATH": ""}) == ""


@pytest.mark.parametrize(("ignored", "found"), [("", True), ("false", True), ("true", False), ("1", False)])
def test_on_path_any_version_does_unless_path_is_ignored(tmp_path: Path, ignored: str, found: bool) -> None:
    made = program(tmp_path / "bin")
    environ = {"PATH": str(made.parent), "PULUMI_IGNORE_AMBIENT_PLUGINS": ignored}
    assert place_of(PLUGIN, tmp_path / "plugins", environ) == (str(made) if found else "")


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("pulumi", True),
        ("path", True),
        ("home/plugins/language-python-v3.276.0", True),
        ("home/plugins/language-nodejs-v3.276.0", False),
    ],
)
def test_where_pulumi_finds_its_language_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, found: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    assert not has_language_host(tmp_path / "pulumi" / "pulumi")
    executable(tmp_path / folder / LANGUAGE_HOST)
    assert has_language_host(tmp_path / "pulumi" / "pulumi") is found
