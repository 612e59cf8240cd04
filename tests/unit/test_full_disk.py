"""Every place where a run writes, on a disk that takes no more: one clear error, nothing lost, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runbooks.cli import report
from runbooks.core.errors import BUG, OpsError, ToolFailed
from runbooks.core.files import Unwritable
from runbooks.core.journal import read_journal
from runbooks.run import open_session
from runbooks.services import find_service
from runbooks.stacks import wiring
from runbooks.stacks.environment_commands import files_of
from runbooks.stacks.fingerprint import Reads, write_record
from runbooks.stacks.older_commit import share_environment
from runbooks.tasks import secrets, stack, target
from runbooks.tools import stack_config
from runbooks.tools.esc import Opened, Value
from runbooks.tools.kubeconfig import read_context, write_private
from runbooks.tools.pulumi_home import create_private_home
from runbooks.tools.stack_config import StackFile, preserve, refresh_copy
from tests.fixtures import UID, Repo, kubeconfig, listing, namespace
from tests.unit.disk import mount_read_only, no_file_beyond

SETTINGS = """\
# mine
encryptionsalt: v1:salt
config:
  postgresql:superuser_password:
    secure: v1:old
"""
SIZES = [0, 50, 200, 600, 1000, 3000]


@pytest.fixture(autouse=True)
def _in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed goes to no file, which would be limited too."""


def whole_or_gone(repo: Repo) -> None:
    """Of a run its record stays, in whole lines; no kubeconfig, no folder of pulumi's, no half a file."""
    runs = repo.state / "runs"
    for folder in runs.iterdir() if runs.is_dir() else ():
        assert [entry.name for entry in folder.iterdir()] == ["journal.jsonl"]
        lines = (folder / "journal.jsonl").read_text().splitlines()
        assert lines and len(read_journal(folder / "journal.jsonl")) == len(lines)


# --- a run begins ---


@pytest.mark.parametrize("size", SIZES)
def test_a_run_on_a_disk_that_fills_up_while_it_begins(repo: Repo, size: int) -> None:
    with no_file_beyond(size):
        try:
            with open_session(repo.c, "status"):
                pass
        except OpsError as error:
            ended = error
        else:
            assert size > 600, "the kubeconfig alone is larger"
            return
    assert ended.exit_code in {1, 5} and ended.next_step
    if size <= 200:
        assert isinstance(ended, Unwritable) and "File too large" in ended.summary
    whole_or_gone(repo)


