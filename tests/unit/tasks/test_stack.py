"""stack.init: the only way a stack comes into being, and never without a yes."""

from __future__ import annotations

import pytest

from runbooks.core.errors import NotApproved, NotFound, OpsError, Usage
from runbooks.tasks import stack
from tests.fixtures import Repo


def run(repo: Repo, service: str = "postgres") -> None:
    stack.init.body(repo.c, service)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    answers: list[bool] = []
    monkeypatch.setattr("runbooks.core.reporter.Reporter.ask_yes", lambda *_: answers.pop(0))
    return answers


def inits(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("pulumi") if "stack init" in argv]


def test_it_shows_backend_and_names_asks_and_creates(repo: Repo, says: list[bool]) -> None:
    says.append(True)
    repo.answer("pulumi", ["stack", "init"], (0, "", "Created stack 'mx'\n"))
    run(repo)
    folder = repo.config_file("postgres").parent
    assert inits(repo) == [f"-C {folder} stack init mx --non-interactive"]
    output = repo.printed()
    for part in (f"file://{repo.backend}", "organization/postgresql/mx", str(folder / "Pulumi.mx.yaml")):
        assert part in output
    assert "next: ./inv --target home secrets.set postgres superuser_password --generate" in output


@pytest.mark.parametrize("has_terminal", [True, False])
def test_no_yes_no_stack(repo: Repo, request: pytest.FixtureRequest, has_terminal: bool) -> None:
    if has_terminal:
        request.getfixturevalue("says").append(False)
    with pytest.raises(NotApproved):
        run(repo)
    assert inits(repo) == []


def test_a_stack_that_exists_stays(repo: Repo) -> None:
    repo.has_stacks("postgresql")
    run(repo)
    assert inits(repo) == []
    assert "exists already" in repo.printed()


@pytest.mark.parametrize(("name", "error"), [("postgers", NotFound), ("-x", Usage), ("", Usage)])
def test_names_that_are_no_service(repo: Repo, name: str, error: type[OpsError]) -> None:
    with pytest.raises(error) as caught:
        run(repo, name)
    assert repo.calls("pulumi") == []
    if error is NotFound:
        assert "postgres" in caught.value.expected
