"""Definitions of ESC environments as files: which stacks they read, which secrets they hold and carry over, and diffs.

The files hold references only. `fn::secret: ""` marks the place of a secret; its value is only on the backend.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from runbooks.core.errors import Refused, Usage
from runbooks.core.names import check_name
from runbooks.core.yaml_file import YamlFile, expand_aliases, parse
from runbooks.tools.esc import EnvironmentName, property_path, read_path
from runbooks.tools.secret_values import generate_secret

SECRET = "fn::secret"  # noqa: S105 - the name of ESC's function
STACKS = "fn::open::pulumi-stacks"
EMPTY = (None, "")
NAMES = ("name", "id", "key")
"""Keys that identify a list entry. Other keys do not: two hooks may have the same region."""

KeyPath = tuple[str | int, ...]


def definition_path(root: Path, name: EnvironmentName) -> Path:
    return root / "environments" / name.project / f"{name.name}.yaml"


def defined_names(root: Path) -> list[str]:
    """`project/env` of every file below `environments/`."""
    folder = root / "environments"
    return sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.yaml"))


def read_definition(root: Path, name: EnvironmentName) -> CommentedMap:
    """The environment's file. Raises `NotFound` with the nearest names, `Usage` for a file that is not a definition."""
    write_it = f"write environments/{name.short}.yaml, then ./inv esc.apply {name.short}"
    check_name("definition in environments/", name.short, defined_names(root), list_with=write_it)
    path = definition_path(root, name)
    source = YamlFile.read(path)
    document = source.mapping()
    source.refuse_unknown_keys(document, ("imports", "values"), "the definition")
    if not any(document.get(key) for key in ("imports", "values")):
        raise Usage(
            f"environments/{name.short}.yaml defines nothing",
            expected="`values:` or `imports:`; applying it would remove all that the environment provides",
            next_step=f"write it, or git checkout -- environments/{name.short}.yaml",
        )
    refuse_values(document, path)
    return document


def read_live(text: str, name: EnvironmentName) -> CommentedMap:
    """Parse the backend's definition; an empty one is an empty map."""
    document = parse(Path(name.short), text)
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise Usage(f"the definition of {name.short} on the backend is not a map", next_step=f"esc env get {name.full}")
    return document


def refuse_values(document: Any, path: Path) -> None:
    """Raise `Usage` if the file holds the value of a secret."""
    paths = [below_values(where) for where, node in secrets_in(document) if node[SECRET] not in EMPTY]
    if paths:
        set_it = f"./inv esc.set {path.parent.name}/{path.stem} {shlex.quote(property_path(paths[0]))}"
        has_index = any(isinstance(part, int) for part in paths[0])  # which esc.set compares with the file
        raise Usage(
            f"{path} holds the value of a secret: {', '.join(map(property_path, paths))}",
            expected='`fn::secret: ""` as its place alone; treat the value as disclosed and change it',
            next_step=f'write `fn::secret: ""` there, then {set_it}' if has_index else set_it,
        )


# Nodes of a definition


def _is_secret(node: Any) -> bool:
    return isinstance(node, Mapping) and SECRET in node


def _is_map(node: Any) -> bool:
    return isinstance(node, Mapping) and SECRET not in node


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, list):
        return node[part] if isinstance(part, int) and part < len(node) else None
    return node.get(part) if isinstance(node, Mapping) else None


def secrets_in(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, CommentedMap]]:
    """Every `fn::secret` with the path of the map that holds it, in the order of the file."""
    if _is_secret(node):
        yield path, node
        return
    for part, inner in _children(node):
        yield from secrets_in(inner, (*path, part))


