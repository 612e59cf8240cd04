"""Listing the tasks loads no layer below them: each task's body does, in one block at its beginning."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks import tasks

FILES = sorted(Path(tasks.__file__).parent.glob("*.py"))
IMPORTS = (ast.Import, ast.ImportFrom)


def late_imports(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """Its imports, but for those of a task that stand at its beginning."""
    marks = {getattr(mark.func if isinstance(mark, ast.Call) else mark, "id", "") for mark in function.decorator_list}
    body = function.body[1:] if ast.get_docstring(function) else function.body
    first = 0
    while marks & {"task", "each_service"} and first < len(body) and isinstance(body[first], IMPORTS):
        first += 1
    for statement in body[first:]:
        yield from (node for node in ast.walk(statement) if isinstance(node, IMPORTS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_a_task_imports_what_it_needs_and_at_its_beginning(path: Path) -> None:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    late = {f"{function.name}:{found.lineno}" for function in functions for found in late_imports(function)}
    assert not late
