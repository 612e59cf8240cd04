"""The `environment:` list of a stack file: a name put in once, or taken out everywhere, every other line as it was.

pulumi's own `config env add` binds twice when it is called twice, and its `rm` removes one of them (recorded in
tests/contract/recorded/cloud/32-esc-bind.json).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runbooks.core.errors import Usage
from runbooks.core.yaml_file import YamlEditor, YamlFile

KEY = "environment"


def bound_names(top: Any, path: Path) -> list[str]:
    """The entries of `environment:` as written. Raises `Usage` for a definition in the stack file itself."""
    bound = top.get(KEY) if isinstance(top, dict) else None
    if bound is None:
        return []
    if not isinstance(bound, list):
        raise Usage(
            f"{path}: `environment:` holds a definition of its own",
            expected="a list of names such as stitch/prod; definitions stand in environments/",
            next_step="move it to environments/<project>/<env>.yaml, then ./inv esc.apply <project>/<env>",
        )
    return [entry_name(entry) for entry in bound]


def entry_name(entry: Any) -> str:
    """The name in an entry; one may carry options, `stitch/prod: {merge: false}`."""
    return str(next(iter(entry), "")) if isinstance(entry, dict) else str(entry)


def is_same(entry: str, name: str) -> bool:
    """Whether an entry names the environment `<project>/<env>`, whatever its version and organization."""
    parts = re.sub(r"[@:][^/]*$", "", entry).split("/")
    return "/".join(["default", *parts][-2:]) == name


def bind(path: Path, name: str) -> bool:
    """Make `environment:` of the file name it exactly once; returns whether the file was written.

    A name that stands there several times keeps its last place: later environments win.
    """
    editor, places = _find(path, name)
    if len(places) == 1:
        return False
    for place in reversed(places[:-1]):
        editor.remove((KEY, place))
    if not places:
        editor.append((KEY,), name)
    editor.write()
    return True


def unbind(path: Path, name: str) -> int:
    """Remove every occurrence from the file; returns how many there were."""
    editor, places = _find(path, name)
    for place in reversed(places):
        editor.remove((KEY, place))
    if places:
        editor.write()
    return len(places)


def _find(path: Path, name: str) -> tuple[YamlEditor, list[int]]:
    """The file, opened for editing, and the indexes of the entries that name the environment."""
    editor = YamlEditor(path)
    names = bound_names(YamlFile(path=path, document=editor.document).mapping(), path)
    return editor, [number for number, entry in enumerate(names) if is_same(entry, name)]
