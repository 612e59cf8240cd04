"""docs/handbook.md: every row names a task that exists and a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tasks

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (?P<about>[^|]+?) \| `(?P<task>[^`]+)` \| (?P<test>\S+) \|$", re.MULTILINE)
TEXT = (ROOT / "docs" / "handbook.md").read_text(encoding="utf-8")
ROWS = [found.groups() for found in ROW.finditer(TEXT)]


def test_every_row_of_the_table_is_read() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| **", "| rule"))]
    assert len(lines) == len(ROWS) >= 35


@pytest.mark.parametrize(("task", "test"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_its_task_and_its_test_exist(task: str, test: str) -> None:
    assert task in tasks.ns.task_names
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file(), path
    assert not name or re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
