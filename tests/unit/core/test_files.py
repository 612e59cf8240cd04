"""Files of ours: whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from runbooks.core.errors import STATE_FOLDER
from runbooks.core.files import IN_PLACE, Unwritable, make_folder, write_atomically, write_new, writing
from tests.unit.disk import mount_read_only, no_file_beyond

LONG = "x" * 5000


def test_a_new_file_is_private_and_never_an_old_one(tmp_path: Path) -> None:
    write_new(tmp_path / "new", "text", "it")
    assert (tmp_path / "new").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    with pytest.raises(Unwritable, match=r"it .*File exists"):
        write_new(tmp_path / "new", "other", "it")
    assert (tmp_path / "new").read_text() == "text"


@pytest.mark.parametrize("size", [0, 1, 4999])
def test_half_a_new_file_is_not_left_behind(tmp_path: Path, size: int) -> None:
    with no_file_beyond(size), pytest.raises(Unwritable) as told:
        write_new(tmp_path / "new", LONG, "the thing")
    assert all(part in told.value.summary for part in ("the thing", "File too large", str(tmp_path / "new")))
    assert told.value.exit_code == 1 and told.value.next_step == STATE_FOLDER
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 4999])
def test_what_was_there_stays_when_the_new_text_does_not_fit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("old\n")
    with no_file_beyond(size), pytest.raises(Unwritable, match=r"settings\.yaml .*File too large") as told:
        write_atomically(path, LONG)
    assert told.value.next_step == IN_PLACE
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.yaml"] and path.read_text() == "old\n"
    with no_file_beyond(5000):
        write_atomically(path, LONG, mode=0o600)
    assert path.read_text() == LONG and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_system_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("old\n")
    mount_read_only(tmp_path, monkeypatch)
    with pytest.raises(Unwritable, match=r"the folder .*Read-only file system"):
        make_folder(tmp_path / "b" / "c", "the folder")
    with pytest.raises(Unwritable, match="Read-only file system"):
        write_atomically(tmp_path / "a", "new\n")
    with pytest.raises(Unwritable, match="Read-only file system"):
        write_new(tmp_path / "b", "new\n", "it")
    assert (tmp_path / "a").read_text() == "old\n" and len(list(tmp_path.iterdir())) == 1


def test_only_errors_of_the_file_system_are_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), writing("it", tmp_path):
        raise ValueError("mine")
