"""Stack configs, `Pulumi.<stack>.yaml`: what they hold, and the lab's copy kept up to date with its template."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ruamel.yaml.comments import CommentedMap

from runbooks.core.errors import STATE_FOLDER, Usage
from runbooks.core.files import IN_PLACE, PRIVATE, write_atomically, writing
from runbooks.core.yaml_file import YamlFile, dump, parse, read_raw, read_text
from runbooks.tools.binding import bound_names
from runbooks.tools.locks import process_is_alive


@dataclass(frozen=True, kw_only=True)
class StackFile:
    """What a stack config holds, values untouched."""

    path: Path
    config: Mapping[str, Any]
    environment: tuple[str, ...] = ()
    """The ESC environments it binds, as written, in their order: later ones win."""
    secrets_provider: str = ""
    """Who holds the key of its secrets, `awskms://…`; empty for a passphrase, or the cloud's own key."""
    has_own_key: bool = False
    """Whether the file says how its secrets are decrypted; if not, the cloud that holds the stack has the key."""

    @classmethod
    def read(cls, path: Path) -> StackFile:
        """Read `path`; a file that does not exist holds nothing. Raises `Usage` for one that is no stack config."""
        return _read(path, read_raw(path)) if path.exists() else cls(path=path, config={})

    @property
    def has_encrypted_values(self) -> bool:
        return any("secure" in str(value) for value in self.config.values())

    @property
    def ciphertexts(self) -> list[str]:
        """Of its secrets, wherever in a setting they lie."""
        return list(_ciphertexts(self.config))

    def has(self, key: str) -> bool:
        """Whether the full key (`namespace:name`) has a value, secret or not."""
        return key in self.config and self.config[key] not in (None, "")


@functools.lru_cache(maxsize=128)
def _read(path: Path, raw: bytes) -> StackFile:
    """A run reads the same file several times, and keeping its comments makes that slow."""
    source = YamlFile(path=path, document=parse(path, raw))
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
    if isinstance(value, Mapping):
        sealed = value.get("secure") if len(value) == 1 else None
        if isinstance(sealed, str):
            yield str(sealed)
            return
    if isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _ciphertexts(inner)


def secrets_provider_of(path: Path) -> str:
    """The secrets provider that a stack config names; empty when there is no file, or it names none.

    Raises `Usage` for one that is no stack config.
    """
    # Most files name none: reading them costs nothing then.
    named = path.exists() and b"secretsprovider" in path.read_bytes()
    return StackFile.read(path).secrets_provider if named else ""


KEPT = ".kept"
"""The end of a copy's name; before it stands the process that made it."""


@contextlib.contextmanager
def kept(path: Path) -> Iterator[None]:
    """Around a tool that edits a stack config: what the file held is not lost when the tool fails half-way.

    pulumi empties the file before it writes it anew (sdk/go/common/workspace/project.go, save): where the disk is full,
    the encryption salt and every secret would be gone. So a copy lies beside it meanwhile, and takes its place again
    when the tool failed and a key is missing. Raises `Unwritable`, before the tool starts, where no copy can be made,
    and `Usage` where an earlier run was cut off in the middle of this.
    """
    refuse_cut_off(path)
    before, copied = _keys_of(path), path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}{KEPT}")
    try:
        if path.exists():
            with writing(path.name, path, next_step=IN_PLACE):
                shutil.copy2(path, copied)
        yield
    except BaseException:
        if _is_damaged(path, before):
            copied.replace(path) if copied.exists() else path.unlink()
        raise
    finally:
        copied.unlink(missing_ok=True)


