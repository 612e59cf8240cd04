"""The dependency picture: what is deployed before what, and how outputs travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runbooks.stacks.service import Service

COLUMNS = ("layer", "service", "needs", "reads outputs of", "through")


@task(help={"mermaid": "As a Mermaid diagram.", "dot": "In Graphviz's language."})
def graph(c: Any, mermaid: bool = False, dot: bool = False) -> None:
    """Show which service needs which, layer by layer, and how outputs travel. Changes nothing.

    Example: ./inv graph --mermaid
    """
    from runbooks.core.errors import Usage
    from runbooks.run import open_run
    from runbooks.services import SERVICES
    from runbooks.stacks.service import layers

    with open_run(c, "graph") as run:
        if mermaid and dot:
            raise Usage("--mermaid and --dot were both given", expected="one of the two, or neither for a table")
        ordered = layers([service.name for service in SERVICES], SERVICES)
        if mermaid or dot:
            for line in mermaid_lines(SERVICES) if mermaid else dot_lines(SERVICES):
                run.reporter.line(line)
        else:
            run.reporter.table("Services, each layer after the ones before it", COLUMNS, list(rows(ordered)))
        for number, layer in enumerate(ordered, start=1):
            for service in layer:
                facts = {"needs": list(service.needs), "reads": list(service.reads_outputs_of)}
                run.reporter.event("service", layer=number, service=service.name, through=wiring(service), **facts)


def wiring(service: Service) -> str:
    """How the service gets its producer's outputs: the setting with a stack reference, or an ESC environment."""
    if service.reference:
        return f"{service.project_name}:{service.reference.setting}"
    return service.environment


def rows(ordered: Sequence[Sequence[Service]]) -> Iterator[tuple[str, ...]]:
    for number, layer in enumerate(ordered, start=1):
        for service in layer:
            needs, reads = ", ".join(service.needs), ", ".join(service.reads_outputs_of)
            yield str(number), service.name, needs or "-", reads or "-", wiring(service) or "-"


def edges(services: Sequence[Service]) -> Iterator[tuple[str, str, str]]:
    """The edges: service, what it needs, and how outputs travel between them; empty if none do."""
    for service in services:
        for need in service.needs:
            yield service.name, need, wiring(service) if need in service.reads_outputs_of else ""


def mermaid_lines(services: Sequence[Service]) -> Iterator[str]:
    yield "graph BT"
    for service in services:
        yield f"  {service.name}"
    for name, need, through in edges(services):
        yield f'  {name} -->|"{through}"| {need}' if through else f"  {name} --> {need}"


def dot_lines(services: Sequence[Service]) -> Iterator[str]:
    yield "digraph platform {"
    yield "  rankdir = BT;"
    for service in services:
        yield f'  "{service.name}";'
    for name, need, through in edges(services):
        label = f' [label = "{through}"]' if through else ""
        yield f'  "{name}" -> "{need}"{label};'
    yield "}"
