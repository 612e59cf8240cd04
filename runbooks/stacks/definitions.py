"""Definitions of ESC environments as files: what they refer to, what secrets they hold, how two of them differ.

The files hold references only. A secret's place is marked by `fn::secret: ""`; its value is set live and stays there.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from runbooks.core.errors import NotFound, Refused, Usage
from runbooks.core.names import nearest
from runbooks.core.yaml_file import YamlFile, expand_aliases, parse
from runbooks.stacks.entries import NAMES, Entry, match_entries, moved_entries, pair_entries
from runbooks.tools.esc import EnvironmentName, property_path

SECRET = "fn::secret"  # noqa: S105 - the name of ESC's function
STACKS = "fn::open::pulumi-stacks"
EMPTY = (None, "")

KeyPath = tuple[str | int, ...]


def definition_path(root: Path, name: EnvironmentName) -> Path:
    return root / "environments" / name.project / f"{name.name}.yaml"


def defined_names(root: Path) -> list[str]:
    """`project/env` of every file below `environments/`."""
    folder = root / "environments"
    return sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.yaml"))


def read_definition(root: Path, name: EnvironmentName) -> CommentedMap:
    """The environment's file. Raises `NotFound` with the nearest names, `Usage` for a file that no definition is."""
    path = definition_path(root, name)
    if not path.exists():
        known = defined_names(root)
        raise NotFound(
            f"there is no definition of {name.short} in environments/",
            expected=f"one of {', '.join(nearest(name.short, known)) or 'no definition is there yet'}",
            next_step=f"write environments/{name.short}.yaml, then ./inv esc.apply {name.short}",
        )
    source = YamlFile.read(path)
    document = source.mapping()
    source.refuse_unknown_keys(document, ("imports", "values"), "the definition")
    if not any(document.get(key) for key in ("imports", "values")):
        raise Usage(
            f"environments/{name.short}.yaml defines nothing",
            expected="`values:` or `imports:`; applying it would take away all that the environment provides",
            next_step=f"write it, or git checkout -- environments/{name.short}.yaml",
        )
    refuse_values(document, path)
    return document


def read_live(text: str, name: EnvironmentName) -> CommentedMap:
    """The definition as the backend has it; an empty one is an empty map."""
    document = parse(Path(name.short), text.encode())
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise Usage(f"the definition of {name.short} on the backend is no map", next_step=f"esc env get {name.full}")
    return document


def refuse_values(document: Any, path: Path) -> None:
    """Raise `Usage` for a secret whose value stands in the file."""
    paths = [below_values(where) for where, node in secrets_in(document) if node[SECRET] not in EMPTY]
    if paths:
        set_it = f"./inv esc.set {path.parent.name}/{path.stem} {shlex.quote(property_path(paths[0]))}"
        has_index = any(isinstance(part, int) for part in paths[0])  # which esc.set compares with the file
        raise Usage(
            f"{path} holds the value of a secret: {', '.join(map(property_path, paths))}",
            expected='`fn::secret: ""` as its place alone; treat what stood there as disclosed and change it',
            next_step=f'write `fn::secret: ""` there, then {set_it}' if has_index else set_it,
        )


# Secrets


def secrets_in(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, CommentedMap]]:
    """Every `fn::secret` with the path of the map that holds it, in the order of the file."""
    if isinstance(node, Mapping):
        if SECRET in node:
            yield path, node  # type: ignore[misc]
            return
        for key, inner in node.items():
            yield from secrets_in(inner, (*path, str(key)))
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from secrets_in(inner, (*path, number))


def refuse_overwriting(live: Any, path: KeyPath, name: EnvironmentName) -> None:
    """Raise `Refused` where a secret set at `path` would take the place of something else than a secret.

    The CLIs replace whatever stands there: a map with every secret in it, or what wires it to a stack.
    """
    node = live.get("values") if isinstance(live, Mapping) else None
    for part in path:
        if isinstance(node, Mapping) and SECRET not in node:
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif node is not None:
            raise _in_the_way(path, "a value stands above it", name)
    if node is None or (isinstance(node, Mapping) and SECRET in node):
        return
    held = sum(1 for _ in secrets_in(node))
    what = f"it holds {len(node)} values, {held} of them secret" if _holds_more(node) else f"it is {plain(node)!r}"
    raise _in_the_way(path, what, name)


def _holds_more(node: Any) -> bool:
    return isinstance(node, (Mapping, list))


def _in_the_way(path: KeyPath, what: str, name: EnvironmentName) -> Refused:
    return Refused(
        f"{property_path(path)} of {name.short} is no place of a secret: {what}",
        expected="a secret's own path, or one that is not there yet; nothing was set",
        next_step=f'mark it with `fn::secret: ""` in environments/{name.short}.yaml, ./inv esc.apply {name.short}, '
        "then set it",
    )


