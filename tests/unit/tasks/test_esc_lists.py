"""esc.apply and esc.set on lists whose entries hold secrets: refusals and the commands they advise."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runbooks.core.errors import Refused, Usage
from runbooks.tasks import esc
from tests.fixtures import Repo

HOOKS = [{"name": "alpha", "token": {"fn::secret": ""}}, {"name": "beta", "token": {"fn::secret": ""}}]


@pytest.fixture
def repo(repo: Repo) -> Repo:
    """A target on the cloud with people/hooks, a list of two hooks whose tokens are set."""
    repo.on_cloud()
    repo.install("esc")
    repo.answer("esc", ["env", "set"], "")
    repo.answer("esc", ["env", "edit"], "Environment updated. (revision 3)\n")
    write(repo, HOOKS)
    live(repo, [sealed(entry) for entry in HOOKS])
    return repo


def write(repo: Repo, hooks: Any) -> None:
    """The file of people/hooks."""
    path = repo.root / "environments" / "people" / "hooks.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"values": {"hooks": hooks}}, sort_keys=False))


def live(repo: Repo, hooks: Any) -> None:
    """The definition on the backend."""
    repo.answer("esc", ["env", "get"], yaml.safe_dump({"values": {"hooks": hooks}}, sort_keys=False))


def sealed(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "token": {"fn::secret": {"ciphertext": f"sealed-{entry['name']}"}}}


def changes(repo: Repo) -> list[list[str]]:
    return [call["argv"] for call in repo.calls("esc") if call["argv"][1] in ("set", "edit")]


def test_apply_moves_each_secret_with_its_entry(repo: Repo) -> None:
    write(repo, [{"name": "new", "token": {"fn::secret": ""}}, *reversed(HOOKS)])
    esc.apply.body(repo.c, "people/hooks", yes=True)
    (pushed,) = [yaml.safe_load(call["stdin"]) for call in repo.calls("esc") if call["argv"][1] == "edit"]
    assert pushed["values"]["hooks"] == [
        {"name": "new", "token": {"fn::secret": ""}},
        sealed(HOOKS[1]),
        sealed(HOOKS[0]),
    ]
    told = repo.printed()
    assert "+ hooks[0].name: 'new'" in told and "+ hooks[0].token: a secret" in told
    assert "kept as they are on the backend: hooks[2].token, hooks[1].token" in told
    assert "esc.set people/hooks 'hooks[0].token'" in told and "sealed" not in told


TWIN = {"url": "u", "token": {"fn::secret": ""}}
SEALED_TWIN = {"url": "u", "token": {"fn::secret": {"ciphertext": "sealed"}}}
BARE = {"fn::secret": {"ciphertext": "sealed"}}


@pytest.mark.parametrize(
    ("file", "there", "summary", "next_step"),
    [
        ([TWIN, TWIN], [SEALED_TWIN],
         "hooks[0] {'url': 'u', 'token': a secret}: without the secrets it equals [0], [1] of the file",
         "esc env set acme/people/hooks hooks '[]'"),
        (["x", {"fn::secret": ""}], [BARE], "hooks[0] a secret: it has nothing but secrets, and the list was edited",
         "esc env set acme/people/hooks hooks '[]'"),
        ({"fn::join": ["", {"fn::secret": ""}, ["x"]]}, {"fn::join": [BARE, ["x"]]}, 'hooks["fn::join"][0] a secret: ',
         "esc env set acme/people/hooks hooks '\"\"'"),
        (HOOKS[1:], [sealed(entry) for entry in HOOKS],
         "would lose secrets that are set on the backend: hooks[0].token (in {'name': 'alpha', 'token': a secret})",
         "esc env rm acme/people/hooks 'hooks[0].token'"),
        ([["y", {"fn::secret": ""}]], [["x", BARE]],
         "would lose secrets that are set on the backend: hooks[0][1] (in ['x', a secret])",
         "esc env set acme/people/hooks hooks '[]'"),
    ],
)  # fmt: skip
def test_apply_refuses_what_has_no_certain_entry(
    repo: Repo, file: Any, there: Any, summary: str, next_step: str
) -> None:
    """No command that it advises shifts the index of a secret that is still set."""
    write(repo, file)
    live(repo, there)
    with pytest.raises(Refused) as refused:
        esc.apply.body(repo.c, "people/hooks", yes=True)
    assert summary in refused.value.summary and next_step in refused.value.next_step
    assert "nothing was changed" in refused.value.expected and not changes(repo)


@pytest.mark.parametrize("has_file", [True, False])
def test_set_says_which_entry_of_the_backend_it_reaches(repo: Repo, has_file: bool) -> None:
    if not has_file:
        (repo.root / "environments" / "people" / "hooks.yaml").unlink()
    repo.pipe(b"hunter2-of-beta")
    esc.set_value.body(repo.c, "people/hooks", "hooks[1].token")
    assert "hooks[1].token of people/hooks is in the list entry {'name': 'beta', 'token': a secret}" in repo.printed()
    assert [argv[3] for argv in changes(repo)] == ["hooks[1].token"]


def test_set_refuses_an_index_that_is_another_entry_in_the_file(repo: Repo) -> None:
    write(repo, [*reversed(HOOKS)])
    repo.pipe(b"hunter2-of-alpha")
    with pytest.raises(Refused, match=r"\{'name': 'beta'.*\{'name': 'alpha'"):
        esc.set_value.body(repo.c, "people/hooks", "hooks[1].token")
    assert not changes(repo)


@pytest.mark.parametrize("value", ["pa${ss", "${a.b}", "a$$${b"])
def test_set_speaks_of_what_esc_takes_for_a_reference(repo: Repo, value: str) -> None:
    repo.pipe(value.encode())
    with pytest.raises(Usage, match=r"has `\$\{` in it") as refused:
        esc.set_value.body(repo.c, "people/hooks", "hooks[1].token")
    assert "fn::fromBase64" in refused.value.next_step and value not in "".join(refused.value.lines())
    assert not changes(repo)


@pytest.mark.parametrize("value", ["pa$ss", "pa$$ss", "pa$${ss", "$", "{}"])
def test_set_stores_every_other_dollar_as_it_is(repo: Repo, value: str) -> None:
    repo.pipe(value.encode())
    esc.set_value.body(repo.c, "people/hooks", "hooks[1].token")
    assert repo.calls("esc")[-1]["stdin"] == value
