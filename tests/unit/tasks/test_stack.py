"""stack.init: the only way a stack comes into being, and never without a yes."""

from __future__ import annotations

import pytest

from runbooks.core.errors import NotApproved
from runbooks.tasks import stack
from tests.fixtures import Repo


def run(repo: Repo, service: str = "postgres") -> None:
    stack.init.body(repo.c, service)


def inits(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("pulumi") if "stack init" in argv]


def test_it_shows_backend_and_names_asks_and_creates(repo: Repo) -> None:
    repo.types("y")
    repo.answer("pulumi", ["stack", "init"], (0, "", "Created stack 'mx'\n"))
    run(repo)
    folder = repo.config_file("postgres").parent
    assert inits(repo) == [f"-C {folder} stack init mx --non-interactive"]
    output = repo.printed()
    for part in (f"file://{repo.backend}", "organization/postgresql/mx", str(folder / "Pulumi.mx.yaml")):
        assert part in output
    assert "next: ./inv --target home secrets.set postgres superuser_password --generate" in output


@pytest.mark.parametrize("has_terminal", [True, False])
def test_no_yes_no_stack(repo: Repo, has_terminal: bool) -> None:
    if has_terminal:
        repo.types("n")
    with pytest.raises(NotApproved):
        run(repo)
    assert inits(repo) == []


def test_a_stack_that_exists_stays(repo: Repo) -> None:
    repo.has_stacks("postgresql")
    run(repo)
    assert inits(repo) == []
    assert "exists already" in repo.printed()