def clear_secrets(node: Any) -> list[str]:
    """Secret values that stand in a definition in plaintext, where a backend gives them so."""
    return [value for _, held in secrets_in(node) if isinstance(value := held[SECRET], str) and value]


# Identity of list entries


def entry_of(node: Any) -> Entry:
    """What identifies the node as an entry of a list."""
    names = {key: node[key] for key in NAMES if key in node} if _is_map(node) else {}
    rest = _without_secrets(node)
    return Entry(
        exact=_canonical(node),
        masked=_canonical(_masked(node)),
        rest=_canonical(rest) if _identifies(rest) else "",
        names={key: _canonical(value) for key, value in names.items() if _is_name(value)},
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""


def _canonical(node: Any) -> str:
    return json.dumps(plain(node), sort_keys=True)


def _masked(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {SECRET: ""} if SECRET in node else {key: _masked(inner) for key, inner in node.items()}
    return [_masked(inner) for inner in node] if isinstance(node, list) else node


def _is_secret(node: Any) -> bool:
    return isinstance(node, Mapping) and SECRET in node


def _without_secrets(node: Any) -> Any:
    """The node without the secrets in it; an empty list for a secret itself."""
    if _is_map(node):
        return {key: _without_secrets(inner) for key, inner in node.items() if not _is_secret(inner)}
    if isinstance(node, list):
        return [_without_secrets(inner) for inner in node if not _is_secret(inner)]
    return [] if _is_secret(node) else node


def _identifies(rest: Any) -> bool:
    """Whether anything is left that a person wrote: a value, or a key that is no function's."""
    if isinstance(rest, Mapping):
        return any(not str(key).startswith("fn::") or _identifies(inner) for key, inner in rest.items())
    return any(_identifies(inner) for inner in rest) if isinstance(rest, list) else True


def holding_entry(document: Any, path: KeyPath) -> str:
    """The innermost list entry that holds `path`, as it is shown; empty where the path leads through none."""
    entry, node = "", document
    for part in path:
        is_entry = isinstance(node, list)
        node = _child(node, part)
        if is_entry and node is not None and not _is_secret(node):
            entry = shown(node)
    return entry


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, list):
        return node[part] if isinstance(part, int) and part < len(node) else None
    return node.get(part) if isinstance(node, Mapping) else None


def refuse_other_entry(live: Any, wanted: Any, path: KeyPath, name: EnvironmentName) -> None:
    """Raise `Refused` where an index in `path`, below `values`, is another entry live than in the file."""
    there, here = _child(live, "values"), _child(wanted, "values")
    for depth, part in enumerate(path):
        if isinstance(there, list) and isinstance(part, int):
            ours = here if isinstance(here, list) else []
            match = match_entries([entry_of(node) for node in there], [entry_of(node) for node in ours])[part]
            if match.index != part:
                raise _another_entry(property_path(path[: depth + 1]), there[part], _child(here, part), name)
        there, here = _child(there, part), _child(here, part)


def _another_entry(where: str, there: Any, here: Any, name: EnvironmentName) -> Refused:
    written = f"is {shown(here)}" if here is not None else "is not there"
    return Refused(
        f"{where} of {name.short} is {shown(there)} on the backend, and {written} in environments/{name.short}.yaml",
        expected="the same entry at that index on both sides; nothing was set",
        next_step=f"./inv esc.apply {name.short} moves every entry with its secret, or says what is in doubt; "
        "then set it",
    )


def below_values(path: KeyPath) -> KeyPath:
    """The path as `esc env set` takes it: below `values`."""
    return path[1:] if path[:1] == ("values",) else path


def without_indexes(path: KeyPath) -> KeyPath:
    """The way to the outermost list of `path`, or to the function whose argument it is."""
    keys = itertools.takewhile(lambda part: isinstance(part, str) and not part.startswith("fn::"), path)
    return tuple(keys)


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A list entry with secrets that are set live, and that may be one entry of the file or another."""

    path: KeyPath
    """Of the entry, in the live definition."""
    entry: str
    """The entry as it is shown, without its secrets."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A definition ready to be pushed: the file's, with the secrets that are set live."""

    document: CommentedMap
    kept: tuple[KeyPath, ...] = ()
    """Places in the file that have their secret of the backend."""
    added: tuple[KeyPath, ...] = ()
    """Secrets that are set live although the file does not name them."""
    lost: tuple[KeyPath, ...] = ()
    """Secrets that pushing it would make vanish, by their live paths."""
    doubts: tuple[Doubt, ...] = ()
    """List entries whose entry in the file is in doubt; with any, the document must not be pushed."""
    empty: tuple[KeyPath, ...] = ()
    """Places of the file for which nothing is set yet."""


def carry_over(wanted: CommentedMap, live: Any) -> Carried:
    """The file's definition with every secret that is set live.

    A secret follows the keys of maps and the identity of list entries, never a position in a list. What cannot be
    carried over is `lost` or in `doubts`.
    """
    carrier = _Carrier()
    document = copy.deepcopy(wanted)
    expand_aliases(document)  # a secret set in one of its places would be set in all of them, and ESC takes no alias
    carrier.carry(live, document, (), ())
    return Carried(
        document=document,
        kept=tuple(carrier.kept),
        added=tuple(carrier.added),
        lost=tuple(carrier.lost),
        doubts=tuple(carrier.doubts),
        empty=tuple(path for path, node in secrets_in(document) if node[SECRET] in EMPTY),
    )


def _set_secrets(node: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    return [(where, held[SECRET]) for where, held in secrets_in(node, path) if held[SECRET] not in EMPTY]


@dataclass
class _Carrier:
    """Walks both definitions side by side; `at` is a path of the live one, `to` of the file."""

    kept: list[KeyPath] = field(default_factory=list)
    added: list[KeyPath] = field(default_factory=list)
    lost: list[KeyPath] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    def carry(self, live: Any, document: Any, at: KeyPath, to: KeyPath) -> None:
        if not _set_secrets(live):
            return
        if isinstance(live, Mapping) and isinstance(document, CommentedMap) and _is_map(live) == _is_map(document):
            if SECRET in live:
                document[SECRET] = live[SECRET]
                self.kept.append(to)
            else:
                self._carry_map(live, document, at, to)
        elif isinstance(live, list) and isinstance(document, list):
            self._carry_list(live, document, at, to)
        else:
            self._lose(live, at)

    def _carry_map(self, live: Mapping[Any, Any], document: CommentedMap, at: KeyPath, to: KeyPath) -> None:
        keys = {str(key): key for key in document}
        for name, inner in ((str(key), inner) for key, inner in live.items()):
            if name in keys:
                self.carry(inner, document[keys[name]], (*at, name), (*to, name))
            else:
                self._add(inner, document, at, to, name)

    def _carry_list(self, live: list[Any], document: list[Any], at: KeyPath, to: KeyPath) -> None:
        matches = match_entries([entry_of(node) for node in live], [entry_of(node) for node in document])
        for number, (inner, match) in enumerate(zip(live, matches, strict=True)):
            if match.index is not None:
                self.carry(inner, document[match.index], (*at, number), (*to, match.index))
            elif match.doubt and _set_secrets(inner):
                self.doubts.append(Doubt(path=(*at, number), entry=shown(inner), why=match.doubt))
            else:
                self._lose(inner, (*at, number))

    def _add(self, live: Any, document: CommentedMap, at: KeyPath, to: KeyPath, name: str) -> None:
        """Keep secrets below a key that the file does not have; those inside a list or a call are lost."""
        for rest, value in _set_secrets(live, (name,)):
            if _is_call(document) or any(isinstance(part, int) or part.startswith("fn::") for part in rest):
                self.lost.append((*at, *rest))
                continue
            node = document
            for part in rest:
                node = node.setdefault(part, CommentedMap())
            node[SECRET] = value
            self.added.append((*to, *rest))

    def _lose(self, live: Any, at: KeyPath) -> None:
        self.lost.extend(path for path, _ in _set_secrets(live, at))


def _is_call(node: CommentedMap) -> bool:
    return any(str(key).startswith("fn::") for key in node)


def fill_empty(document: CommentedMap, generate: Callable[[], str]) -> list[str]:
    """Give every secret that has no value a generated one; gives those values."""
    made = []
    for _, node in secrets_in(document):
        if node[SECRET] in EMPTY:
            node[SECRET] = generate()
            made.append(node[SECRET])
    return made


# Stacks it reads


@dataclass(frozen=True, kw_only=True)
class StackRead:
    """One entry of `pulumi-stacks`."""

    path: KeyPath
    """Of the entries' result: `${stacks.postgresql.host}` begins with it."""
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
        inputs = node.get(STACKS)
        long_form = node.get("fn::open")
        if isinstance(long_form, Mapping) and long_form.get("provider") == "pulumi-stacks":
            inputs = long_form.get("inputs")
        if isinstance(inputs, Mapping):
            yield path, inputs
            return
        for key, inner in node.items():
            yield from _opens(inner, (*path, str(key)))
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _opens(inner, (*path, number))


def with_stack(document: CommentedMap, stack: str) -> list[str]:
    """Replace the stack part of every stack it reads, in place; gives `old → new` of those that differed."""
    told = []
    for read in stacks_read(document):
        before = read.stack
        head, _, last = before.rpartition("/")
        if head and last != stack:
            read.entry["stack"] = f"{head}/{stack}"
            told.append(f"{before} → {head}/{stack}")
    return told


def outputs_read(document: Any, read: StackRead) -> list[str]:
    """Names of the outputs of that stack that the definition refers to, in order, each once."""
    head = re.escape(property_path((*below_values(read.path), read.local)))
    pattern = re.compile(rf"\$\{{{head}(?:\.([A-Za-z_$][\w$-]*)|\[\"([^\"]+)\"\])")
    names = [found[1] or found[2] for text in _texts(document) for found in pattern.finditer(text)]
    return list(dict.fromkeys(names))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for inner in node.values():
            yield from _texts(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _texts(inner)
    elif isinstance(node, str):
        yield node


# Differences


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One place where two definitions differ. The texts hold no secret: a `fn::secret` reads `a secret`."""

    path: str
    sign: str
    """`+` only in the new one, `-` only in the old one, `~` in both, `>` at another index of its list (`old`)."""
    old: str = ""
    new: str = ""

    @property
    def told(self) -> str:
        values = {
            "+": self.new,
            "-": self.old,
            "~": f"{self.old} → {self.new}",
            ">": f"{self.new}, was {self.old}",
        }[self.sign]
        return f"{self.sign} {self.path}: {values}"


def differences(old: Any, new: Any, path: KeyPath = ()) -> list[Difference]:
    """Where the definitions differ in meaning: comments, order of keys and layout do not count.

    Lists are compared entry by entry; the path of an entry has its new index, that of a removed one its old index.
    """
    if _is_map(old) and _is_map(new):
        found = []
        for key in [*new, *(key for key in old if key not in new)]:
            found += _of_key(key, old, new, (*path, str(key)))
        return found
    if isinstance(old, list) and isinstance(new, list):
        return _of_lists(old, new, path)
    return [] if plain(old) == plain(new) else [_difference("~", path, old=old, new=new)]


def _of_lists(old: list[Any], new: list[Any], path: KeyPath) -> list[Difference]:
    pairs = pair_entries([entry_of(node) for node in old], [entry_of(node) for node in new])
    moved = moved_entries(pairs)
    found = []
    for number, node in enumerate(new):
        if number not in pairs:
            found.append(_difference("+", (*path, number), new=node))
            continue
        if number in moved:
            was = property_path(below_values((*path, pairs[number])))
            found.append(Difference(path=_shown_path((*path, number)), sign=">", old=was, new=shown(node)))
        found += differences(old[pairs[number]], node, (*path, number))
    gone = sorted(set(range(len(old))) - set(pairs.values()))
    return found + [_difference("-", (*path, number), old=old[number]) for number in gone]


def _of_key(key: Any, old: Mapping[Any, Any], new: Mapping[Any, Any], where: KeyPath) -> list[Difference]:
    """A map, or a list of more than plain values, that comes or goes as a whole is shown value by value."""
    if key in old and key in new:
        return differences(old[key], new[key], where)
    there = new[key] if key in new else old[key]
    if there and (_is_map(there) or (isinstance(there, list) and any(_holds_more(inner) for inner in there))):
        nothing: Any = {} if _is_map(there) else []
        return differences(nothing if key in new else there, there if key in new else nothing, where)
    return [_difference("+", where, new=there) if key in new else _difference("-", where, old=there)]


def _is_map(node: Any) -> bool:
    return isinstance(node, Mapping) and SECRET not in node


def _difference(sign: str, path: KeyPath, *, old: Any = None, new: Any = None) -> Difference:
    return Difference(path=_shown_path(path), sign=sign, old=shown(old), new=shown(new))


def _shown_path(path: KeyPath) -> str:
    return property_path(below_values(path)) or "the whole definition"


def shown(node: Any) -> str:
    """The node on one line, `a secret` in place of each secret."""
    if isinstance(node, Mapping):
        inner = ", ".join(f"{str(key)!r}: {shown(value)}" for key, value in node.items())
        return "a secret" if SECRET in node else f"{{{inner}}}"
    if isinstance(node, list):
        return f"[{', '.join(shown(inner) for inner in node)}]"
    return repr(plain(node))


def plain(node: Any) -> Any:
    """The node as Python's own types."""
    if isinstance(node, Mapping):
        return {str(key): plain(inner) for key, inner in node.items()}
    if isinstance(node, list):
        return [plain(inner) for inner in node]
    return node if node is None or isinstance(node, (bool, int, float)) else str(node)
