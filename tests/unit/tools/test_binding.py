"""`environment:` of a stack file: bound once, unbound everywhere, every other line as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runbooks.core.errors import Usage
from runbooks.tools.binding import bind, bound_names, is_same, unbind

COMMENTED = """\
# Stitch on mx.
environment:
  # what everybody shares
  - shared/base # first
  - stitch/prod   # bound in May
config:
  # where it lives
  stitch:namespace: 'stitch' # quoted on purpose
"""

CASES = {
    "no file": None,
    "empty": "",
    "settings only": "config:\n  a:b: 1 # one\n",
    "empty list": "environment: []\nconfig: {}\n",
    "null": "environment: # none yet\nconfig:\n  a:b: 1\n",
    "another": "environment:\n- other/x\nconfig: {}",
    "in one line": "environment: [other/x]\nconfig: {}\n",
    "windows": "environment:\r\n  - other/x\r\nconfig:\r\n  a:b: 1\r\n",
    "with options": "environment:\n  - other/x: {merge: false}\n",
    "comment only": "# nothing yet\n",
}


def write(path: Path, text: str | None) -> Path:
    if text is not None:
        path.write_bytes(text.encode())
    return path


def names(path: Path) -> list[str]:
    return bound_names(yaml.safe_load(path.read_text()) or {}, path)


@pytest.mark.parametrize("case", CASES)
def test_binding_twice_binds_once_and_unbinding_gives_the_settings_back(tmp_path: Path, case: str) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", CASES[case])
    before = yaml.safe_load(CASES[case] or "") or {}
    assert bind(path, "stitch/prod")
    once = path.read_bytes()
    assert names(path)[-1] == "stitch/prod" and names(path).count("stitch/prod") == 1
    assert not bind(path, "stitch/prod")
    assert path.read_bytes() == once
    assert unbind(path, "stitch/prod") == 1
    after = yaml.safe_load(path.read_text()) or {}
    assert {key: value for key, value in after.items() if value} == {
        key: value for key, value in before.items() if value
    }
    assert unbind(path, "stitch/prod") == 0


def test_every_other_line_stays_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", COMMENTED.replace("  - stitch/prod   # bound in May\n", ""))
    bind(path, "stitch/prod")
    assert path.read_text() == COMMENTED.replace("   # bound in May", "")


def test_unbinding_keeps_the_comments(tmp_path: Path) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", COMMENTED)
    assert unbind(path, "stitch/prod") == 1
    assert path.read_text() == COMMENTED.replace("  - stitch/prod   # bound in May", "  # bound in May")
    assert unbind(path, "shared/base") == 1
    for comment in ("# Stitch on mx.", "# what everybody shares", "# first", "# bound in May", "# quoted on purpose"):
        assert comment in path.read_text()
    assert yaml.safe_load(path.read_text()) == {"config": {"stitch:namespace": "stitch"}}


def test_a_name_bound_several_times_keeps_its_last_place(tmp_path: Path) -> None:
    text = "environment:\n  - stitch/prod\n  - other/x\n  - acme/stitch/prod@3 # pinned\n"
    path = write(tmp_path / "Pulumi.mx.yaml", text)
    assert bind(path, "stitch/prod")
    assert names(path) == ["other/x", "acme/stitch/prod@3"], "later ones win, so the order decides"


def test_unbinding_removes_every_occurrence(tmp_path: Path) -> None:
    text = "environment:\n  - stitch/prod\n  - other/x\n  - stitch/prod\n  - stitch/prod@3\nconfig: {}\n"
    path = write(tmp_path / "Pulumi.mx.yaml", text)
    assert unbind(path, "stitch/prod") == 3
    assert path.read_text() == "environment:\n  - other/x\nconfig: {}\n"


@pytest.mark.parametrize(
    ("entry", "same"),
    [
        ("stitch/prod", True),
        ("acme/stitch/prod", True),
        ("stitch/prod@3", True),
        ("stitch/prod:stable", True),
        ("stitch/production", False),
        ("x/prod", False),
        ("prod", False),
    ],
)
def test_which_entries_name_it(entry: str, same: bool) -> None:
    assert is_same(entry, "stitch/prod") is same


def test_a_definition_in_the_stack_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "Pulumi.mx.yaml", "environment:\n  values: {a: 1}\n")
    with pytest.raises(Usage, match="a definition of its own"):
        bind(path, "stitch/prod")


def test_the_files_mode_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "Pulumi.lab.yaml", "config: {}\n")
    path.chmod(0o600)
    bind(path, "stitch/prod")
    assert path.stat().st_mode & 0o777 == 0o600
