"""A project folder: ``Pulumi.yaml`` and its stack settings files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.engine.failures import CommandFailed, UsageError
from lab.engine.secrets_manager import Crypter


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping; empty for an empty file."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise CommandFailed(f"could not read {path}: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise CommandFailed(f"{path} must be a mapping, not a {type(document).__name__}")
    return document


@dataclass(frozen=True)
class Declaration:
    """An entry below ``config:`` of Pulumi.yaml. Without ``default`` and with a ``type`` the key is required."""

    default: Any = None
    type: str = ""
    secret: bool = False


@dataclass(frozen=True)
class Project:
    """``Pulumi.yaml``, as far as the stand-in uses it."""

    folder: Path
    name: str
    main: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Declaration] = field(default_factory=dict)
    stack_config_dir: str = ""
    runtime: str = "python"

    def stack_file(self, stack: str) -> Path:
        return self.folder / self.stack_config_dir / f"Pulumi.{stack}.yaml"

    def program(self) -> tuple[Path, Path]:
        """Working folder and the program (a folder or a file), both absolute."""
        target = (self.folder / self.main).resolve()
        if not target.exists():
            raise CommandFailed(f"the program of project '{self.name}' is not there: {target} (`main` in Pulumi.yaml)")
        return (target, target) if target.is_dir() else (target.parent, target)


def find_project(start: Path) -> Project:
    """The project of ``start`` or of the nearest folder above it."""
    for folder in (start, *start.parents):
        for name in ("Pulumi.yaml", "Pulumi.yml"):
            if (folder / name).is_file():
                return _read_project(folder / name)
    raise CommandFailed(
        f"no Pulumi.yaml project file found (searching upwards from {start}). If you have not created a project yet, "
        "use `pulumi new` to do so"
    )


def _read_project(path: Path) -> Project:
    document = read_yaml(path)
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise CommandFailed(f"could not load current project: {path} has no 'name'")
    runtime = document.get("runtime")
    kind = runtime.get("name") if isinstance(runtime, dict) else runtime
    if kind != "python":
        raise UsageError(
            f"runtime '{kind}' of {path} is not supported by the lab's stand-in for pulumi; only python is"
        )
    options = (runtime.get("options") or {}) if isinstance(runtime, dict) else {}
    return Project(
        path.parent,
        name,
        str(document.get("main") or ""),
        options,
        _read_declarations(document.get("config") or {}, name),
        str(document.get("stackConfigDir") or ""),
    )


def _read_declarations(entries: Mapping[str, Any], project: str) -> dict[str, Declaration]:
    declared = {}
    for key, entry in entries.items():
        if isinstance(entry, dict):
            default = entry.get("value", entry.get("default"))
            declared[full_key(key, project)] = Declaration(
                default, str(entry.get("type") or ""), bool(entry.get("secret"))
            )
        else:
            declared[full_key(key, project)] = Declaration(entry)
    return declared


def full_key(key: str, project: str) -> str:
    """``name`` becomes ``<project>:name``."""
    if key.count(":") > 1 or not key.strip(":"):
        raise UsageError(
            f"could not parse {key} as a configuration key (configuration keys should be of the form "
            "`<namespace>:<name>`)"
        )
    return key if ":" in key else f"{project}:{key}"


@dataclass(frozen=True)
class Setting:
    """``value`` is the text a program gets (JSON for lists and maps), or the ciphertext when ``is_encrypted``.

    ``raw`` is the value as the file has it; lists and maps may hold encrypted parts.
    """

    value: str
    secret: bool = False
    is_encrypted: bool = False
    raw: Any = None

    def plain(self, crypter: Callable[[], Crypter]) -> str:
        if self.is_encrypted:
            return crypter().decrypt(self.value)
        if isinstance(self.raw, dict | list):
            return as_text(_decrypted(self.raw, crypter))
        return self.value


def as_text(value: Any) -> str:
    """A setting as a program gets it: JSON for lists and maps."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return "" if value is None else str(value)


def _is_encrypted(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"} and isinstance(value["secure"], str)


def _holds_encrypted(value: Any) -> bool:
    if _is_encrypted(value):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds_encrypted(item) for item in items)


def _decrypted(value: Any, crypter: Callable[[], Crypter]) -> Any:
    if _is_encrypted(value):
        return crypter().decrypt(value["secure"])
    if isinstance(value, dict):
        return {key: _decrypted(item, crypter) for key, item in value.items()}
    return [_decrypted(item, crypter) for item in value] if isinstance(value, list) else value


