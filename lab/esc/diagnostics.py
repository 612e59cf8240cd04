"""What is wrong with a definition, as the real clients print it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def short(diagnostics: Iterable[Mapping[str, Any]]) -> str:
    """``environment:line:column: summary``, a line each: where the source is not at hand."""
    return "".join(f"{_place(one)}{one.get('summary', '')}{_detail(one)}\n" for one in diagnostics)


def _place(diagnostic: Mapping[str, Any]) -> str:
    where = diagnostic.get("range") or {}
    begin = where.get("begin") or {}
    if not where:
        return ""
    return f"{where.get('environment', '')}:{begin.get('line', 0)}:{begin.get('column', 0)}: "


def _detail(diagnostic: Mapping[str, Any]) -> str:
    return f"; {diagnostic['detail']}" if diagnostic.get("detail") else ""


def long(diagnostics: Iterable[Mapping[str, Any]], source: str) -> str:
    """With the line of ``source``: for definitions that were just sent."""
    return "".join(f"{_block(one, source.splitlines())}\n" for one in diagnostics)


def _block(diagnostic: Mapping[str, Any], lines: list[str]) -> str:
    kind = "Warning" if diagnostic.get("severity") == "warning" else "Error"
    text = f"{kind}: {diagnostic.get('summary', '')}\n"
    where = diagnostic.get("range") or {}
    number = int((where.get("begin") or {}).get("line", 0))
    if where and 0 < number <= len(lines):
        text += f"\n  on {where.get('environment', '')} line {number}:\n{number:4}: {lines[number - 1]}\n"
    if diagnostic.get("detail"):
        text += f"\n{diagnostic['detail']}\n"
    return text
