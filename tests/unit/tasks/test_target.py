"""target.show and target.pin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.platform.paths import LabPaths
from lab.platform.supervisor import hold_lock
from runbooks.core.errors import NotApproved, NotFound, Refused, Usage
from runbooks.stacks.target import load_targets
from runbooks.tasks import target
from tests.fixtures import TOKEN, UID, Repo, listing, namespace


def with_nodes(repo: Repo, uid: str = UID) -> None:
    repo.answer("kubectl", ["get", "namespace"], namespace(uid=uid))
    nodes = [{"metadata": {"name": name}} for name in ("node-2", "node-1")]
    repo.answer("kubectl", ["get", "nodes"], listing(*nodes))


def test_show_says_where_the_next_run_goes_and_changes_nothing(repo: Repo) -> None:
    with_nodes(repo)
    before = (repo.root / "targets.yaml").read_text()
    target.show.body(repo.c)
    told = repo.printed()
    for part in ("mx", f"file://{repo.backend}", "https://10.0.0.2:6443", UID, "the pinned one"):
        assert part in told
    assert len(repo.calls("kubectl")) == 1, "each call would start a login plug-in"
    assert str(repo.bin / "pulumi") in told
    assert TOKEN not in told + repo.everything_written()
    assert (repo.root / "targets.yaml").read_text() == before


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"cluster_uid": "another"}, "NOT the pinned one"),
        ({"context": "absent"}, "has no context 'absent'"),
        ({"kubeconfig": "absent"}, "cannot be read"),
        ({"passphrase_file": "absent"}, "absent cannot be read"),
    ],
)
def test_show_works_on_what_is_broken(repo: Repo, change: dict[str, str], seen: str) -> None:
    with_nodes(repo)
    repo.set_target(**change)
    repo.remove("pulumi")
    target.show.body(repo.c)
    told = repo.printed()
    assert seen in told
    assert "pulumi is not on PATH" in told


def test_show_of_an_unknown_target(repo: Repo) -> None:
    repo.c.config.ops.target = "hoem"
    with pytest.raises(NotFound) as caught:
        target.show.body(repo.c)
    assert "home" in caught.value.expected


def test_show_while_another_command_starts_the_lab(repo: Repo) -> None:
    repo.c.config.ops.target = "lab"
    with pytest.raises(NotFound, match="there is no lab here"):
        target.show.body(repo.c)
    with hold_lock(LabPaths(repo.state), print), pytest.raises(NotFound, match="another command is starting the lab"):
        target.show.body(repo.c)


def unpinned(repo: Repo) -> str:
    repo.set_target(cluster_uid=None)
    return (repo.root / "targets.yaml").read_text()


def test_pin_shows_asks_and_writes_one_line(repo: Repo) -> None:
    with_nodes(repo)
    before = unpinned(repo)
    repo.types("y")
    target.pin.body(repo.c)
    assert (repo.root / "targets.yaml").read_text() == before + f"    cluster_uid: {UID}\n"
    told = repo.printed()
    for part in ("homelab", "https://10.0.0.2:6443", UID, "node-1, node-2"):
        assert part in told


@pytest.mark.parametrize("has_terminal", [True, False])
def test_pin_writes_nothing_without_a_yes(repo: Repo, has_terminal: bool) -> None:
    if has_terminal:
        repo.types("n")
    with_nodes(repo)
    before = unpinned(repo)
    with pytest.raises(NotApproved):
        target.pin.body(repo.c)
    assert (repo.root / "targets.yaml").read_text() == before


def test_pinning_to_another_cluster_needs_the_targets_name(repo: Repo) -> None:
    with_nodes(repo, uid="new-cluster")
    repo.types("y", "home")
    with pytest.raises(NotApproved):
        target.pin.body(repo.c)
    assert repo.target["cluster_uid"] == UID
    target.pin.body(repo.c)
    assert repo.target["cluster_uid"] == "new-cluster"


def test_pin_of_what_is_pinned_asks_nothing(repo: Repo) -> None:
    with_nodes(repo)
    target.pin.body(repo.c)
    assert "already" in repo.printed()


def test_pin_of_an_unreachable_cluster_is_refused(repo: Repo) -> None:
    repo.types()
    unpinned(repo)
    repo.answer("kubectl", ["get"], (1, "", "Unable to connect to the server: EOF"))
    with pytest.raises(Refused):
        target.pin.body(repo.c)


def test_the_lab_is_never_pinned_by_hand(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = replace(load_targets(repo.root).defined["home"], name="lab", ephemeral=True)
    monkeypatch.setattr("runbooks.run.load_chosen_target", lambda *_: lab)
    with pytest.raises(Usage, match="pins itself"):
        target.pin.body(repo.c)