def refuse_cut_off(path: Path) -> None:
    """Raise `Usage` where a stack config lost something when the run that had it edited was cut off.

    The copies of runs that are over go where the file holds all that they hold.
    """
    for copied in sorted(path.parent.glob(f".{path.name}.*-*{KEPT}")):
        pid = copied.name.removeprefix(f".{path.name}.").partition("-")[0]
        if not pid.isdigit() or process_is_alive(int(pid)):
            continue
        held = _keys_of(copied) or frozenset()
        if held and (not path.exists() or _is_damaged(path, held)):
            back, gone = shlex.join(["mv", str(copied), str(path)]), shlex.join(["rm", str(copied)])
            raise Usage(
                f"{path} lacks settings that it had before a run was cut off while it was edited",
                expected=f"all that its copy from before holds, {copied.name} beside it",
                next_step=f"compare the two; {back} brings it back, {gone} leaves the file as it is",
            )
        copied.unlink(missing_ok=True)


def _is_damaged(path: Path, before: frozenset[str] | None) -> bool:
    now = _keys_of(path)
    return path.exists() and (not now or not now >= (before or frozenset()))


def _keys_of(path: Path) -> frozenset[str] | None:
    """Every key of the file and of its settings; `None` when it cannot be read."""
    try:
        top = YamlFile.read(path).mapping() if path.exists() else {}
    except Usage:
        return None
    config = top.get("config")
    return frozenset(map(str, [*top, *(config if isinstance(config, Mapping) else ())]))


def full_key(project: str, key: str) -> str:
    """`namespace:name` of a key that may be in the project's own namespace."""
    return key if ":" in key else f"{project}:{key}"


def missing_keys(file: StackFile, project: str, keys: Iterable[str]) -> list[str]:
    """Those of `keys`, in full, that the file gives no value."""
    return [full for key in keys if not file.has(full := full_key(project, key))]


def refresh_copy(template: Path, copied: Path, imposed: Mapping[str, str]) -> bool:
    """Bring the private copy of a settings template up to date; whether the copy was written.

    A template that changed since the last time wins over what it had said before; everything that was set in the copy
    itself stays: the encryption salt, secrets, bound environments, wired settings. `imposed` wins over both.
    """
    applied = copied.with_name(f".{copied.name}.template")
    new = read_text(template) if template.exists() else ""
    old = read_text(applied) if applied.exists() else None
    current = read_text(copied) if copied.exists() else None
    if current is not None and old == new and imposed.items() <= StackFile.read(copied).config.items():
        return False
    if current is None or old is None or old != new:
        document = merged(_mapping(template, new), _mapping(applied, old or ""), _mapping(copied, current or ""))
    else:
        document = _mapping(copied, current)
    impose(document, imposed)
    text = dump(document) if document else ""
    # In this order: a copy that could not be written is made again, from the same two templates.
    if text != current:
        write_atomically(copied, text, mode=PRIVATE, next_step=STATE_FOLDER)
    if old != new:
        write_atomically(applied, new, mode=PRIVATE, next_step=STATE_FOLDER)
    return text != current


def merged(template: CommentedMap, before: CommentedMap, current: CommentedMap) -> CommentedMap:
    """The new template, with all that `current` holds beyond what the template `before` had put there.

    What was taken out of `current`, such as a bound environment, comes back only when the template says something new.
    """
    result = copy.deepcopy(template)
    for key in [key for key in template if key != "config" and key in before and key not in current]:
        if template[key] == before[key]:
            del result[key]
    for key in current:
        if key != "config" and current[key] != before.get(key):
            result[key] = current[key]
    kept = current.get("config") or {}
    said = before.get("config") or {}
    own = {key: kept[key] for key in kept if kept[key] != said.get(key)}
    if own and not isinstance(result.get("config"), CommentedMap):
        result["config"] = CommentedMap()
    for key, value in own.items():
        result["config"][key] = value
    return result


def impose(document: CommentedMap, settings: Mapping[str, str]) -> None:
    """Set plain settings by their full keys, where they differ."""
    if settings and not isinstance(document.get("config"), CommentedMap):
        document["config"] = CommentedMap()
    for key, value in settings.items():
        if document["config"].get(key) != value:
            document["config"][key] = value


def _mapping(path: Path, text: str) -> CommentedMap:
    return YamlFile(path=path, document=parse(path, text.encode())).mapping()
