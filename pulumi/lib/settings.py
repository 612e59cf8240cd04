"""Typed settings of a program: declared once as dataclass fields, read from the stack config.

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        port: int = setting("Port consumers connect to", default=5432, accepts=between(1, 65535))
        password: pulumi.Output[str] = secret("Password of the role postgres", generated=True)

    settings = read_settings(Settings)

All missing and wrong settings are reported in one `pulumi.RunError`, which the CLI prints without a traceback.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret

S = typing.TypeVar("S")
NOT_SET = "not set"


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition on a value beyond its type."""

    expected: str
    """Completes "expected …", the type included."""
    holds: Callable[[typing.Any], bool]
    example: str = ""
    """`{organization}` and `{stack}` in it become those of the running stack."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """Metadata of a setting's dataclass field: everything except type and default."""

    about: str
    key: str = ""
    accepts: Rule | None = None
    is_secret: bool = False
    generated: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """A missing or wrong setting: what was found, what was expected, and the commands that set it."""

    key: str
    found: str
    expected: str
    commands: tuple[str, ...]

    def __str__(self) -> str:
        remedy = "\n  or        ".join(self.commands)
        return f"{self.key}: {self.found}\n  expected  {self.expected}\n  set it    {remedy}"


class WrongValueError(Exception):
    """The value does not have the field's type."""


