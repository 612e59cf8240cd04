"""YAML files that users write: read with line numbers, edited in place with their comments."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, merge_attrib
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import ScalarString

from runbooks.core.errors import Usage
from runbooks.core.files import write_atomically
from runbooks.core.names import nearest

_readers = threading.local()
"""Of each thread one reader that is used again: making it takes as long as reading a stack config."""


def round_trip() -> YAML:
    """A reader and writer that keeps comments, quotes and order, as this project's files are indented."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.composer.warn_double_anchors = False  # the YAML standard allows them
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


@dataclass(frozen=True, kw_only=True)
class YamlFile:
    """A parsed file that knows the line of each key."""

    path: Path
    document: Any

    @classmethod
    def read(cls, path: Path) -> YamlFile:
        """Parse `path`. Raises `Usage` with file and line when it is not UTF-8, not YAML, or has a key twice."""
        return cls(path=path, document=parse(path, read_text(path)))

    def where(self, mapping: Mapping[str, Any], key: str) -> str:
        """`file:line` of a key, or of the mapping when it lacks the key."""
        if isinstance(mapping, CommentedMap):
            line = mapping.lc.key(key)[0] if key in mapping and key in mapping.lc.data else mapping.lc.line
            return f"{self.path}:{(line or 0) + 1}"
        return str(self.path)

    def mapping(self) -> CommentedMap:
        """The whole document, which must be a mapping; an empty file is an empty one."""
        if self.document is None:
            return CommentedMap()
        if not isinstance(self.document, CommentedMap):
            raise Usage(f"{self.path}:1: the file holds {_kind(self.document)}", expected="keys and values")
        return self.document

    def section(self, mapping: Mapping[str, Any], key: str) -> CommentedMap:
        value = mapping[key]
        if not isinstance(value, CommentedMap):
            raise Usage(
                f"{self.where(mapping, key)}: {key!r} holds {_kind(value)}",
                expected="keys and values, or {} for none",
            )
        return value

    def text(self, mapping: Mapping[str, Any], key: str, about: str) -> str:
        """The text of a required key, which must not be empty."""
        if key not in mapping:
            raise Usage(f"{self.where(mapping, key)}: {about} has no {key!r}", expected=f"{key}: a text")
        value = mapping[key]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise Usage(f"{self.where(mapping, key)}: {key!r} of {about} is empty", expected="a text that is not empty")
        if not isinstance(value, str):
            raise Usage(
                f"{self.where(mapping, key)}: {key!r} of {about} is {_kind(value)}",
                expected="a text; put it in quotes",
            )
        return str(value)

    def refuse_unknown_keys(self, mapping: Mapping[str, Any], allowed: Iterable[str], about: str) -> None:
        names = tuple(allowed)
        for key in mapping:
            if key not in names:
                raise Usage(
                    f"{self.where(mapping, key)}: {about} has an unknown key {key!r}",
                    expected=f"did you mean {nearest(str(key), names, 1)[0]!r}? Known: {', '.join(names)}",
                )


