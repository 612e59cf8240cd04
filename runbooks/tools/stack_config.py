"""Stack configs, `Pulumi.<stack>.yaml`: their content, bound environments, backups during edits, the lab's copies."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ruamel.yaml.comments import CommentedMap

from runbooks.core.errors import STATE_FOLDER, Usage
from runbooks.core.files import IN_PLACE, PRIVATE, Unwritable, write_atomically, writing
from runbooks.core.processes import process_is_alive
from runbooks.core.yaml_file import YamlEditor, YamlFile, dump, parse, read_text

ENVIRONMENT = "environment"


@dataclass(frozen=True, kw_only=True)
class StackFile:
    """The content of a stack config, values as written."""

    path: Path
    config: Mapping[str, Any]
    environment: tuple[str, ...] = ()
    """The ESC environments it binds, as written and in order: later ones win."""
    secrets_provider: str = ""
    """The key service of its secrets, `awskms://…`; empty for a passphrase, or the cloud's own key."""
    has_own_key: bool = False
    """Whether the file names the key of its secrets; if not, the cloud that holds the stack has it."""

    @classmethod
    def read(cls, path: Path) -> StackFile:
        """Read `path`; a missing file counts as empty. Raises `Usage` for an invalid stack config."""
        return _read(path, read_text(path)) if path.exists() else cls(path=path, config={})

    @property
    def has_encrypted_values(self) -> bool:
        return any("secure" in str(value) for value in self.config.values())

    @property
    def ciphertexts(self) -> list[str]:
        """The ciphertexts of its secrets, at any depth of a value."""
        return list(_ciphertexts(self.config))

    def has(self, key: str) -> bool:
        """Whether the full key (`namespace:name`) has a value, secret or not."""
        return key in self.config and self.config[key] not in (None, "")


@functools.lru_cache(maxsize=128)
def _read(path: Path, text: str) -> StackFile:
    """Cached: a run reads the same file several times, and a parser that keeps comments is slow."""
    source = YamlFile(path=path, document=parse(path, text))
    top = source.mapping()
    config = source.section(top, "config") if top.get("config") is not None else {}
    return StackFile(
        path=path,
        config=config,
        environment=tuple(bound_names(top, path)),
        secrets_provider=str(top.get("secretsprovider") or ""),
        has_own_key=any(top.get(key) for key in ("secretsprovider", "encryptionsalt", "encryptedkey")),
    )


def _ciphertexts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and len(value) == 1 and isinstance(value.get("secure"), str):
        yield str(value["secure"])
    elif isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _ciphertexts(inner)


def secrets_provider_of(path: Path) -> str:
    """The secrets provider that a stack config names; empty without a file or without a provider.

    Raises `Usage` for an invalid stack config.
    """
    # Most files name none, and need not be parsed.
    named = path.exists() and b"secretsprovider" in path.read_bytes()
    return StackFile.read(path).secrets_provider if named else ""


def bound_names(top: Mapping[str, Any], path: Path) -> list[str]:
    """The names in `environment:` as written.

    Raises `Usage` for a definition in the stack config itself, and for what is not a list of names.
    """
    bound = top.get(ENVIRONMENT)
    if bound is None:
        return []
    if not isinstance(bound, (list, dict)):
        raise Usage(
            f"{path}: `environment:` is {bound!r}",
            expected=f"a list, as pulumi reads it: environment: [{bound if isinstance(bound, str) else 'stitch/prod'}]",
            next_step="correct that, then run the same command again",
        )
    if isinstance(bound, dict):
        raise Usage(
            f"{path}: `environment:` holds a definition of its own",
            expected="a list of names such as stitch/prod; definitions belong in environments/",
            next_step="move it to environments/<project>/<env>.yaml, then ./inv esc.apply <project>/<env>",
        )
    names = []
    for number, entry in enumerate(bound, start=1):
        name = _name_of(entry)
        if name is None:
            raise Usage(
                f"{path}: entry {number} of `environment:` is {json.dumps(entry, default=str)}",
                expected="a name such as stitch/prod, or a name with options: `stitch/prod: {merge: false}`",
                next_step="correct that, then run the same command again",
            )
        names.append(name)
    return names


