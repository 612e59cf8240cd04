"""modal.*: what an app refers to is found in its source, and must be there before anything is deployed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runbooks.core.errors import LoginMissing, NotApproved, NotFound, ToolFailed, VerificationFailed
from runbooks.tasks import modal as tasks
from runbooks.tools import modal
from runbooks.tools.modal import Need
from tests.fixtures import Repo

NO_LOGIN = (1, "", "Error: Token missing. Could not authenticate client. If you have token credentials, see …\n")
APP = """\
import modal
SECRET = "links"
app = modal.App("links")
store = modal.Dict.from_name("kept", create_if_missing=True)
disk = modal.Volume.from_name("disk")

@app.function(secrets=[modal.Secret.from_name(SECRET, required_keys=["TOKEN"])])
def web(): ...
"""


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    folder = repo.root / "modal" / "links"
    folder.mkdir(parents=True)
    (folder / "links.py").write_text(APP)
    repo.install("modal")
    repo.answer("modal", ["token"], "Token: ak-1\n")
    repo.answer("modal", ["secret"], [{"Name": "links", "Created at": "now"}])
    repo.answer("modal", ["volume"], [{"Name": "disk"}])
    repo.answer("modal", ["deploy"], "✓ App deployed! https://me--links.modal.run\n")
    monkeypatch.setattr(sys, "executable", str(repo.bin / "python"))
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    return repo


def deploys(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("modal") if argv.startswith("deploy")]


def test_what_an_app_refers_to_is_in_its_source() -> None:
    assert set(modal.needs_of(APP)) == {
        Need(kind="Dict", name="kept", made_by_deploy=True),
        Need(kind="Volume", name="disk"),
        Need(kind="Secret", name="links", keys=("TOKEN",)),
    }


@pytest.mark.parametrize("source", ["def (", "import modal\nmodal.Dict.from_name(f())\n"])
def test_a_source_that_cannot_be_read_is_reported(source: str) -> None:
    with pytest.raises(ToolFailed):
        modal.needs_of(source)


def test_check_finds_everything(repo: Repo) -> None:
    tasks.check.body(repo.c, "links")
    told = repo.printed()
    for check in ("login is there", "Secret links is there", "Volume disk is there", "Dict kept is there"):
        assert check in told
    assert repo.argvs("modal") == ["token info", "volume list --json", "secret list --json"]


def test_without_login_it_is_exit_3_and_nothing_else_is_asked(repo: Repo) -> None:
    repo.answer("modal", ["token"], NO_LOGIN)
    for start in (tasks.check, tasks.deploy):
        with pytest.raises(LoginMissing, match="not logged in") as refused:
            start.body(repo.c, "links")
        assert refused.value.exit_code == 3 and refused.value.next_step == "modal token new"
    assert repo.argvs("modal") == ["token info", "token info"]


def test_a_missing_secret_stops_the_deploy_and_no_value_goes_into_an_argument(repo: Repo) -> None:
    repo.answer("modal", ["secret"], [])
    with pytest.raises(VerificationFailed, match="Secret links is there") as refused:
        tasks.deploy.body(repo.c, "links", yes=True)
    assert "TOKEN" in refused.value.next_step and "Secrets page" in refused.value.next_step
    assert not deploys(repo)


def test_deploy_asks_then_deploys(repo: Repo) -> None:
    with pytest.raises(NotApproved):
        tasks.deploy.body(repo.c, "links")
    assert not deploys(repo)
    tasks.deploy.body(repo.c, "links", yes=True)
    assert deploys(repo) == ["deploy modal/links/links.py"]
    told = repo.printed()
    assert "https://me--links.modal.run" in told and "modal app rollback links" in told


def test_a_failing_deploy_is_quoted(repo: Repo) -> None:
    repo.answer("modal", ["deploy"], (1, "", "Error: the image could not be built\n"))
    with pytest.raises(ToolFailed, match="could not be built"):
        tasks.deploy.body(repo.c, "links", yes=True)


def test_an_unknown_app(repo: Repo) -> None:
    with pytest.raises(NotFound) as absent:
        tasks.check.body(repo.c, "lings")
    assert "links" in absent.value.expected and not repo.calls("modal")


def test_its_token_reaches_modal_and_no_other_program(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-0123456789abcdef")
    repo.answer("modal", ["token"], (1, "", "Error: bad token as-0123456789abcdef\n"))
    with pytest.raises(ToolFailed) as failed:
        tasks.check.body(repo.c, "links")
    assert "as-0123456789abcdef" not in "\n".join(failed.value.lines()) + repo.everything_written()
    assert repo.calls("modal")[0]["env"]["MODAL_TOKEN_SECRET"] == "as-0123456789abcdef"


def test_where_tokens_are(tmp_path: Path) -> None:
    (tmp_path / ".modal.toml").write_text('[me]\ntoken_id = "ak-1"\ntoken_secret = "as-from-file"\n')
    assert modal.tokens({"MODAL_TOKEN_SECRET": "as-env"}, tmp_path) == ["as-env", "as-from-file"]
    (tmp_path / ".modal.toml").write_text("not = = toml")
    assert modal.tokens({}, tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps([{"x": 1}])])
def test_a_list_that_is_none_is_reported(repo: Repo, text: str) -> None:
    repo.answer("modal", ["secret"], text)
    with pytest.raises(ToolFailed, match="not a list"):
        tasks.check.body(repo.c, "links")