def read_text(path: Path) -> str:
    """The text in the file. Raises `Usage` for one that cannot be read, or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}", expected="a YAML file") from error
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise Usage(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8", expected="a UTF-8 text file") from error


def parse(path: Path, text: str) -> Any:
    """The document in `text`, with positions and comments; `path` is for messages only."""
    reader = _readers.__dict__.pop("reader", None) or round_trip()
    try:
        document = reader.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = str(getattr(error, "problem", None) or error).strip().splitlines()[0]
        if isinstance(error, DuplicateKeyError):
            # The parser quotes both values, one of which may be a secret.
            reason = reason.partition(" with value ")[0]
            raise Usage(f"{place}: {reason}", expected="each key once") from error
        if "found character '\\t'" in reason:  # legal to the standard in some places, but to no parser here
            raise Usage(f"{place}: not YAML: there is a tab", expected="spaces in place of the tab") from error
        raise Usage(f"{place}: not YAML: {reason}", expected="well-formed YAML") from error
    if "%YAML" not in text:  # which would hold for the next text too
        _readers.reader = reader
    return document


def expand_aliases(document: Any) -> None:
    """Replace, in place, each alias and each merge (`<<: *name`) by its content."""
    seen: set[int] = set()
    pending = [document]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, CommentedMap) else range(len(node))
        for key in keys:
            inner = node[key]
            if isinstance(inner, (CommentedMap, list, ScalarString)):
                node[key] = inner = copy.deepcopy(inner) if id(inner) in seen else inner
                seen.add(id(inner))
            elif isinstance(node, CommentedMap):
                node[key] = inner
            if isinstance(inner, (CommentedMap, list)):
                pending.append(inner)
        if hasattr(node, merge_attrib):
            delattr(node, merge_attrib)


def dump(document: Any) -> str:
    buffer = io.StringIO()
    round_trip().dump(document, buffer)
    return buffer.getvalue()


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return {"CommentedSeq": "a list", "CommentedMap": "keys and values", "bool": "true or false"}.get(
        type(value).__name__, f"a {type(value).__name__}" if not isinstance(value, (int, float)) else "a number"
    )


class YamlEditor:
    """Edits a YAML file in place: every byte that is not part of a change stays as it was.

    Line ends, a byte-order mark, comments, quotes and a missing final newline stay. An edit locates the place with the
    parser's marks, changes the text there, and parses the result: where it is not exactly the wanted document, for
    example because the place is an alias, the edit raises `Usage` and `text` stays. A path is keys and list indexes.
    """

    def __init__(self, path: Path) -> None:
        """Read `path`; a missing file is empty. Raises `Usage` for what is not UTF-8."""
        self.path = path
        self.text = read_text(path) if path.exists() else ""

    @property
    def document(self) -> Any:
        """The document in the current text. Raises `Usage` for invalid YAML."""
        return parse(self.path, self.text)

    def set(self, path: Sequence[str | int], value: str) -> None:
        """Set a key of a mapping, or an entry of a list, to a text; missing mappings are created."""
        self._put(path, value, as_item=False)

    def append(self, path: Sequence[str | int], value: str) -> None:
        """Add a text to the list at `path`; a missing or empty list is created."""
        self._put(path, value, as_item=True)

    def remove(self, path: Sequence[str | int]) -> None:
        """Remove a key or a list entry, and its parent if that is then empty; comments stay."""
        chain, rest = self._locate(path)
        if rest:
            raise self._refusal(path)
        while len(chain) > 2 and len(_entries(chain[-2][1])) == 1:
            chain.pop()
        path = path[: len(chain) - 1]
        wanted = _unshared(self.document)
        del _descend(wanted, path[:-1])[path[-1]]
        (key, node), (_, parent) = chain[-1], chain[-2]
        start, end, text = _start(key or node), _end(node), ""
        if _is_flow(parent):
            entries = _entries(parent)
            position = entries.index((key, node))
            if position + 1 < len(entries):
                end = _start(entries[position + 1][0] or entries[position + 1][1])
            elif position:
                start = _end(entries[position - 1][1])
        else:
            start, end = self._line_start(start), self._line_end(end)
            if key is None:  # comments may stand between the dash and its entry
                first = self._line_start(_start(parent))
                dashes = re.finditer(rf"^ {{{_column(parent)}}}-", self.text[first : _start(node)], re.MULTILINE)
                start = first + max((dash.start() for dash in dashes), default=-1 - first)
            end += len(self._newline) if end < len(self.text) else 0
            text = self._comments(start, end, node)
        if not self._splice(start, end, text, wanted):
            raise self._refusal(path)

    def write(self) -> None:
        """Write the file whole or not at all; its mode stays. Raises `Unwritable`."""
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o644
        write_atomically(self.path, self.text, mode=mode)

    def _put(self, path: Sequence[str | int], value: str, *, as_item: bool) -> None:
        wanted = _unshared(self.document)
        wanted = {} if wanted is None else wanted
        holder = _descend(wanted, path[:-1])
        if not isinstance(holder, dict if as_item else dict | list):
            raise self._refusal(path)
        holder[path[-1]] = [*(holder.get(path[-1]) or []), value] if as_item else value
        chain, rest = self._locate(path)
        if as_item and len(rest) > 1:
            raise self._refusal(path)
        # A plain text where YAML reads it back as this text, else a quoted one.
        for text in (value, "'" + value.replace("'", "''") + "'", json.dumps(value, ensure_ascii=False)):
            if rest or as_item:
                edit = self._insertion(chain, [str(key) for key in rest], text, as_item)
            else:
                start, end = _start(chain[-1][1]), _end(chain[-1][1])
                edit = start, end, " " + text if start == end else text
            if self._splice(*edit, wanted):
                return
        raise self._refusal(path)

    def _locate(self, path: Sequence[str | int]) -> tuple[list[_Entry], list[str | int]]:
        """The entries from the root along the path as far as they exist, and the keys that are missing."""
        try:
            root = yaml.compose(self.text, Loader=_Composer)
        except yaml.YAMLError as error:
            raise self._refusal(path) from error
        chain: list[_Entry] = [(None, root)] if root else []
        for depth, key in enumerate(path):
            entries = _entries(chain[-1][1]) if chain else []
            found = [entry for place, entry in enumerate(entries) if key == (entry[0].value if entry[0] else place)]
            if not found:
                return chain, list(path[depth:])
            chain.append(found[0])
        return chain, []

    def _insertion(self, chain: list[_Entry], keys: list[str], text: str, as_item: bool) -> tuple[int, int, str]:
        """The edit that adds the keys, each below the one before, or else the list entry, to the chain's last node."""
        if not keys:
            lines, flow = [f"- {text}"], text
        elif as_item:
            lines, flow = [f"{keys[0]}:", f"  - {text}"], f"{keys[0]}: [{text}]"
        else:
            *outer, key = keys
            lines = [f"{'  ' * depth}{each}:" for depth, each in enumerate(outer)]
            lines.append(f"{'  ' * len(outer)}{key}: {text}")
            flow = ": {".join([*outer, f"{key}: {text}"]) + "}" * len(outer)

        def block(column: int) -> str:
            return "".join(self._newline + " " * column + line for line in lines)

        if not chain:  # the document is empty
            start = len(self.text.rstrip("\r\n"))
            tail = self.text[start:] or ("" if self.text else self._newline)
            return start, len(self.text), (block(0) + tail).removeprefix("" if start else self._newline)
        node = chain[-1][1]
        start, end = _start(node), _end(node)
        line_end = self._line_end(end)
        if not _is_flow(node):
            return line_end, line_end, block(_column(node))
        if entries := _entries(node):
            end = _end(entries[-1][1])
            return end, end, f", {flow}"
        if len(chain) == 1:  # the document is `{}`
            return start + 1, end - 1, flow
        parent = chain[-2][1]
        if _is_flow(parent):
            return start, end, (" " if start == end else "") + (f"{{{flow}}}" if keys else f"[{flow}]")
        after = self.text[end:line_end] + block(_column(parent) + 2)
        return len(self.text[:start].rstrip(" ")), line_end, after

    def _splice(self, start: int, end: int, text: str, wanted: Any) -> bool:
        """Insert the text if that gives exactly the wanted document; returns whether it did."""
        changed = self.text[:start] + text + self.text[end:]
        with contextlib.suppress(Usage):  # not YAML with this text
            if start >= 0 and (_unshared(parse(self.path, changed)) or {}) == wanted:
                self.text = changed
                return True
        return False

    def _refusal(self, path: Sequence[str | int]) -> Usage:
        return Usage(
            f"{self.path}: {'.'.join(map(str, path))} cannot be changed without changing more of the file",
            expected="a plain layout there: a key or list entry on a line of its own, neither an alias nor repeated "
            "elsewhere by an alias or a merge (`<<: *name`)",
            next_step="change it in an editor, then run the same command again",
        )

    def _comments(self, start: int, end: int, node: yaml.Node) -> str:
        """The comments between two line starts, each on a line of its own; `#` in a text of `node` is none."""
        code = list(self.text)
        for scalar in _scalars(node):
            place = slice(_start(scalar), _end(scalar))
            code[place] = ["\n" if character == "\n" else "x" for character in code[place]]
        found = re.finditer(r"^([ \t]*)(?:.*?[ \t])??(#[^\r\n]*)", "".join(code[start:end]), re.MULTILINE)
        return "".join(f"{comment[1]}{comment[2]}{self._newline}" for comment in found)

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _line_start(self, position: int) -> int:
        return self.text.rfind("\n", 0, position) + 1

    def _line_end(self, position: int) -> int:
        """The end of the line, without its break, of the last character before `position`; a block text ends lower."""
        last = len(self.text[:position].rstrip("\r\n"))
        found = self.text.find("\n", last)
        return len(self.text) if found < 0 else found - (self.text[found - 1] == "\r")


