"""Which provider plugins pulumi wants, and where it would find them."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from runbooks.tools.plugins import Plugin, place_of, wanted_plugins

PLUGIN = Plugin(name="postgresql", version="3.18.2")


def test_the_plugins_of_the_installed_sdks() -> None:
    found = {plugin.name: plugin.version for plugin in wanted_plugins()}
    assert found == {name: version(f"pulumi-{name}") for name in ("kubernetes", "postgresql")}


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
    ("name", "found"),
    [
        ("resource-postgresql-v3.18.2", True),
        ("resource-postgresql-v3.18.1", False),
        ("resource-postgresql-v3.19.0", False),
        ("resource-kubernetes-v3.18.2", False),
    ],
)
def test_the_folder_has_it_in_exactly_that_version(tmp_path: Path, name: str, found: bool) -> None:
    program(tmp_path / name)
    assert place_of(PLUGIN, tmp_path, {"PATH": ""}) == (str(tmp_path / name) if found else "")


def test_half_an_installation_is_none(tmp_path: Path) -> None:
    kept = tmp_path / "resource-postgresql-v3.18.2"
    kept.mkdir()
    assert place_of(PLUGIN, tmp_path, {"PATH": ""}) == ""
    program(kept)
    kept.with_name(f"{kept.name}.partial").touch()
    assert place_of(PLUGIN, tmp_path, {"PATH": ""}) == ""


@pytest.mark.parametrize(("ignored", "found"), [("", True), ("false", True), ("true", False), ("1", False)])
def test_on_path_any_version_does_unless_path_is_ignored(tmp_path: Path, ignored: str, found: bool) -> None:
    made = program(tmp_path / "bin")
    environ = {"PATH": str(made.parent), "PULUMI_IGNORE_AMBIENT_PLUGINS": ignored}
    assert place_of(PLUGIN, tmp_path / "plugins", environ) == (str(made) if found else "")