def _name_of(entry: Any) -> str | None:
    """The name that the entry binds, with or without options such as `merge`; `None` where it is no such entry."""
    if isinstance(entry, str):
        return str(entry)
    if isinstance(entry, dict) and len(entry) == 1:
        name, options = next(iter(entry.items()))
        if isinstance(name, str) and isinstance(options, dict) and isinstance(options.get("merge", True), bool):
            return str(name)
    return None


def is_same(entry: str, name: str) -> bool:
    """Whether an entry names the environment `<project>/<env>`, in any version and organization."""
    # An environment without a project is in the project `default`.
    parts = re.sub(r"[@:][^/]*$", "", entry).split("/")
    return "/".join(["default", *parts][-2:]) == name


def read_binding(path: Path, name: str) -> tuple[str, bool] | None:
    """The entry that binds the environment, as written (with its version), and whether its values are merged in.

    If several entries name it, the last one counts; `None` if none does.
    """
    top = YamlFile.read(path).mapping() if path.exists() else {}
    names = bound_names(top, path)
    places = [number for number, entry in enumerate(names) if is_same(entry, name)]
    if not places:
        return None
    entry = top[ENVIRONMENT][places[-1]]
    options = entry[next(iter(entry))] if isinstance(entry, dict) else None
    return names[places[-1]], not (isinstance(options, dict) and options.get("merge") is False)


def bind(path: Path, name: str, version: str = "") -> bool:
    """Make `environment:` of the file contain the name exactly once; returns whether the file was written.

    Without a version in the name, an existing entry keeps its version.

    pulumi's own `config env add` binds twice when it is called twice, and its `rm` removes one of them (recorded in
    tests/contract/recorded/cloud/32-esc-bind.json).
    Of several entries the last one stays: later environments win.
    """
    editor, places = _find_bindings(path, name)
    before, entry = editor.text, f"{name}@{version}" if version else name
    if not places:
        editor.append((ENVIRONMENT,), entry)
    elif version and editor.document[ENVIRONMENT][places[-1]] != entry:
        editor.set((ENVIRONMENT, places[-1]), entry)
    for place in reversed(places[:-1]):
        editor.remove((ENVIRONMENT, place))
    is_changed = editor.text != before
    if is_changed:
        editor.write()
    return is_changed


def unbind(path: Path, name: str) -> int:
    """Remove every occurrence from the file; returns how many there were."""
    editor, places = _find_bindings(path, name)
    for place in reversed(places):
        editor.remove((ENVIRONMENT, place))
    if places:
        editor.write()
    return len(places)


def _find_bindings(path: Path, name: str) -> tuple[YamlEditor, list[int]]:
    """The file, opened for editing, and the indexes of the entries that name the environment."""
    editor = YamlEditor(path)
    names = bound_names(YamlFile(path=path, document=editor.document).mapping(), path)
    return editor, [number for number, entry in enumerate(names) if is_same(entry, name)]


# Edits by pulumi

BACKUP = ".kept"
"""The end of a backup's name; preceded by the process id that made it."""


@contextlib.contextmanager
def preserve(path: Path) -> Iterator[None]:
    """Back up a stack config while pulumi edits it, and restore it if pulumi failed and a key is missing.

    Of the file only what pulumi set changes: pulumi itself writes all of it in its own layout, without CRLF.

    pulumi empties the file before it writes it again (sdk/go/common/workspace/project.go, save): on a full disk the
    encryption salt and every secret would be lost. Raises `Unwritable`, before pulumi starts, if no backup can be
    made, and `Usage` if an earlier run was killed during an edit.
    """
    refuse_interrupted_edit(path)
    before, backup = _keys_of(path), path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}{BACKUP}")
    try:
        if path.exists():
            with writing(path.name, path, next_step=IN_PLACE):
                shutil.copy2(path, backup)
        yield
        if backup.exists():
            _restore_layout(path, read_text(backup))
    except BaseException:
        if _is_damaged(path, before):
            backup.replace(path) if backup.exists() else path.unlink()
        raise
    finally:
        backup.unlink(missing_ok=True)


def _restore_layout(path: Path, before: str) -> None:
    """Write what pulumi set into the text as it was before. What cannot be written so stays as pulumi wrote it."""
    editor, after = YamlEditor(path), YamlFile.read(path).mapping()
    editor.text = before
    with contextlib.suppress(Usage, Unwritable):
        for place, value in _texts_that_differ(editor.document or {}, after):
            editor.set(place, value)
        if editor.document == after:
            editor.write()


