"""The record of a run: whole lines, private, masked, and honest when the disk is full or the run is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.core.journal import Journal, Unwritable, prune, read_journal, runs_of
from runbooks.core.mask import Masker
from tests.fixtures import side_by_side
from tests.unit.disk import no_file_beyond


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / ".ops", "deploy.postgres", ["./inv", "deploy.postgres"])
    yield opened
    opened.close()


def test_records_come_back_in_order(journal: Journal) -> None:
    journal.write(
        "digest", stacks=["a", "b"], counts={"create": 3}, text="zwei\nZeilen \udcff", path=Path("/x"), ok=True
    )
    journal.finish(0)
    begun, digest, end = read_journal(journal.path)
    assert (begun["kind"], begun["task"], begun["argv"][1:]) == ("run", "deploy.postgres", ["deploy.postgres"])
    assert begun["pid"] == os.getpid() and begun["time"].endswith("Z")
    assert digest["text"] == "zwei\nZeilen \udcff"
    assert (digest["stacks"], digest["counts"], digest["path"], digest["ok"]) == (["a", "b"], {"create": 3}, "/x", True)
    assert (end["kind"], end["exit_code"]) == ("end", 0)


def test_everything_written_is_masked(tmp_path: Path) -> None:
    masker = Masker(["hunter2-hunter2"])
    journal = Journal.open(tmp_path, "secrets.set", ["inv", "secrets.set", "hunter2-hunter2"], masker=masker)
    journal.write("error", text="no: hunter2-hunter2", deep={"list": [("hunter2-hunter2", 1)]})
    journal.close()
    assert b"hunter2" not in journal.path.read_bytes()
    assert [record["kind"] for record in read_journal(journal.path)] == ["run", "error"]


def test_a_secret_that_is_a_word_of_the_record_itself_does_not_break_it(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, "status", [], masker=Masker(["argv", "exit_code", '"kind": "run"']))
    journal.write("command", argv=["true"], exit_code=0)
    journal.close()
    assert read_journal(journal.path)[1]["argv"] == ["true"]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_off_at_any_byte_has_all_whole_records(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    journal = Journal.open(tmp_path_factory.mktemp("ops"), "status", [])
    for number in range(3):
        journal.write("command", number=number, text=data.draw(st.text(max_size=20)))
    journal.close()
    whole = journal.path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    journal.path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    records = read_journal(journal.path)
    # A line that lacks nothing but its line break is a whole record as well.
    assert len(records) in (complete, complete + (whole[cut : cut + 1] == b"\n"))
    assert records == [json.loads(line) for line in whole.splitlines()[: len(records)]]


def test_a_record_after_a_torn_line_is_read(journal: Journal) -> None:
    with journal.path.open("ab") as file:
        file.write(b'{"kind": "comm\n{"kind": "killed"}\n\n[1]\n{"a": 1}\n')
    assert [record["kind"] for record in read_journal(journal.path)] == ["run", "killed"]


def test_records_of_many_threads_stay_whole(journal: Journal) -> None:
    def work(number: int) -> None:
        for count in range(20):
            journal.write("line", number=number, count=count, text="x" * 5000)

    side_by_side(work, 4)
    written = {(record.get("number"), record.get("count")) for record in read_journal(journal.path)[1:]}
    assert len(written) == 80


def test_a_full_disk_is_one_clear_error_and_the_file_stays_whole(journal: Journal) -> None:
    journal.write("line", text="fits")
    with no_file_beyond(10_000):
        for _ in range(2):
            with pytest.raises(Unwritable, match="File too large") as error:
                journal.write("line", text="x" * 20_000)
            assert error.value.exit_code == 1 and error.value.next_step
        journal.write("line", text="fits too")
    assert journal.path.read_bytes().endswith(b"\n")
    assert [record.get("text") for record in read_journal(journal.path)] == [None, "fits", "fits too"]


def test_after_the_end_nothing_is_written(journal: Journal) -> None:
    journal.finish(0)
    with pytest.raises(Unwritable):
        journal.write("line")
    journal.finish(0)  # never raises
    assert len(read_journal(journal.path)) == 2


def test_only_the_newest_runs_are_kept(tmp_path: Path) -> None:
    for _ in range(7):
        Journal.open(tmp_path, "status", [], keep=4).close()
    kept = runs_of(tmp_path)
    assert len(kept) == 4
    last = Journal.open(tmp_path, "status", [], keep=4)
    last.close()
    assert runs_of(tmp_path) == [*kept[1:], last.path]


def test_pruning_spares_a_run_that_goes_on_and_does_not_follow_links(tmp_path: Path) -> None:
    going_on = Journal.open(tmp_path, "deploy.all", [], keep=1)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "resource-kubernetes").touch()
    over = Journal.open(tmp_path, "status", [], keep=1)
    (over.folder / "pulumi-home").mkdir()
    (over.folder / "pulumi-home" / "plugins").symlink_to(plugins)
    over.close()
    last = Journal.open(tmp_path, "status", [], keep=1)
    assert runs_of(tmp_path) == [going_on.path, last.path]
    assert (plugins / "resource-kubernetes").exists()
    going_on.close()
    last.close()
    prune(tmp_path / "runs", 1)
    assert runs_of(tmp_path) == [last.path]


def test_a_signal_while_writing_loses_nothing(journal: Journal) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(heard) < 20:
            journal.write("line", text="x" * 100_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(record["kind"] in {"run", "line"} for record in read_journal(journal.path))
    assert read_journal(journal.path)[-1]["text"] == "x" * 100_000