def _children(node: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(node, Mapping):
        yield from ((str(key), inner) for key, inner in node.items())
    elif isinstance(node, list):
        yield from enumerate(node)


def _set_secrets(node: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    return [(where, held[SECRET]) for where, held in secrets_in(node, path) if held[SECRET] not in EMPTY]


def plain(node: Any, *, masked: bool = False) -> Any:
    """The node as Python's own types; `masked` empties each secret."""
    if masked and _is_secret(node):
        return {SECRET: ""}
    if isinstance(node, Mapping):
        return {str(key): plain(inner, masked=masked) for key, inner in node.items()}
    if isinstance(node, list):
        return [plain(inner, masked=masked) for inner in node]
    return node if node is None or isinstance(node, (bool, int, float)) else str(node)


def shown(node: Any) -> str:
    """The node on one line, `a secret` in place of each secret."""
    if _is_secret(node):
        return "a secret"
    if isinstance(node, Mapping):
        return f"{{{', '.join(f'{key!r}: {shown(inner)}' for key, inner in _children(node))}}}"
    if isinstance(node, list):
        return f"[{', '.join(map(shown, node))}]"
    return repr(plain(node))


def below_values(path: KeyPath) -> KeyPath:
    """The path as `esc env set` takes it: below `values`."""
    return path[1:] if path[:1] == ("values",) else path


def shown_path(path: KeyPath) -> str:
    return property_path(below_values(path)) or "the whole definition"


# Where a secret may be set


def refuse_other_place(live: Any, wanted: Any, path: KeyPath, name: EnvironmentName) -> None:
    """Raise `Refused` unless `path`, below `values`, is the place of a secret, or free, and the same place in the file.

    The CLIs replace any value at that path: a map with every secret in it, or the reference to a stack. An index may
    mean another entry on the backend than in the file's definition, `wanted`; that is `None` without a file.
    """

    def refuse(what: str) -> Refused:
        return Refused(
            f"{property_path(path)} of {name.short} is not the place of a secret: {what}",
            expected="a secret's own path, or one that does not exist yet; nothing was set",
            next_step=f'mark it with `fn::secret: ""` in environments/{name.short}.yaml, ./inv esc.apply '
            f"{name.short}, then set it",
        )

    there, here = _child(live, "values"), _child(wanted, "values")
    for depth, part in enumerate(path):
        index = part if isinstance(there, list) and isinstance(part, int) and part < len(there) else None
        if there is not None and not _is_map(there) and index is None:
            raise refuse("a value stands above it")
        ours = here if isinstance(here, list) else []
        if index is not None and wanted is not None and match_entries(there, ours)[index] != index:
            written = f"is {shown(ours[index])}" if index < len(ours) else "is not there"
            raise Refused(
                f"{property_path(path[: depth + 1])} of {name.short} is {shown(there[index])} on the backend, and "
                f"{written} in environments/{name.short}.yaml",
                expected="the same entry at that index on both sides; nothing was set",
                next_step=f"./inv esc.apply {name.short} moves every entry with its secret, or names what is in "
                "doubt; then set it",
            )
        there, here = _child(there, part), _child(here, part)
    if isinstance(there, (Mapping, list)) and not _is_secret(there):
        raise refuse(f"it holds {len(there)} values, {sum(1 for _ in secrets_in(there))} of them secret")
    if there is not None and not _is_secret(there):
        raise refuse(f"it is {plain(there)!r}")


def holding_entry(document: Any, path: KeyPath) -> str:
    """The innermost list entry on `path`, as it is shown; empty if the path leads through no list."""
    entry, node = "", document
    for part in path:
        is_entry = isinstance(node, list)
        node = _child(node, part)
        if is_entry and node is not None and not _is_secret(node):
            entry = shown(node)
    return entry


# Identity of list entries: a position identifies nothing, because an entry inserted in front shifts all the others


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A list entry and what identifies it. Texts that are compared are JSON, so that `1`, `"1"` and `true` differ."""

    node: Any = field(repr=False)
    rest: str
    """The entry without its secrets; empty when nothing is left that could identify it."""

    @classmethod
    def of(cls, node: Any) -> Entry:
        rest = _without_secrets(node)
        return cls(node=node, rest=_canonical(rest) if _identifies(rest) else "")

    def name(self, key: str) -> str:
        """Its value at a key of `NAMES`; empty unless that is a text or a number."""
        value = self.node.get(key) if _is_map(self.node) else None
        # `true` is a number to Python, and names nothing.
        is_name = isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""
        return _canonical(value) if is_name else ""


def _canonical(node: Any) -> str:
    return json.dumps(plain(node), sort_keys=True)


def _without_secrets(node: Any) -> Any:
    """A copy of the node without the secrets in it; an empty list if the node is a secret."""
    if _is_map(node):
        return {key: _without_secrets(inner) for key, inner in node.items() if not _is_secret(inner)}
    if isinstance(node, list):
        return [_without_secrets(inner) for inner in node if not _is_secret(inner)]
    return [] if _is_secret(node) else node


def _identifies(rest: Any) -> bool:
    """Whether the rest can identify an entry: it has a value, or a key that is not a function's."""
    if isinstance(rest, Mapping):
        return any(not str(key).startswith("fn::") or _identifies(inner) for key, inner in rest.items())
    return any(_identifies(inner) for inner in rest) if isinstance(rest, list) else True


def match_entries(old_nodes: Sequence[Any], new_nodes: Sequence[Any]) -> list[int | str | None]:
    """Match each entry of the old list to the new one, by its rest, else by a name that is unique in both.

    Returns its index there, `None` without a match, or a text: why it cannot be decided.

    Lists that are equal but for the values of their secrets match index by index, even where entries are
    identical: no edit was made, so every secret stays where it is.
    """
    if _canonical(plain(old_nodes, masked=True)) == _canonical(plain(new_nodes, masked=True)):
        return list(range(len(old_nodes)))
    old, new = [Entry.of(node) for node in old_nodes], [Entry.of(node) for node in new_nodes]
    return [_match(entry, old, new) for entry in old]


def _match(entry: Entry, old: Sequence[Entry], new: Sequence[Entry]) -> int | str | None:
    if not entry.rest:
        return "it has nothing but secrets, and the list was edited"
    twins = [other for other in old if other.rest == entry.rest]
    found = [index for index, other in enumerate(new) if other.rest == entry.rest]
    if not found:
        return _match_by_name(entry, old, new)
    # Equal entries with the same secrets are interchangeable.
    if len({_canonical(twin.node) for twin in twins}) == 1 and len(found) <= len(twins):
        place = next(place for place, twin in enumerate(twins) if twin is entry)
        return found[min(place, len(found) - 1)]
    alike = ", ".join(f"[{index}]" for index in found)
    return f"without the secrets it equals {alike} of the file, and there are {len(twins)} on the backend"


def _match_by_name(entry: Entry, old: Sequence[Entry], new: Sequence[Entry]) -> int | str | None:
    def is_unique(key: str, entries: Sequence[Entry]) -> bool:
        names = {each.name(key) for each in entries}
        return len(names) == len(entries) and "" not in names

    keys = [key for key in NAMES if is_unique(key, old) and is_unique(key, new)]
    found = {next((index for index, each in enumerate(new) if each.name(key) == entry.name(key)), None) for key in keys}
    if len(found) > 1:
        return f"{' and '.join(f'`{key}`' for key in keys)} do not lead to the same entry of the file"
    return next(iter(found), None)


# Secrets that are set live, carried over into the file's definition


@dataclass(kw_only=True)
class Carried:
    """A definition ready to be pushed: the file's, with the secrets that are set on the backend."""

    document: CommentedMap
    kept: list[KeyPath] = field(default_factory=list)
    """Places in the file that got their secret from the backend."""
    added: list[KeyPath] = field(default_factory=list)
    """Secrets that are set on the backend although the file does not name them."""
    lost: list[KeyPath] = field(default_factory=list)
    """Secrets that a push would delete, by their live paths."""
    doubts: dict[KeyPath, str] = field(default_factory=dict)
    """Live path of a list entry with secrets that could be one of several entries of the file → the entry, as it is
    shown, and why it is in doubt. With any of them, the document must not be pushed."""

    @property
    def empty(self) -> list[KeyPath]:
        """Places whose secret is not set yet."""
        return [path for path, node in secrets_in(self.document) if node[SECRET] in EMPTY]

    def carry(self, live: Any, document: Any, at: KeyPath, to: KeyPath) -> None:
        """Walk both definitions side by side; `at` is a path of the backend's, `to` one of the file's."""
        if not _set_secrets(live):
            return
        if _is_secret(live) and _is_secret(document):
            document[SECRET] = live[SECRET]
            self.kept.append(to)
        elif _is_map(live) and _is_map(document):
            self._carry_map(live, document, at, to)
        elif isinstance(live, list) and isinstance(document, list):
            self._carry_list(live, document, at, to)
        else:
            self._lose(live, at)

    def _carry_map(self, live: Mapping[Any, Any], document: CommentedMap, at: KeyPath, to: KeyPath) -> None:
        keys = {str(key): key for key in document}
        is_call = any(name.startswith("fn::") for name in keys)
        for name, inner in ((str(key), inner) for key, inner in live.items()):
            if name in keys:
                self.carry(inner, document[keys[name]], (*at, name), (*to, name))
                continue
            # The file does not have the key: its secrets are kept, except those inside a list or a function's call.
            for rest, value in _set_secrets(inner, (name,)):
                if is_call or any(isinstance(part, int) or part.startswith("fn::") for part in rest):
                    self.lost.append((*at, *rest))
                    continue
                node = document
                for part in rest:
                    node = node.setdefault(part, CommentedMap())
                node[SECRET] = value
                self.added.append((*to, *rest))

    def _carry_list(self, live: list[Any], document: list[Any], at: KeyPath, to: KeyPath) -> None:
        for number, (inner, match) in enumerate(zip(live, match_entries(live, document), strict=True)):
            if isinstance(match, int):
                self.carry(inner, document[match], (*at, number), (*to, match))
            elif match and _set_secrets(inner):
                self.doubts[*at, number] = f"{shown(inner)}: {match}"
            else:
                self._lose(inner, (*at, number))

    def _lose(self, live: Any, at: KeyPath) -> None:
        self.lost.extend(path for path, _ in _set_secrets(live, at))


def carry_over(wanted: CommentedMap, live: Any) -> Carried:
    """The file's definition with every secret that is set on the backend.

    A secret follows the keys of maps and the identity of list entries, never a position in a list. Secrets that
    cannot be carried over are in `lost` or `doubts`.
    """
    document = copy.deepcopy(wanted)
    expand_aliases(document)  # a secret set at one alias would be set at all of them, and ESC accepts no aliases
    carried = Carried(document=document)
    carried.carry(live, document, (), ())
    return carried


def refuse_loss(carried: Carried, live: Any, name: EnvironmentName) -> None:
    """Raise `Refused` if pushing the definition would delete a secret that is set on the backend, or may move it."""
    if carried.doubts:
        lines = [f"{shown_path(path)} {doubt}" for path, doubt in carried.doubts.items()]
        raise Refused(
            f"it is ambiguous which entries of environments/{name.short}.yaml these secrets belong to:\n  "
            + "\n  ".join(lines),
            expected="entries that differ in their plain values, or a `name`, `id` or `key` that is unique both in the "
            "file and on the backend; nothing was changed",
            next_step=f"undo the edit of that list; or start over: {_emptying(name, next(iter(carried.doubts)))} "
            f"removes every secret in it, ./inv esc.apply {name.short} pushes the file, then set each of them again",
        )
    if carried.lost:
        entries = [(path, holding_entry(live, path)) for path in carried.lost]
        paths = [shown_path(path) + (f" (in {entry})" if entry else "") for path, entry in entries]
        first = carried.lost[0]
        # Removing a list entry would shift the next one to its index.
        remove_it = (
            _emptying(name, first)
            if isinstance(first[-1], int)
            else f"esc env rm {name.full} {shlex.quote(shown_path(first))}"
        )
        raise Refused(
            f"environments/{name.short}.yaml would lose secrets that are set on the backend: {', '.join(paths)}",
            expected='`fn::secret: ""` at the path of each secret in the file; in a list, with the plain values or the '
            "unique name of its entry; nothing was changed",
            next_step=f"correct the file, or remove them on purpose: {remove_it}",
        )


def _emptying(name: EnvironmentName, path: KeyPath) -> str:
    """The command that empties the list on the backend. Its path has no index, so references to the list stay valid."""
    below = below_values(path)
    # The path to the outermost list, or to the function whose argument the list is.
    whole = tuple(itertools.takewhile(lambda part: isinstance(part, str) and not part.startswith("fn::"), below))
    value = "[]" if isinstance(below[len(whole)], int) else '""'
    return f"esc env set {name.full} {shlex.quote(property_path(whole))} {shlex.quote(value)}"


def fill_empty(document: CommentedMap) -> list[str]:
    """Give every secret that has no value a generated one; return those values."""
    empty = [node for _, node in secrets_in(document) if node[SECRET] in EMPTY]
    for node in empty:
        node[SECRET] = generate_secret()
    return [node[SECRET] for node in empty]


# Stacks it reads


@dataclass(frozen=True, kw_only=True)
class StackRead:
    """One entry of `pulumi-stacks`."""

    path: KeyPath
    """Where the outputs are found: `${stacks.postgresql.host}` begins with this path."""
    local: str
    entry: CommentedMap = field(repr=False)

    @property
    def stack(self) -> str:
        return str(self.entry.get("stack", ""))

    @property
    def project(self) -> str:
        return self.stack.split("/")[-2] if "/" in self.stack else ""


def stacks_read(document: Any) -> list[StackRead]:
    """The stacks whose outputs the definition opens, in both spellings of `fn::open`."""
    return [
        StackRead(path=path, local=str(local), entry=entry)
        for path, inputs in _opens(document, ())
        for local, entry in (inputs.get("stacks") or {}).items()
        if isinstance(entry, CommentedMap)
    ]


def _opens(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        inputs, long_form = node.get(STACKS), node.get("fn::open")
        if isinstance(long_form, Mapping) and long_form.get("provider") == "pulumi-stacks":
            inputs = long_form.get("inputs")
        if isinstance(inputs, Mapping):
            yield path, inputs
            return
    for part, inner in _children(node):
        yield from _opens(inner, (*path, part))


def with_stack(document: CommentedMap, stack: str) -> list[str]:
    """Replace the stack part of every stack it reads, in place; return `old → new` of those that differed."""
    replaced = []
    for read in stacks_read(document):
        before = read.stack
        head, _, last = before.rpartition("/")
        if head and last != stack:
            read.entry["stack"] = f"{head}/{stack}"
            replaced.append(f"{before} → {head}/{stack}")
    return replaced


def outputs_read(document: Any, read: StackRead) -> list[str]:
    """Names of the outputs of that stack that the definition refers to, in order, each once."""
    head = re.escape(property_path((*below_values(read.path), read.local)))
    pattern = re.compile(rf"\$\{{{head}(?:\.([A-Za-z_$][\w$-]*)|\[\"([^\"]+)\"\])")
    names = [found[1] or found[2] for text in _texts(document) for found in pattern.finditer(text)]
    return list(dict.fromkeys(names))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for _, inner in _children(node):
        yield from _texts(inner)


# Differences


def differences(old: Any, new: Any) -> list[str]:
    """One line for each value that differs: `- path: value` is in the old definition, `+ path: value` in the new one.

    Comments, the order of keys, layout and the indexes of list entries do not count. Without a line both mean the same.
    A secret reads `a secret`.
    """
    before, after = list(_values(old)), list(_values(new))
    old_values, new_values = [compared for compared, _ in before], [compared for compared, _ in after]
    lines = []
    for change, *places in SequenceMatcher(None, old_values, new_values, autojunk=False).get_opcodes():
        if change != "equal":
            lines += [f"- {line}" for _, line in before[places[0] : places[1]]]
            lines += [f"+ {line}" for _, line in after[places[2] : places[3]]]
    return lines


def _values(node: Any, path: KeyPath = ()) -> Iterator[tuple[tuple[str | bool, ...], str]]:
    """Every value in the order of its keys: as it is compared, without indexes; and as it is shown, without secrets."""
    inside = [] if _is_secret(node) else list(_children(node))
    for part, inner in sorted(inside, key=lambda child: str(child[0])) if isinstance(node, Mapping) else inside:
        for number, (compared, line) in enumerate(_values(inner, (*path, part))):
            # Where a list entry begins does count: `[{a: 1}, {b: 2}]` is not `[{a: 1, b: 2}]`.
            yield (part if isinstance(part, str) else number == 0, *compared), line
    if path and not inside:
        yield (_canonical(node),), f"{shown_path(path)}: {shown(node)}"


def has_place(root: Path, name: EnvironmentName, path: str) -> bool:
    """Whether the environment's file marks a secret at that path, or there is no file."""
    if not definition_path(root, name).exists():
        return True
    return read_path(path) in {below_values(where) for where, _ in secrets_in(read_definition(root, name))}