def setting(
    about: str, *, default: object = dataclasses.MISSING, key: str = "", accepts: Rule | None = None
) -> typing.Any:
    """Declare a plain setting. Without a default it is required.

    `key` is only needed if it differs from the field's name; a key like `postgresql:host` has another namespace.
    """
    metadata = {"setting": Declaration(about=about, key=key, accepts=accepts)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def secret(
    about: str, *, key: str = "", accepts: Rule | None = None, generated: bool = False, optional: bool = False
) -> typing.Any:
    """Declare a secret, a `pulumi.Output[str]`. `generated`: any random value works. `optional`: None if not set."""
    declaration = Declaration(about=about, key=key, accepts=accepts, is_secret=True, generated=generated)
    default = None if optional else dataclasses.MISSING
    return dataclasses.field(default=default, metadata={"setting": declaration})


def between(low: int, high: int) -> Rule:
    """Accept a whole number from `low` to `high`, both included."""
    return Rule(f"a whole number from {low} to {high}", lambda value: low <= value <= high, str(low))


def one_of(*values: str) -> Rule:
    """Accept one of these words."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values, values[0])


def matching(pattern: str, expected: str, example: str) -> Rule:
    """Accept a string that matches `pattern` as a whole, or a list of such strings."""

    def holds(value: str | tuple[str, ...]) -> bool:
        return all(re.fullmatch(pattern, text) for text in ((value,) if isinstance(value, str) else value))

    return Rule(expected, holds, example)


DNS_LABEL = matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "one DNS label: a-z, 0-9 and -, at most 63", "postgresql")
QUANTITY = matching(r"[1-9][0-9]*(Mi|Gi|Ti)", "a size such as 20Gi", "20Gi")
VERSIONED_IMAGE = matching(
    r"[^\s:@]+(:[0-9]+/[^\s:@]+)?:v?[0-9][^\s:@]*(@sha256:[0-9a-f]{64})?", "an image with a version", "IMAGE:v1.2.3"
)


def read_settings(declared: type[S], *, environment: str = "") -> S:
    """Read every field of the dataclass `declared` from the config of the running stack.

    `environment` (`<project>/<env>`) is the ESC environment that provides the required settings. Raises
    `pulumi.RunError` that lists each missing or wrong setting; warns of keys that the program does not read.
    """
    config = pulumi.Config()
    types = typing.get_type_hints(declared)
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for field in dataclasses.fields(declared):  # type: ignore[arg-type]
        value = _read_field(field, types[field.name], config, environment)
        if isinstance(value, Problem):
            problems.append(value)
        elif value is not dataclasses.MISSING:
            values[field.name] = value
    if problems:
        count = "1 setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        head = f"{count} missing or wrong for stack {pulumi.get_stack()} of project {pulumi.get_project()}:"
        raise pulumi.RunError("\n\n".join([head, *map(str, problems)]))
    _warn_of_unread(declared, config)
    return declared(**values)


def setting_rows(declared: type, project: str) -> list[tuple[str, str, str]]:
    """Return key, default and meaning of each setting, for a README's table."""
    rows = []
    for field in dataclasses.fields(declared):
        declaration = field.metadata["setting"]
        meaning = declaration.about + (f" ({declaration.accepts.expected})" if declaration.accepts else "")
        rows.append((_full_key(field, project), _format_default(field), meaning))
    return rows


def _read_field(field: dataclasses.Field[typing.Any], type_: object, config: pulumi.Config, environment: str) -> object:
    """Return the field's value, MISSING if its default applies, or a Problem."""
    declaration: Declaration = field.metadata["setting"]
    full_key = _full_key(field, config.name)
    namespace, _, key = full_key.partition(":")
    holder = pulumi.Config(namespace)
    raw = holder.get(key)
    if raw is None and not _is_required(field):
        return dataclasses.MISSING
    if declaration.is_secret:
        found = _check_secret(raw, full_key, declaration.accepts)
        return _problem(field, found, "", full_key, environment) if found else holder.require_secret(key)
    noun = READERS[type_].noun
    if raw is None:
        return _problem(field, NOT_SET, noun, full_key, environment)
    try:
        value = READERS[type_].read(raw)
    except WrongValueError:
        return _problem(field, _quote(raw, full_key), noun, full_key, environment)
    if declaration.accepts and not declaration.accepts.holds(value):
        return _problem(field, _quote(raw, full_key), noun, full_key, environment)
    return value


def _check_secret(raw: str | None, full_key: str, accepts: Rule | None) -> str:
    """Describe what is wrong with a secret without disclosing it; empty if it is valid."""
    if raw is None:
        return NOT_SET
    if not raw.strip():
        return "found an empty value"
    if raw != raw.strip():
        return "found a value that starts or ends with white space, such as the line break that `echo` adds"
    if not _is_secret(full_key):
        return "found a value in plaintext; treat it as disclosed and change it"
    if accepts and not accepts.holds(raw):
        return "found a value in another format"
    return ""


def _problem(field: dataclasses.Field[typing.Any], found: str, noun: str, full_key: str, environment: str) -> Problem:
    declaration: Declaration = field.metadata["setting"]
    expected = declaration.accepts.expected if declaration.accepts else "a secret" if declaration.is_secret else noun
    if environment and _is_required(field):
        commands = _environment_commands(declaration, full_key, environment, is_bound=found != NOT_SET)
    elif declaration.is_secret:
        commands = _secret_commands(declaration, _key(field), full_key)
    else:
        commands = (_set_command(field, full_key),)
    return Problem(full_key, found, f"{expected}: {declaration.about}", commands)


def _environment_commands(
    declaration: Declaration, full_key: str, environment: str, *, is_bound: bool
) -> tuple[str, ...]:
    """Return the commands that bind the environment, if it may not be, and that make it provide the value."""
    namespace, _, key = full_key.partition(":")
    provide = f"edit environments/{environment}.yaml, then inv esc.apply {environment}"
    if declaration.is_secret and namespace == pulumi.get_project():
        provide = f"inv esc.set {environment} pulumiConfig.{key}"
    return (provide,) if is_bound else (f"inv esc.bind {environment}", provide)


def _secret_commands(declaration: Declaration, key: str, full_key: str) -> tuple[str, ...]:
    # The folder's name is the service's name in the runbooks.
    by_runbook = f"inv secrets.set {Path.cwd().name} {key}" + (" --generate" if declaration.generated else "")
    return by_runbook, f"pulumi config set --secret {full_key}"


def _set_command(field: dataclasses.Field[typing.Any], full_key: str) -> str:
    rule: Rule | None = field.metadata["setting"].accepts
    default = None if _is_required(field) else _default(field)
    if isinstance(default, tuple):
        return f"pulumi config set --path '{full_key}[0]' {_example(rule) or 'VALUE'}"
    if isinstance(default, dict):
        return f"pulumi config set --path '{full_key}.NAME' VALUE"
    example = _text(default) if default not in (None, "") else _example(rule)
    return f"pulumi config set {full_key} {example or 'VALUE'}"


def _example(rule: Rule | None) -> str:
    if rule is None:
        return ""
    return rule.example.format(organization=pulumi.get_organization(), stack=pulumi.get_stack())


def _warn_of_unread(declared: type, config: pulumi.Config) -> None:
    """Warn of unknown keys: for a misspelt key the default would apply silently."""
    known = {_key(field) for field in dataclasses.fields(declared)}
    for full_key in CONFIG.get() or get_config_env():
        namespace, _, key = full_key.partition(":")
        if namespace == config.name and key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            meant = f"; did you mean {config.full_key(nearest[0])}?" if nearest else ""
            pulumi.log.warn(f"setting {full_key} is not read by this program{meant}")


@dataclasses.dataclass(frozen=True)
class Reader:
    """The name of a field type in messages, and how to parse it from pulumi's string."""

    noun: str
    read: Callable[[str], object]


def _read_int(raw: str) -> int:
    if not re.fullmatch(r"-?[0-9]+", raw):
        raise WrongValueError
    return int(raw)


def _read_bool(raw: str) -> bool:
    if raw not in ("true", "false"):
        raise WrongValueError
    return raw == "true"


def _read_json(raw: str, type_: type) -> typing.Any:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise WrongValueError from error
    if not isinstance(value, type_):
        raise WrongValueError
    return value


def _read_texts(raw: str) -> tuple[str, ...]:
    texts = _read_json(raw, list)
    if not all(isinstance(text, str) for text in texts):
        raise WrongValueError
    return tuple(texts)


def _read_text_map(raw: str) -> dict[str, str]:
    """Read a map; numbers and booleans become strings: YAML reads `max_connections: 200` as a number."""
    entries = _read_json(raw, dict)
    if any(isinstance(value, dict | list | None) for value in entries.values()):
        raise WrongValueError
    return {name: _text(value) for name, value in entries.items()}


READERS: Mapping[object, Reader] = {
    str: Reader("a string", str),
    int: Reader("a whole number", _read_int),
    bool: Reader("true or false", _read_bool),
    tuple[str, ...]: Reader("a list of strings", _read_texts),
    dict[str, str]: Reader("a map from names to strings", _read_text_map),
}


def _key(field: dataclasses.Field[typing.Any]) -> str:
    return field.metadata["setting"].key or field.name


def _full_key(field: dataclasses.Field[typing.Any], project: str) -> str:
    return _key(field) if ":" in _key(field) else f"{project}:{_key(field)}"


def _is_secret(full_key: str) -> bool:
    return is_config_secret(full_key) or full_key in get_config_secret_keys_env()


def _is_required(field: dataclasses.Field[typing.Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[typing.Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _quote(raw: str, full_key: str) -> str:
    """Quote the found value, shortened to 60 characters; never a secret."""
    if _is_secret(full_key):
        return "found a secret in another format"
    return f"found {raw[:60]!r}" + ("…" if len(raw) > 60 else "")


def _format_default(field: dataclasses.Field[typing.Any]) -> str:
    if field.metadata["setting"].is_secret:
        return "required secret" if _is_required(field) else "optional secret"
    if _is_required(field):
        return "required"
    default = _default(field)
    if isinstance(default, tuple):
        default = ", ".join(default)
    return f"`{_text(default)}`" if default not in ("", {}) else "none"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