def _descend(document: Any, path: Sequence[Any]) -> Any:
    """The collection at `path`; a mapping that is missing or empty is made."""
    for key in path:
        if isinstance(document, dict) and not document.get(key):
            document[key] = {}
        document = document[key] if isinstance(document, (dict, list)) else None
    return document


def _unshared(node: Any) -> Any:
    """A copy in plain collections that shares nothing, so that a change in one place does not change its aliases."""
    if isinstance(node, Mapping):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _scalars(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for key, value in _entries(node):
        yield from (*(_scalars(key) if key else ()), *_scalars(value))


class _Composer(yaml.SafeLoader):
    """Reads the tree of a text with the positions of its nodes. An alias is a node of its own, where it stands."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.anchors.clear()  # the YAML standard allows the same anchor twice, and PyYAML does not
        if self.check_event(yaml.AliasEvent):
            alias: Any = self.get_event()  # type: ignore[no-untyped-call]
            return yaml.ScalarNode("alias", "", alias.start_mark, alias.end_mark)
        return super().compose_node(parent, index)


def _entries(node: yaml.Node) -> list[_Entry]:
    if isinstance(node, yaml.MappingNode):
        return list(node.value)
    return [(None, value) for value in node.value] if isinstance(node, yaml.SequenceNode) else []


def _is_flow(node: yaml.Node) -> bool:
    """Whether it is written on one line or in brackets: a scalar, an alias, `[…]`, `{…}`."""
    return not isinstance(node, yaml.CollectionNode) or bool(node.flow_style)


def _start(node: yaml.Node) -> int:
    return int(node.start_mark.index)


def _end(node: yaml.Node) -> int:
    """Where its text ends; of a block, where its last entry does."""
    return int(node.end_mark.index) if _is_flow(node) else _end(_entries(node)[-1][1])


def _column(node: yaml.Node) -> int:
    """Of a block, the column of its keys or dashes; an anchor may stand before the first key."""
    return int((_entries(node)[0][0] or node).start_mark.column)


_Entry = tuple[yaml.Node | None, yaml.Node]
"""Key and value; the key is None in a list and for the whole document."""
