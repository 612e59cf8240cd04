"""The `environment:` list of a stack file: a name put in once, or taken out everywhere, every other line as it was.

pulumi's own `config env add` binds twice when it is called twice, and its `rm` removes one of them (recorded in
tests/contract/recorded/cloud/32-esc-bind.json).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from runbooks.core.errors import Usage
from runbooks.core.files import write_atomically
from runbooks.core.yaml_file import YamlFile, dump, parse

KEY = "environment"
MODE = 0o644


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
    """Make `environment:` of the file name it exactly once; whether the file was written.

    A name that stands there several times keeps its last place: that is the one whose values win.
    """
    source, top, names = _read(path)
    places = [number for number, entry in enumerate(names) if is_same(entry, name)]
    if len(places) == 1:
        return False
    if places:
        _write(source, _without(source, top, places[:-1]))
        return True
    _write(source, _with(source, top, name))
    return True


def unbind(path: Path, name: str) -> int:
    """Take every occurrence out of the file; how many there were."""
    source, top, names = _read(path)
    places = [number for number, entry in enumerate(names) if is_same(entry, name)]
    if places:
        _write(source, _without(source, top, places))
    return len(places)


def _read(path: Path) -> tuple[YamlFile, CommentedMap, list[str]]:
    source = YamlFile.read(path) if path.exists() else YamlFile(path=path, document=CommentedMap())
    top = source.mapping()
    return source, top, bound_names(top, path)


def _write(source: YamlFile, text: str) -> None:
    mode = source.path.stat().st_mode & 0o777 if source.path.exists() else MODE
    write_atomically(source.path, text, mode=mode)


def _lines(path: Path) -> tuple[list[str], str]:
    text = path.read_bytes().decode("utf-8") if path.exists() else ""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
    return lines, newline


def _with(source: YamlFile, top: CommentedMap, name: str) -> str:
    lines, newline = _lines(source.path)
    before = top.get(KEY)
    if isinstance(before, CommentedSeq) and before:
        row, column = before.lc.item(len(before) - 1)
        indent = lines[row][:column]
        lines.insert(row + 1, f"{indent}{name}{newline}")
    elif KEY in top:
        row = top.lc.key(KEY)[0]
        rest = re.search(r"\s+#.*$", lines[row].rstrip("\r\n"))
        lines[row] = f"{KEY}:{rest[0] if rest else ''}{newline}"
        lines.insert(row + 1, f"  - {name}{newline}")
    else:
        lines += [f"{KEY}:{newline}", f"  - {name}{newline}"]
    wanted = [*_plain_list(before), name]
    return _checked(source, top, "".join(lines), wanted)


def _without(source: YamlFile, top: CommentedMap, places: Sequence[int]) -> str:
    lines, newline = _lines(source.path)
    entries = top[KEY]
    wanted = [entry for number, entry in enumerate(_plain_list(entries)) if number not in places]
    drop = {entries.lc.item(number)[0] for number in places}
    if not wanted:
        drop.add(top.lc.key(KEY)[0])
    kept = "".join(line if row not in drop else _comment_of(line, newline) for row, line in enumerate(lines))
    return _checked(source, top, kept, wanted)


def _comment_of(line: str, newline: str) -> str:
    """A comment at the end of a line that goes stays, as a line of its own."""
    found = re.search(r"\s(#.*)$", line.rstrip("\r\n"))
    indent = line[: len(line) - len(line.lstrip())]
    return f"{indent}{found[1]}{newline}" if found else ""


def _checked(source: YamlFile, top: CommentedMap, text: str, wanted: list[Any]) -> str:
    """The edited lines where they say exactly what they should; else, as for lists in one line, the file anew."""
    expected = {key: value for key, value in top.items() if key != KEY}
    if wanted:
        expected[KEY] = wanted
    try:
        if (parse(source.path, text.encode()) or {}) == expected:
            return text
    except Usage:
        pass  # Then the lines were not what they looked like.
    if wanted:
        top[KEY] = wanted
    else:
        del top[KEY]
    return dump(top)


def _plain_list(entries: Any) -> list[Any]:
    return list(entries or [])