def _texts_that_differ(
    before: Any, after: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in after.items():
        known = before.get(key) if isinstance(before, Mapping) else None
        if isinstance(value, Mapping):
            yield from _texts_that_differ(known, value, (*above, key))
        elif isinstance(value, str) and value != known:
            yield (*above, key), value


def refuse_interrupted_edit(path: Path) -> None:
    """Raise `Usage` if a stack config lost a key when a run was killed during an edit.

    The backups of such runs are removed if the file has all of their keys.
    """
    for backup in sorted(path.parent.glob(f".{path.name}.*-*{BACKUP}")):
        pid = backup.name.removeprefix(f".{path.name}.").partition("-")[0]
        if not pid.isdigit() or process_is_alive(int(pid)):
            continue
        keys = _keys_of(backup)
        if keys and (not path.exists() or _is_damaged(path, keys)):
            restore, discard = shlex.join(["mv", str(backup), str(path)]), shlex.join(["rm", str(backup)])
            raise Usage(
                f"{path} lacks keys that it had before a run was killed during an edit",
                expected=f"all keys of its backup, {backup.name} beside it",
                next_step=f"compare the two; {restore} restores it, {discard} leaves the file as it is",
            )
        backup.unlink(missing_ok=True)


def _is_damaged(path: Path, before: frozenset[str]) -> bool:
    now = _keys_of(path)
    return path.exists() and (not now or not now >= before)


def _keys_of(path: Path) -> frozenset[str]:
    """Every key of the file and of its config; none if it cannot be read."""
    try:
        top = YamlFile.read(path).mapping() if path.exists() else {}
    except Usage:
        return frozenset()
    config = top.get("config")
    return frozenset(map(str, [*top, *(config if isinstance(config, Mapping) else ())]))


def full_key(project: str, key: str) -> str:
    """`namespace:name` of a key that may be in the project's own namespace."""
    return key if ":" in key else f"{project}:{key}"


def missing_keys(file: StackFile, project: str, keys: Iterable[str]) -> list[str]:
    """The keys of `keys`, as full keys, that have no value in the file."""
    return [full for key in keys if not file.has(full := full_key(project, key))]


def refresh_copy(template: Path, copied: Path, imposed: Mapping[str, str]) -> bool:
    """Bring the private copy of a stack config up to date with its template; returns whether the copy was written.

    Changes of the template win. Everything else in the copy stays: the encryption salt, secrets, bound environments,
    wired config. `imposed` wins over both.
    """
    applied = copied.with_name(f".{copied.name}.template")
    new = read_text(template) if template.exists() else ""
    old = read_text(applied) if applied.exists() else None
    current = read_text(copied) if copied.exists() else None
    if current is not None and old == new and imposed.items() <= StackFile.read(copied).config.items():
        return False
    bound_names(_mapping(template, new), template)  # its problem is the template's, not the copy's
    document = merge(_mapping(template, new), _mapping(applied, old or ""), _mapping(copied, current or ""), imposed)
    text = dump(document) if document else ""
    # In this order: a copy that could not be written is merged again from the same two templates.
    if text != current:
        write_atomically(copied, text, mode=PRIVATE, next_step=STATE_FOLDER)
    if old != new:
        write_atomically(applied, new, mode=PRIVATE, next_step=STATE_FOLDER)
    return text != current


def merge(
    template: CommentedMap, before: CommentedMap, current: CommentedMap, imposed: Mapping[str, str]
) -> CommentedMap:
    """The new template with everything that was set in `current` since it was made from the template `before`.

    A key that was removed from `current`, such as a bound environment, returns only if the template changed it.
    """
    result = copy.deepcopy(template)
    for key in [key for key in template if key != "config" and key in before and key not in current]:
        if template[key] == before[key]:
            del result[key]
    for key, value in current.items():
        if key != "config" and value != before.get(key):
            result[key] = value
    config, old = current.get("config") or {}, before.get("config") or {}
    own = {**{key: value for key, value in config.items() if value != old.get(key)}, **imposed}
    if own and not isinstance(result.get("config"), CommentedMap):
        result["config"] = CommentedMap()
    for key, value in own.items():
        result["config"][key] = value
    return result


def _mapping(path: Path, text: str) -> CommentedMap:
    return YamlFile(path=path, document=parse(path, text)).mapping()
