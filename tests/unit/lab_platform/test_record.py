"""`lab.json` survives a round trip and refuses what it did not write."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lab.platform.processes import ProcessId
from lab.platform.supervisor import Record, Started
from runbooks.core.errors import Usage


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    record = Record(ports={"etcd": 20001}, components={"etcd": Started(ProcessId(7, "boot/42"), "abc", "v3.6.16")})
    record.save(path)
    assert Record.load(path) == record
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_an_empty_record(tmp_path: Path) -> None:
    assert Record.load(tmp_path / "lab.json") == Record()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "ports": {"etcd": "many"}, "components": {}}',
        '{"format": 1, "ports": {}, "components": {"etcd": {"pid": 1}}}',
        '{"format": 1, "ports": [], "components": {}}',
    ],
)
def test_another_content_is_refused_with_the_way_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lab.json"
    path.write_text(content)
    with pytest.raises(Usage) as refused:
        Record.load(path)
    assert str(path) in refused.value.summary
    assert "lab.reset" in refused.value.next_step
