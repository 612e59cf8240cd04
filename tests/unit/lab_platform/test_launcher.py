"""The `pulumi` of a shell of the lab: which config it names for the real one, by folder, stack and backend."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.platform import target
from lab.platform.paths import LabPaths
from tests.fixtures import executable

CLOUD = "http://127.0.0.1:8400"
SAYS = 'echo "${PULUMI_OPTION_CONFIG_FILE:-none}|$*"\n[ "$2" != select ]'


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    paths = LabPaths(tmp_path / "state")
    paths.prepare()
    for folder in (paths.stacks / "one", paths.stacks / "two", paths.file_stacks / "one"):
        folder.mkdir()
        (folder / "Pulumi.lab.yaml").touch()
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "Pulumi.yaml").write_text(f'name: "{name}"  # a comment\nruntime: python\nname: other\n')
    target.write_launcher(paths, executable(tmp_path / "real", SAYS), CLOUD)
    return paths


def typed(
    paths: LabPaths, *words: str, backend: str = CLOUD, program: str = "pulumi", **more: str
) -> tuple[str, str, str]:
    """The config that the real pulumi is given, its arguments, and what is printed besides."""
    done = subprocess.run(
        [paths.bin / program, *words],
        cwd=paths.state_dir.parent / "one",
        env={"PATH": "/usr/bin:/bin", "PULUMI_BACKEND_URL": backend, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    config, _, arguments = done.stdout.strip().partition("|")
    return config, arguments, done.stderr


@pytest.mark.parametrize(
    ("words", "more", "config"),
    [
        (("preview",), {}, "stacks/one"),
        (("-C", "deep", "preview"), {}, "stacks/one"),
        (("-C", "../two", "preview"), {}, "stacks/two"),
        (("-C../two", "preview"), {}, "stacks/two"),
        (("--cwd=../two/deep", "preview"), {}, "stacks/two"),
        (("preview", "--stack", "organization/one/lab"), {}, "stacks/one"),
        (("preview", "-s", "lab"), {}, "stacks/one"),
        (("preview", "--stack", "other"), {}, "none"),
        (("preview", "-sother"), {}, "none"),
        (("preview",), {"PULUMI_STACK": "other"}, "none"),
        (("preview", "--", "-C", "../two"), {}, "stacks/one"),
        (("-C", "..", "preview"), {}, "none"),
        (("preview",), {"backend": "https://api.pulumi.com"}, "none"),
        (("preview",), {"backend": "files"}, "file-stacks/one"),
    ],
)
def test_the_config_is_that_of_project_stack_and_backend(
    paths: LabPaths, words: tuple[str, ...], more: dict[str, str], config: str
) -> None:
    if more.get("backend") == "files":
        more = {"backend": f"file://{paths.backend}"}
    seen, arguments, _ = typed(paths, *words, **more)
    assert seen == ("none" if config == "none" else f"{paths.lab}/{config}/Pulumi.lab.yaml")
    assert arguments == " ".join(words)


def test_a_removed_stack_keeps_the_template(paths: LabPaths) -> None:
    assert typed(paths, "stack", "rm", "lab", "--yes")[1].endswith("--yes --preserve-config")


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (("open", "stitch/prod"), "env open stitch/prod"),
        (("env", "ls"), "env ls"),
        (("run", "stitch/prod", "--", "env"), "env run stitch/prod -- env"),
        (("version",), "version"),
    ],
)
def test_esc_where_there_is_only_pulumi(paths: LabPaths, words: tuple[str, ...], arguments: str) -> None:
    target.link_tools(paths, [])
    assert typed(paths, *words, program="esc")[1] == arguments


def test_plugins_in_a_folder_of_the_lab_move_to_the_users(paths: LabPaths, tmp_path: Path) -> None:
    link, users = paths.credentials / "plugins", tmp_path / "home" / "plugins"
    link.unlink()
    for folder, text in ((link / "resource-one", "lab"), (link / "resource-two", "lab"), (users / "resource-two", "")):
        folder.mkdir(parents=True)
        (folder / "plugin").write_text(text)
    target.write_launcher(paths, tmp_path / "real", CLOUD)
    assert link.is_symlink()
    assert link.resolve() == users
    assert {path.parent.name: path.read_text() for path in users.glob("*/plugin")} == {
        "resource-one": "lab",
        "resource-two": "",
    }
