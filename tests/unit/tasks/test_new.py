"""new.service: a complete folder or none, in its place or nowhere, under a name that nobody has."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import OpsError, Refused, ToolFailed, Usage
from runbooks.stacks import scaffolding
from runbooks.tasks import new
from tests.fixtures import Repo

FOLDER = "pulumi/apps/web/tryout"
FILES = {"Pulumi.yaml", "Pulumi.mx.yaml", "Pulumi.lab.yaml", "__main__.py", "app.py", "settings.py", "README.md"}


def tree(repo: Repo) -> set[Path]:
    return set((repo.root / "pulumi").rglob("*"))


def wanted(repo: Repo, name: str = "tryout", folder: str = FOLDER) -> scaffolding.Project:
    return scaffolding.read_project(repo.root, (), name, folder, image="", port="", about="")


def test_the_folder_is_complete_and_the_entry_is_printed(repo: Repo) -> None:
    new.service.body(repo.c, "tryout", folder=FOLDER, image="stefanprodan/podinfo:6.7.1", port="9898")
    folder = repo.root / FOLDER
    assert {path.name for path in folder.iterdir()} == FILES
    assert 'IMAGE = "stefanprodan/podinfo:6.7.1"\nPORT = 9898\n' in (folder / "settings.py").read_text()
    assert "virtualenv: ../../../../.venv\n" in (folder / "Pulumi.yaml").read_text()
    assert all("$" not in path.read_text() for path in folder.iterdir())
    told = repo.printed()
    assert '\n    Service(\n        name="tryout",\n        folder="apps/web/tryout",\n' in told
    for command in ("scripts/write_tables.py", "./inv check", "./inv deploy.tryout"):
        assert command in told
    assert not repo.calls("pulumi") and not repo.calls("kubectl")


def test_others_can_read_what_was_written(repo: Repo) -> None:
    before = os.umask(0o022)
    try:
        scaffolding.write(wanted(repo), repo.root)
    finally:
        os.umask(before)
    folder = repo.root / FOLDER
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("is empty", [""]),
        ("starts with a dash", ["-tryout"]),
        ("white space", ["pod info"]),
        (
            "not a valid name",
            ["Podinfo", "pod_info", "pod.info", "tryout-", "9lives", "pödinfo", "../tryout", "a" * 64],
        ),
        ("is taken", ["all", "default", "kube-system"]),
        ("of the service", ["glance", "postgresql", "cnpg-system"]),
    ],
)
def test_a_name_that_will_not_do(repo: Repo, said: str, names: list[str]) -> None:
    before = tree(repo)
    for name in names:
        with pytest.raises(Usage, match=said) as refused:
            new.service.body(repo.c, name, folder=f"pulumi/apps/web/{name}")
        assert refused.value.expected and tree(repo) == before


INVALID = [
    "apps/web/tryout", "/etc/tryout", "../pulumi/apps/tryout", "pulumi", "pulumi/tryout", "pulumi/app/tryout",
    "pulumi/lib/tryout", "pulumi/apps/../../tryout", "pulumi/apps/.hidden/tryout", "pulumi/apps/My Web/tryout",
    "pulumi/apps/web/other", "pulumi/apps/" + "deep/" * 20 + "tryout",
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said", "folders"),
    [
        (Usage, "no folder was named", [""]),
        (Usage, "not a valid folder", INVALID),
        (Refused, "inside the project glance", ["pulumi/apps/web/glance/tryout"]),
    ],
)
def test_a_place_that_will_not_do(repo: Repo, error: type[OpsError], said: str, folders: list[str]) -> None:
    (repo.root / "pulumi/lib").mkdir()
    before = tree(repo)
    for folder in folders:
        with pytest.raises(error, match=said):
            new.service.body(repo.c, "tryout", folder=folder)
        assert tree(repo) == before


@pytest.mark.parametrize(
    ("folder", "occupy"),
    [
        (FOLDER, lambda place, _: place.mkdir() or (place / ".keep").touch()),
        (FOLDER, lambda place, _: place.write_text("mine")),
        (FOLDER, lambda place, elsewhere: place.symlink_to(elsewhere)),
        ("pulumi/apps/linked/tryout", lambda place, elsewhere: place.parent.symlink_to(elsewhere)),
        ("pulumi/apps/file/tryout", lambda place, _: place.parent.touch()),
    ],
    ids=["file in it", "a file", "a link", "a link above", "a file above"],
)
def test_what_is_there_stays(repo: Repo, folder: str, occupy: Callable[[Path, Path], object]) -> None:
    elsewhere = repo.home / "elsewhere"
    elsewhere.mkdir()
    occupy(repo.root / folder, elsewhere)
    before = tree(repo)
    with pytest.raises(Refused):
        new.service.body(repo.c, "tryout", folder=folder)
    assert tree(repo) == before and not list(elsewhere.iterdir())


def test_an_empty_folder_is_as_good_as_none(repo: Repo) -> None:
    (repo.root / FOLDER).mkdir()
    new.service.body(repo.c, "tryout", folder=str(repo.root / FOLDER))
    assert {path.name for path in (repo.root / FOLDER).iterdir()} == FILES


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("image", ["tryout", "tryout:latest", "a b:1", 'x"y:1', "-x:1", "x:1" + "0" * 110]),
        ("port", ["80", "65536", "x", "-1", "1e4", "٨٠٨٠", "8080.0"]),
        ("about", ['says "hi"', "a\nb", "a | b", "`x`", "back\\slash", "<b>", " . ", "x" * 91]),
    ],
)
def test_options_that_would_break_a_file_or_the_service_are_refused(repo: Repo, option: str, values: list[str]) -> None:
    before = tree(repo)
    for value in values:
        with pytest.raises(Usage, match={"about": "description"}.get(option, option)):
            new.service.body(repo.c, "tryout", folder=FOLDER, **{option: value})
    assert tree(repo) == before


@pytest.mark.parametrize("folder", [FOLDER, "pulumi/apps/new/room/tryout"])
@pytest.mark.parametrize(
    ("error", "becomes"),
    [(OSError(errno.ENOSPC, "No space left on device"), ToolFailed), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_half_a_project_is_never_left(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, folder: str, error: BaseException, becomes: type[BaseException]
) -> None:
    before = tree(repo)
    project = wanted(repo, folder=folder)
    disk = iter([Path.write_text] * 2)

    def write(*args: Any, **options: Any) -> int:
        """The disk takes two files and no more."""
        if takes := next(disk, None):
            return takes(*args, **options)
        raise error

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(becomes):
        scaffolding.write(project, repo.root)
    assert next(disk, None) is None and tree(repo) == before


def test_what_comes_into_its_place_meanwhile_wins(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    project, place = wanted(repo), repo.root / FOLDER

    def slow(project: scaffolding.Project) -> dict[str, str]:
        place.mkdir()
        (place / "mine").write_text("mine")
        return {"a": "b"}

    monkeypatch.setattr(scaffolding, "files_of", slow)
    with pytest.raises(Refused, match="another process"):
        scaffolding.write(project, repo.root)
    assert [path.name for path in place.iterdir()] == ["mine"]
    assert not [path for path in place.parent.iterdir() if path.name.startswith(".")]
