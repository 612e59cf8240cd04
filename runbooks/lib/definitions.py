"""Definitions of ESC environments as files: what they refer to, what secrets they hold, how two of them differ.

The files hold references only. A secret's place is marked by `fn::secret: ""`; its value is set live and stays there.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from runbooks.lib.errors import NotFound, Refused, Usage
from runbooks.lib.esc import EnvironmentName, property_path
from runbooks.lib.names import nearest
from runbooks.lib.yamlfile import YamlFile, parse

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
    """The definition as the back end has it; an empty one is an empty map."""
    document = parse(Path(name.short), text.encode())
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise Usage(f"the definition of {name.short} on the back end is no map", next_step=f"esc env get {name.full}")
    return document


def refuse_values(document: Any, path: Path) -> None:
    """Raise `Usage` for a secret whose value stands in the file."""
    told = [property_path(below_values(where)) for where, node in secrets_in(document) if node[SECRET] not in EMPTY]
    if told:
        raise Usage(
            f"{path} holds the value of a secret: {', '.join(told)}",
            expected='`fn::secret: ""` as its place alone; treat what stood there as disclosed and change it',
            next_step=f"./inv esc.set {path.parent.name}/{path.stem} {shlex.quote(told[0])}",
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
    """Secret values that stand in a definition in clear, where a back end gives them so."""
    return [value for _, held in secrets_in(node) if isinstance(value := held[SECRET], str) and value]


def below_values(path: KeyPath) -> KeyPath:
    """The path as `esc env set` takes it: below `values`."""
    return path[1:] if path[:1] == ("values",) else path


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A definition ready to be pushed: the file's, with the secrets that are set live."""

    document: CommentedMap
    kept: tuple[KeyPath, ...] = ()
    """Secrets of the back end that the file has a place for."""
    added: tuple[KeyPath, ...] = ()
    """Secrets that are set live although the file does not name them."""
    lost: tuple[KeyPath, ...] = ()
    """Secrets that pushing it would make vanish."""
    empty: tuple[KeyPath, ...] = ()
    """Places of the file for which nothing is set yet."""


def carry_over(wanted: CommentedMap, live: Any) -> Carried:
    """The file's definition with every secret that is set live; what cannot be carried over is `lost`."""
    document = copy.deepcopy(wanted)
    set_live = [(path, node[SECRET]) for path, node in secrets_in(live) if node[SECRET] not in EMPTY]
    put = [(path, _put(document, path, value)) for path, value in set_live]
    return Carried(
        document=document,
        kept=tuple(path for path, result in put if result is True),
        added=tuple(path for path, result in put if result is False),
        lost=tuple(path for path, result in put if result is None),
        empty=tuple(path for path, node in secrets_in(document) if node[SECRET] in EMPTY),
    )


def _put(document: CommentedMap, path: KeyPath, value: Any) -> bool | None:
    """Set the secret at `path`: True where the file has its place, False where it was added, `None` where neither."""
    node: Any = document
    for depth, key in enumerate(path):
        if isinstance(node, list):
            if not isinstance(key, int) or key >= len(node):
                return None
            node = node[key]
            continue
        if not isinstance(node, CommentedMap) or SECRET in node:
            return None
        if key not in node:
            rest = path[depth:]
            if any(not isinstance(part, str) or part.startswith("fn::") for part in rest) or _is_call(node):
                return None
            for part in rest:
                node[part] = CommentedMap()
                node = node[part]
            node[SECRET] = value
            return False
        node = node[key]
    if not isinstance(node, CommentedMap) or SECRET not in node:
        return None
    node[SECRET] = value
    return True


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
    """`+` only in the new one, `-` only in the old one, `~` in both."""
    old: str = ""
    new: str = ""

    @property
    def told(self) -> str:
        values = {"+": self.new, "-": self.old, "~": f"{self.old} → {self.new}"}[self.sign]
        return f"{self.sign} {self.path}: {values}"


def differences(old: Any, new: Any, path: KeyPath = ()) -> list[Difference]:
    """Where the definitions differ in meaning: comments, order of keys and layout do not count."""
    if _is_map(old) and _is_map(new):
        told = []
        for key in [*new, *(key for key in old if key not in new)]:
            told += _of_key(key, old, new, (*path, str(key)))
        return told
    return [] if plain(old) == plain(new) else [_difference("~", path, old=old, new=new)]


def _of_key(key: Any, old: Mapping[Any, Any], new: Mapping[Any, Any], where: KeyPath) -> list[Difference]:
    """A whole map that comes or goes is told value by value."""
    if key in old and key in new:
        return differences(old[key], new[key], where)
    there = new[key] if key in new else old[key]
    if _is_map(there) and there:
        return differences({} if key in new else there, there if key in new else {}, where)
    return [_difference("+", where, new=there) if key in new else _difference("-", where, old=there)]


def _is_map(node: Any) -> bool:
    return isinstance(node, Mapping) and SECRET not in node


def _difference(sign: str, path: KeyPath, *, old: Any = None, new: Any = None) -> Difference:
    shown = property_path(below_values(path)) or "the whole definition"
    return Difference(path=shown, sign=sign, old=_told(old), new=_told(new))


def _told(node: Any) -> str:
    if next(iter(secrets_in(node)), None) is not None:
        return "a secret" if SECRET in node else "a value with secrets"
    return repr(plain(node))


def plain(node: Any) -> Any:
    """The node as Python's own types."""
    if isinstance(node, Mapping):
        return {str(key): plain(inner) for key, inner in node.items()}
    if isinstance(node, list):
        return [plain(inner) for inner in node]
    return node if node is None or isinstance(node, (bool, int, float)) else str(node)
