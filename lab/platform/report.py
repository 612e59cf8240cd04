"""The components of the lab and its tools, as a table."""

from __future__ import annotations

from pathlib import Path

from lab import platform
from lab.operators import postgres
from runbooks.core.reporter import Reporter

COLUMNS = ("component", "pid", "port", "memory", "health", "version")
TOOL_COLUMNS = ("tool", "version", "from")


def report_components(state: Path, reporter: Reporter) -> None:
    """Show the components of the lab below the state folder, and its tools; for programs an event for each tool."""
    components = platform.status(state)
    if platform.is_busy(state):
        reporter.line("Another command is starting, stopping or removing the lab; it shows its own progress.")
    elif not components:
        reporter.line("There is no lab here; ./inv lab.up starts one.")
    if not components:
        return
    components = [*components, *postgres.status(state / "lab")]
    reporter.table(
        "Lab",
        COLUMNS,
        [
            (one.name, str(one.pid or "-"), str(one.port or "-"), _megabytes(one.memory), one.health, one.version)
            for one in components
        ],
    )
    tools = platform.tools(state)
    if tools:
        rows = [(tool.name, tool.short_version, tool.source) for tool in tools]
        reporter.table("Tools of the lab", TOOL_COLUMNS, rows)
    for tool in tools:
        facts = {"version": tool.version, "origin": tool.origin, "program": str(tool.program)}
        reporter.event("tool", name=tool.name, **facts)


def _megabytes(size: int | None) -> str:
    return f"{size / 1_000_000:.0f} MB" if size else "-"
