"""YAML files that people write: read with line numbers, edited in place with their comments."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, merge_attrib
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import ScalarString

from runbooks.core.errors import Usage
from runbooks.core.names import nearest


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
    """A parsed file that still knows where everything stood."""

    path: Path
    document: Any

    @classmethod
    def read(cls, path: Path) -> YamlFile:
        """Parse `path`. Raises `Usage` with file and line when it is not UTF-8, not YAML, or has a key twice."""
        return cls(path=path, document=parse(path, read_raw(path)))

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
        """A text that must be there and must not be empty."""
        if key not in mapping:
            raise Usage(f"{self.where(mapping, key)}: {about} has no {key!r}", expected=f"{key}: a text")
        value = mapping[key]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise Usage(
                f"{self.where(mapping, key)}: {key!r} of {about} is empty", expected="a text; empty is no default"
            )
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


def read_raw(path: Path) -> bytes:
    """What is in the file. Raises `Usage`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}", expected="a YAML file") from error


def read_text(path: Path) -> str:
    """The text in the file. Raises `Usage` for what is not UTF-8."""
    return _decoded(path, read_raw(path))


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Usage(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8", expected="a UTF-8 text file"
        ) from error


def parse(path: Path, raw: bytes) -> Any:
    """The document in `raw`, with positions and comments; `path` is for messages only."""
    text = _decoded(path, raw)
    try:
        return round_trip().load(text)
    except DuplicateKeyError as error:
        raise Usage(
            f"{path}:{_line(error)}: a key stands twice: {_first_line(error)}", expected="each key once"
        ) from error
    except MarkedYAMLError as error:
        raise Usage(f"{path}:{_line(error)}: not YAML: {_first_line(error)}", expected="well-formed YAML") from error
    except YAMLError as error:
        raise Usage(f"{path}: not YAML: {str(error).splitlines()[0]}", expected="well-formed YAML") from error


def expand_aliases(document: Any) -> None:
    """Write out, in place, what each alias and each merge (`<<: *name`) stands for."""
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


def _line(error: MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark is not None else 1


def _first_line(error: MarkedYAMLError) -> str:
    return str(error.problem or error.context or error).strip().splitlines()[0]


def with_text(source: YamlFile, mapping: CommentedMap, key: str, value: str) -> str:
    """The file's text with `key: value` in one of its mappings, every other line as it was; `mapping` is changed too.

    A mapping in flow style (`{…}`) has no lines of its own: there the whole file is written anew, comments kept.
    """
    lines = source.path.read_text(encoding="utf-8").splitlines(keepends=True)
    has_lines = bool(mapping) and not mapping.fa.flow_style()
    changed = "".join(_with_line(lines, mapping, key, value)) if has_lines else ""
    mapping[key] = value
    if has_lines and parse(source.path, changed.encode()) == source.document:
        return changed
    return dump(source.document)


def _with_line(lines: list[str], mapping: CommentedMap, key: str, value: str) -> list[str]:
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if key in mapping:
        row, column = mapping.lc.value(key)
        old = lines[row]
        rest = re.search(r"\s+#.*$", old[column:].rstrip("\r\n"))
        return [*lines[:row], f"{old[:column]}{value}{rest[0] if rest else ''}{newline}", *lines[row + 1 :]]
    last = max(mapping, key=lambda name: mapping.lc.key(name)[0])
    row, column = mapping.lc.key(last)
    before = lines[: row + 1]
    if not before[-1].endswith("\n"):
        before[-1] += newline
    return [*before, f"{' ' * column}{key}: {value}{newline}", *lines[row + 1 :]]
