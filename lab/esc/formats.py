"""An environment's value as text: json, yaml, detailed, string, dotenv, shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from lab.engine.failures import UsageError

FORMATS = ("json", "yaml", "detailed", "string", "dotenv", "shell")
HIDDEN = "[secret]"
UNKNOWN = "[unknown]"
_NOWHERE = {"begin": {"line": 0, "column": 0, "byte": 0}, "end": {"line": 0, "column": 0, "byte": 0}}


def render(value: Mapping[str, Any], form: str, *, hide: bool = False) -> str:
    """``value`` is an ESC value. ``hide``: secrets as ``[secret]``."""
    if form == "detailed":
        return as_json(
            _masked(value) if hide else {**value, **({} if "trace" in value else {"trace": {"def": _NOWHERE}})}
        )
    content = plain(value, hide=hide)
    if form == "json":
        return as_json(content)
    if form == "yaml":
        import yaml

        return yaml.safe_dump(content, sort_keys=True, allow_unicode=True)
    if form == "string":
        return (content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))) + "\n"
    variables = _variables(content)
    if form == "dotenv":
        return "".join(f"{name}={json.dumps(text)}\n" for name, text in sorted(variables.items()))
    if form == "shell":
        return "".join(f"export {name}={shlex.quote(text)}\n" for name, text in sorted(variables.items()))
    raise UsageError(f"unknown output format '{form}'; {', '.join(FORMATS)} are known")


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _variables(content: Any) -> dict[str, str]:
    found = content.get("environmentVariables") if isinstance(content, dict) else None
    return {name: text for name, text in (found or {}).items() if isinstance(text, str)}


def plain(value: Any, *, hide: bool = False) -> Any:
    """An ESC value without its marks."""
    if hide and value.get("secret"):
        return HIDDEN
    if value.get("unknown"):
        return UNKNOWN
    content = value.get("value")
    if isinstance(content, dict):
        return {key: plain(item, hide=hide) for key, item in sorted(content.items())}
    if isinstance(content, list):
        return [plain(item, hide=hide) for item in content]
    return content


def _masked(value: Any) -> Any:
    content = value.get("value")
    if value.get("secret"):
        return {**value, "value": HIDDEN}
    if isinstance(content, dict):
        return {**value, "value": {key: _masked(item) for key, item in content.items()}}
    if isinstance(content, list):
        return {**value, "value": [_masked(item) for item in content]}
    return dict(value)
