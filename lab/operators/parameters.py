"""Applies `spec.postgresql.parameters` to the embedded server: those it accepts; reports why others are left out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.operators import postgres, sql
from lab.platform.paths import write_private

PRELOAD = "shared_preload_libraries"


@dataclass(frozen=True)
class Parameters:
    """The parameters of a Cluster: `accepted` name → value, `refused` name → reason."""

    accepted: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The lines of the server's config file."""
        quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in self.accepted.items()}
        return "".join(f"{name} = '{value}'\n" for name, value in sorted(quoted.items()))

    def explain(self) -> str:
        """The refused ones as a message, empty when there are none."""
        return "; ".join(f"{name}: {reason}" for name, reason in sorted(self.refused.items()))


def read_spec(postgresql: Mapping[str, Any]) -> dict[str, str]:
    """Read names and values of `spec.postgresql`, including its list of preloaded libraries."""
    asked = {str(name).lower(): str(value) for name, value in (postgresql.get("parameters") or {}).items()}
    libraries: Sequence[str] = postgresql.get(PRELOAD) or []
    if libraries:
        asked[PRELOAD] = ",".join(libraries)
    return asked


def sort_out(place: postgres.Place, asked: Mapping[str, str]) -> Parameters:
    """Try each parameter against the server's own parser; nothing is started. Answers are remembered."""
    accepted: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, value in asked.items():
        if name in postgres.MANAGED:
            refused[name] = "set by the lab"
            continue
        taken, reason = _libraries(value) if name == PRELOAD else (value, "")
        objection = _objection(place, name, taken)
        if taken and not objection:
            accepted[name] = taken
        if reason or objection:
            refused[name] = reason or objection
    return Parameters(accepted, refused)


def _libraries(value: str) -> tuple[str, str]:
    """The libraries that the embedded server has, and why the others are left out."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    there = [name for name in names if (postgres.LIBRARIES / f"{name.removesuffix('.so')}.so").exists()]
    absent = [name for name in names if name not in there]
    return ",".join(there), f"the embedded server has no {', '.join(absent)}" if absent else ""


@functools.lru_cache(maxsize=512)
def _objection(place: postgres.Place, name: str, value: str) -> str:
    """Why the server would not start with the parameter; empty if it would."""
    if not name.replace("_", "").replace(".", "").isalnum():
        return "not a parameter's name"
    answer = postgres.ask(place, name, value)
    fatal = [line.partition("FATAL:")[2].strip() for line in answer.stderr.splitlines() if "FATAL:" in line]
    return (fatal or ["the server does not accept it"])[0] if answer.returncode else ""


def apply(place: postgres.Place, parameters: Parameters) -> None:
    """Write the accepted parameters. A running server reloads them, or stops if one of them needs a restart."""
    path, text = place.data / "parameters.conf", parameters.text()
    different = set(path.read_text(encoding="utf-8").splitlines()) ^ set(text.splitlines())
    if not different:
        return
    write_private(path, text, owner=postgres.server_user())
    if postgres.read_postmaster(place.data) is None:
        return
    changed = {line.partition(" = ")[0] for line in different}
    with sql.connect(place) as connection:
        rows = connection.execute("SELECT name FROM pg_settings WHERE context = 'postmaster'").fetchall()
        if changed.isdisjoint(row[0] for row in rows):
            connection.execute("SELECT pg_reload_conf()")
            return
    postgres.stop(place.data)
