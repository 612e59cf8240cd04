"""graph: layers, wiring, and the two languages of diagrams."""

from __future__ import annotations

import pytest

from runbooks.core.errors import Usage
from runbooks.stacks.service import Reference, Service
from runbooks.tasks import graph
from tests.fixtures import TREE, Repo

WIRED = (
    *TREE[:3],
    Service(
        name="app", folder="app", about="", namespace="app", needs=("db", "net"), reads_outputs_of=("db",),
        reference=Reference(setting="db_stack", producer="db"),
    ),
    Service(
        name="web", folder="web", about="", namespace="web", needs=("db",), reads_outputs_of=("db",),
        environment="web/prod",
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbooks.services.SERVICES", WIRED)


def test_the_table_has_layers_and_wiring(repo: Repo) -> None:
    graph.graph.body(repo.c)
    rows = [line.split() for line in repo.printed().splitlines()]
    assert ["1", "net", "-", "-", "-"] in rows
    assert ["2", "db", "op,", "net", "-", "-"] in rows
    assert ["3", "app", "db,", "net", "db", "app:db_stack"] in rows
    assert ["3", "web", "db", "db", "web/prod"] in rows
    assert not repo.calls("pulumi") and not repo.calls("kubectl")


def test_mermaid_and_dot(repo: Repo) -> None:
    graph.graph.body(repo.c, mermaid=True)
    told = repo.printed()
    assert told.startswith("graph BT") and '  app -->|"app:db_stack"| db' in told and "  app --> net" in told
    graph.graph.body(repo.c, dot=True)
    told = repo.printed()
    assert told.startswith("digraph") and '"web" -> "db" [label = "web/prod"];' in told and told.rstrip().endswith("}")


def test_one_language_at_a_time(repo: Repo) -> None:
    with pytest.raises(Usage, match="--mermaid and --dot were both given"):
        graph.graph.body(repo.c, mermaid=True, dot=True)