def test_a_state_folder_that_is_read_only(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.state.mkdir()
    mount_read_only(repo.state, monkeypatch)
    expected = pytest.raises(Unwritable, match="the journal of this run cannot be written: Read-only file system")
    with expected as ended, open_session(repo.c, "status"):
        pytest.fail("the run must not begin")
    assert "OPS_STATE" in ended.value.next_step
    assert list(repo.state.iterdir()) == [] and repo.calls("kubectl") == []


def test_a_state_folder_below_a_file(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo.home / "file").touch()
    monkeypatch.setenv("OPS_STATE", str(repo.home / "file" / "state"))
    expected = pytest.raises(Unwritable, match="the state folder cannot be written: Not a directory")
    with expected, open_session(repo.c, "status"):
        pytest.fail("the run must not begin")


WRITES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a kubeconfig": (lambda at: write_private(read_context(at / "config", "home"), at / "new"), "the kubeconfig of"),
    "pulumi's folder": (lambda at: create_private_home(at, {"PULUMI_HOME": str(at)}).__enter__(), "pulumi's folder of"),
    "a binding": (lambda at: stack_config.bind(at / "Pulumi.mx.yaml", "stitch/prod"), r"Pulumi\.mx\.yaml"),
    "a copy before a tool starts": (lambda at: preserve(at / "Pulumi.mx.yaml").__enter__(), r"Pulumi\.mx\.yaml"),
    "an older commit": (lambda at: share_environment(at, at / "older"), "the older commit's files"),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_does_not_fit_is_one_error_and_changes_no_file(tmp_path: Path, name: str) -> None:
    texts = {"config": json.dumps(kubeconfig()), "Pulumi.mx.yaml": SETTINGS, "pyproject.toml": "x" * 50, "uv.lock": ""}
    (tmp_path / "older").mkdir()
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    write, what = WRITES[name]
    with no_file_beyond(3), pytest.raises(Unwritable, match=f"{what}.* cannot be written: File too large"):
        write(tmp_path)
    left = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert left == texts


@pytest.mark.parametrize("size", [0, 10])
def test_the_log_of_a_bug_is_whole_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    monkeypatch.setenv("OPS_STATE", str(tmp_path))
    with no_file_beyond(size):
        assert report(RuntimeError("a bug"), as_json=False) == BUG
    said = capsys.readouterr().err
    assert "the log cannot be written: File too large" in said and "INVOKE_DEBUG=1" in said
    assert list((tmp_path / "logs").iterdir()) == []
    assert report(RuntimeError("a bug"), as_json=False) == BUG
    (log,) = (tmp_path / "logs").iterdir()
    assert "a bug" in log.read_text()


# --- settings and targets ---


def test_a_pin_that_does_not_fit(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.set_target(cluster_uid="another")
    repo.answer("kubectl", ["get", "namespace"], namespace(uid=UID))
    repo.answer("kubectl", ["get", "nodes"], listing())
    before, targets = (repo.root / "targets.yaml").read_text(), repo.root / "targets.yaml"

    def full(*_: object) -> bool:
        limit.__enter__()
        return True

    limit = no_file_beyond(100)
    monkeypatch.setattr("runbooks.core.reporter.Reporter.ask_word", full)
    try:
        with pytest.raises(OpsError, match=r"targets\.yaml cannot be written: File too large") as ended:
            target.pin.body(repo.c)
    finally:
        limit.__exit__(None, None, None)
    assert isinstance(ended.value, Unwritable) and "OPS_STATE" not in ended.value.next_step
    assert targets.read_text() == before
    assert not list(repo.root.glob(".targets.yaml.*"))


EMPTIES = """\
#!/bin/sh
case "$*" in
*version*) echo v3.260.0; exit 0 ;;
*"config set"* | *"stack init"*)
    echo called >> '{calls}'
    printf '%s' '{left}' > '{file}'
    echo "error: saving stack config: write {file}: no space left on device" >&2
    exit 255 ;;
esac
exit 99
"""


def empties(repo: Repo, file: Path, left: str) -> Path:
    """A pulumi that empties the stack config, finds the disk full and leaves `left` in it."""
    calls = repo.home / "calls"
    (repo.bin / "pulumi").write_text(EMPTIES.format(file=file, left=left, calls=calls))
    return calls


LEFT = ["", "encryptionsalt: v1:salt\nconf", "encryptionsalt: v1:salt\n", SETTINGS[:60]]


def set_secret(repo: Repo) -> None:
    repo.has_stacks("postgresql")
    secrets.set_secret.body(repo.c, "postgres", "superuser_password", True)


def make_stack(repo: Repo) -> None:
    stack.init.body(repo.c, "postgres")


@pytest.mark.parametrize(
    ("task", "before", "left"),
    [*((task, SETTINGS, left) for task in (set_secret, make_stack) for left in LEFT), (make_stack, None, "")],
)
def test_a_stack_config_survives_a_pulumi_that_finds_the_disk_full(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, task: Callable[[Repo], None], before: str | None, left: str
) -> None:
    monkeypatch.setattr("runbooks.core.reporter.Reporter.ask_yes", lambda *_: True)
    file = repo.config_file("postgres")
    if before:
        file.write_text(before)
    empties(repo, file, left)
    with pytest.raises(ToolFailed, match=r"a file could not be written .*Pulumi\.mx\.yaml: no space left on device"):
        task(repo)
    assert (file.read_text() if file.exists() else None) == before
    assert [entry.name for entry in file.parent.iterdir() if entry.name.startswith(".")] == []


def test_a_secret_that_pulumi_set_is_set_though_its_layout_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.mx.yaml"
    path.write_text("config:\n  a:b: c\n# a long comment\n")
    set_by_pulumi = "config:\n  a:b: c\n  a:d: e\n"
    with no_file_beyond(len(path.read_text())), preserve(path):
        path.write_text(set_by_pulumi)
    assert path.read_text() == set_by_pulumi and list(tmp_path.iterdir()) == [path]


def test_what_a_tool_wrote_before_it_failed_stays(tmp_path: Path) -> None:
    """A salt that pulumi made belongs to the stack, whatever went wrong after it."""
    for before in (SETTINGS, None):
        path = tmp_path / ("one" if before else "two")
        if before:
            path.write_text(before)
        with pytest.raises(ValueError, match="later"), preserve(path):
            path.write_text(SETTINGS + "  postgresql:port: '1'\n")
            raise ValueError("later")
        assert StackFile.read(path).has("postgresql:port")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_reference_that_cannot_be_set_loses_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    file = repo.config_file("immich")
    file.write_text(SETTINGS.replace("postgresql:", "immich:"))
    before = file.read_text()
    repo.has_stacks("immich", "postgresql")
    empties(repo, file, "")
    monkeypatch.setattr(wiring, "confirm_change", lambda *_, **__: None)
    with open_session(repo.c, "wire.immich") as session:
        immich = find_service("immich")
        assert immich.reference is not None
        session.prepared["immich"] = session.stack(immich)
        with pytest.raises(ToolFailed, match="no space left on device"):
            wiring.check_reference(session, immich, immich.reference, yes=True)
    assert file.read_text() == before


def test_a_copy_of_settings_that_did_not_fit_is_made_again(tmp_path: Path) -> None:
    """The template that was merged is written down last: else the next run would take it for merged."""
    template, copied = tmp_path / "template.yaml", tmp_path / "Pulumi.lab.yaml"
    template.write_text("config:\n  a:x: 1\n")
    refresh_copy(template, copied, {})
    template.write_text("config:\n  a:x: 2\n  a:y: new\n")
    for size in (0, 10, 25):
        with no_file_beyond(size), pytest.raises(Unwritable):
            refresh_copy(template, copied, {})
    assert refresh_copy(template, copied, {}) or "a:y: new" in copied.read_text()
    assert "a:y: new" in copied.read_text() and "a:x: 2" in copied.read_text()


# --- what a run keeps ---


def test_what_was_applied_and_cannot_be_written_down(repo: Repo) -> None:
    repo.has_stacks("glance")
    with open_session(repo.c, "deploy.glance") as session:
        stack_of = session.stack(find_service("glance"))
        with no_file_beyond(0), pytest.raises(Unwritable, match="what was applied cannot be written"):
            write_record(session, stack_of, {}, Reads(), applied=True)
    assert list((repo.state / "applied").rglob("*.json*")) == []


def test_files_of_an_environment_that_do_not_fit(repo: Repo) -> None:
    value = Value(path=("files", "TOKEN_FILE"), value="x" * 500, secret=True)
    with open_session(repo.c, "esc.run") as session:
        expected = pytest.raises(Unwritable, match="the environment's file TOKEN_FILE cannot be written")
        with no_file_beyond(300), expected, files_of(session, Opened(values=(value,))):
            pytest.fail("there is no such file")
        assert not (session.journal.folder / "files").exists()
