"""target.show and target.pin on a made-up home."""

from __future__ import annotations

from typing import Any

import pytest

from runbooks.core.errors import NotApproved, NotFound, Refused, Usage
from runbooks.tasks import target
from tests.answers import listing, namespace
from tests.unit.house import TOKEN, UID, House


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person types at the questions, in order; the questions end up in `asked`."""
    lines: list[str] = []
    monkeypatch.setattr("runbooks.core.reporter.Reporter.interactive", True)
    monkeypatch.setattr("runbooks.core.reporter.Reporter._ask", lambda *_: lines.pop(0))
    return lines


def with_nodes(house: House, uid: str = UID) -> None:
    house.answer("kubectl", ["get", "namespace"], namespace(uid=uid))
    nodes = [{"metadata": {"name": name}} for name in ("node-2", "node-1")]
    house.answer("kubectl", ["get", "nodes"], listing(*nodes))


def run(task: Any, house: House) -> None:
    task.body(house.c)


def test_show_says_where_the_next_run_goes_and_changes_nothing(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    with_nodes(house)
    before = (house.root / "targets.yaml").read_text()
    run(target.show, house)
    told = capsys.readouterr().out
    for part in ("mx", f"file://{house.backend}", "https://10.0.0.2:6443", UID, "the pinned one", "node-1, node-2"):
        assert part in told
    assert str(house.bin / "pulumi") in told
    assert TOKEN not in told + house.everything_written()
    assert (house.root / "targets.yaml").read_text() == before


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"cluster_uid": "another"}, "NOT the pinned one"),
        ({"context": "absent"}, "has no context 'absent'"),
        ({"kubeconfig": "absent"}, "cannot be read"),
        ({"passphrase_file": "absent"}, "there is no such file"),
    ],
)
def test_show_works_on_what_is_broken(
    house: House, capsys: pytest.CaptureFixture[str], change: dict[str, str], seen: str
) -> None:
    with_nodes(house)
    house.write_target(house.target_entry() | change)
    house.remove("pulumi")
    run(target.show, house)
    told = capsys.readouterr().out
    assert seen in told
    assert "pulumi is not on PATH" in told


def test_show_of_an_unknown_target(house: House) -> None:
    house.c.config.ops.target = "hoem"
    with pytest.raises(NotFound) as caught:
        run(target.show, house)
    assert "home" in caught.value.expected


def unpinned(house: House) -> str:
    entry = house.target_entry()
    del entry["cluster_uid"]
    house.write_target(entry)
    return (house.root / "targets.yaml").read_text()


def test_pin_shows_asks_and_writes_one_line(
    house: House, terminal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with_nodes(house)
    before = unpinned(house)
    terminal.append("y\n")
    run(target.pin, house)
    assert (house.root / "targets.yaml").read_text() == before + f"    cluster_uid: {UID}\n"
    told = capsys.readouterr().out
    for part in ("house", "https://10.0.0.2:6443", UID, "node-1, node-2"):
        assert part in told


def test_pin_writes_nothing_without_a_yes(house: House, terminal: list[str]) -> None:
    with_nodes(house)
    before = unpinned(house)
    terminal.append("n\n")
    with pytest.raises(NotApproved):
        run(target.pin, house)
    assert (house.root / "targets.yaml").read_text() == before


def test_pin_without_a_terminal_writes_nothing(house: House) -> None:
    with_nodes(house)
    before = unpinned(house)
    with pytest.raises(NotApproved):
        run(target.pin, house)
    assert (house.root / "targets.yaml").read_text() == before


def test_pinning_to_another_cluster_needs_the_targets_name(house: House, terminal: list[str]) -> None:
    with_nodes(house, uid="new-cluster")
    terminal += ["y\n"]
    with pytest.raises(NotApproved):
        run(target.pin, house)
    assert house.target_entry()["cluster_uid"] == UID

    terminal += ["home\n"]
    run(target.pin, house)
    assert house.target_entry()["cluster_uid"] == "new-cluster"


def test_pin_of_what_is_pinned_asks_nothing(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    with_nodes(house)
    run(target.pin, house)
    assert "already" in capsys.readouterr().out


def test_pin_of_an_unreachable_cluster_is_refused(house: House, terminal: list[str]) -> None:
    unpinned(house)
    house.answer("kubectl", ["get"], (1, "", "Unable to connect to the server: EOF"))
    with pytest.raises(Refused):
        run(target.pin, house)
    assert terminal == []


def test_the_lab_is_never_pinned_by_hand(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from runbooks.stacks.target import load_targets

    lab = replace(load_targets(house.root).defined["home"], name="lab", ephemeral=True)
    monkeypatch.setattr("runbooks.run.load_chosen_target", lambda *_: lab)
    with pytest.raises(Usage, match="pins itself"):
        run(target.pin, house)