def read_setting(raw: Any) -> Setting:
    if _is_encrypted(raw):
        return Setting(raw["secure"], secret=True, is_encrypted=True, raw=raw)
    if isinstance(raw, dict | list):
        return Setting(as_text(raw), secret=_holds_encrypted(raw), raw=raw)
    return Setting(as_text(raw), raw=raw)


@dataclass(frozen=True)
class StackSettings:
    """A stack settings file. ``environments`` is what ``environment:`` holds, if anything."""

    path: Path
    salt: str
    settings: Mapping[str, Setting]
    environments: Any = None


def read_stack_settings(path: Path, project: str) -> StackSettings:
    """A file that is not there is an empty one."""
    document = read_yaml(path) if path.is_file() else {}
    entries = document.get("config") or {}
    if not isinstance(entries, dict):
        raise CommandFailed(f"'config' in {path} must be a mapping")
    if document.get("secretsprovider") not in (None, "passphrase"):
        raise CommandFailed(
            f"secretsprovider '{document['secretsprovider']}' of {path} is not supported by the lab's stand-in for "
            "pulumi; only passphrase is"
        )
    return StackSettings(
        path,
        str(document.get("encryptionsalt") or ""),
        {full_key(str(key), project): read_setting(value) for key, value in sorted(entries.items())},
        document.get("environment"),
    )


def overlay(settings: Mapping[str, Setting], below: Mapping[str, Setting]) -> dict[str, Setting]:
    """``settings`` over those ``below``, sorted: maps in both are merged key by key, as the real CLI does."""
    merged = {**below, **settings}
    for key in settings.keys() & below.keys():
        if _is_map(settings[key].raw) and _is_map(below[key].raw):
            merged[key] = read_setting(_merged(settings[key].raw, below[key].raw))
    return dict(sorted(merged.items()))


def _is_map(raw: Any) -> bool:
    return isinstance(raw, dict) and not _is_encrypted(raw)


def _merged(own: Any, below: Any) -> Any:
    if not (_is_map(own) and _is_map(below)):
        return own
    return {**below, **{key: _merged(value, below.get(key)) for key, value in own.items()}}


def effective_settings(
    project: Project, stack: str, settings: StackSettings, environment: Mapping[str, Setting]
) -> dict[str, Setting]:
    """The stack's settings, below them those of its environments, below them the project's defaults.

    A required key that is missing is refused.
    """
    merged = overlay(settings.settings, environment)
    missing = []
    for key, declaration in project.declared.items():
        if key in merged:
            continue
        if declaration.default is not None:
            merged[key] = read_setting(declaration.default)
        elif declaration.type:
            missing.append(key)
    if missing:
        names = ", ".join(f"'{key}'" for key in missing)
        raise CommandFailed(
            f"validating stack config: Stack '{stack}' is missing configuration value{'s' if len(missing) > 1 else ''} "
            f"{names}\n\tplease set a value using the command `pulumi config set {missing[0]} <value>`"
        )
    return dict(sorted(merged.items()))


def edit_stack_settings(path: Path, change: Callable[[Any], None]) -> None:
    """Apply ``change`` to the file's mapping; comments and order stay. A missing file is made."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path) if path.is_file() else None
    document = CommentedMap() if document is None else document
    change(document)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        temporary.chmod(0o600)
        if document:
            yaml.dump(document, file)
    temporary.replace(path)


def write_setting(path: Path, project: str, key: str, value: Any) -> None:
    """``value`` is a string or ``{"secure": …}``. An entry written in the short form of the key is replaced."""

    def change(document: Any) -> None:
        from ruamel.yaml.scalarstring import DoubleQuotedScalarString

        entries = document.setdefault("config", {}) if document.get("config") is None else document["config"]
        if document.get("config") is None:
            document["config"] = entries
        target = next((existing for existing in entries if full_key(str(existing), project) == key), key)
        entries[target] = DoubleQuotedScalarString(value) if _needs_quotes(value) else value

    edit_stack_settings(path, change)


def remove_setting(path: Path, project: str, key: str) -> None:
    def change(document: Any) -> None:
        entries = document.get("config") or {}
        for existing in [existing for existing in entries if full_key(str(existing), project) == key]:
            del entries[existing]
        if not entries:
            document.pop("config", None)

    if path.is_file():
        edit_stack_settings(path, change)


def write_salt(path: Path, salt: str) -> None:
    def change(document: Any) -> None:
        document["encryptionsalt"] = salt

    edit_stack_settings(path, change)


def _needs_quotes(value: Any) -> bool:
    """Text that YAML would read as something else than text."""
    if not isinstance(value, str):
        return False
    import yaml

    try:
        return not isinstance(yaml.safe_load(value), str)
    except yaml.YAMLError:
        return False
