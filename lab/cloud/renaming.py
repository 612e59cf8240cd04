"""A stack's state under another name: its URNs, and where its secrets manager looks for the stack.

With a file backend the CLI rewrites them (pulumi pkg/resource/edit, RenameStack), with the Pulumi Cloud the service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.cloud.wire import Json


def rename_state(state: Json, old: tuple[str, str], new: tuple[str, str]) -> Json:
    """`{version, deployment}` of a stack that is called `new` (project, stack) from now on."""
    prefix, renamed_prefix = (f"urn:pulumi:{stack}::{project}::" for project, stack in (old, new))
    root, renamed_root = (f"pulumi:pulumi:Stack::{project}-{stack}" for project, stack in (old, new))

    def rename_urn(text: str) -> str:
        if not text.startswith(prefix):
            return text
        rest = text.removeprefix(prefix)
        return renamed_prefix + (renamed_root if rest == root else rest)

    renamed: Json = _map_texts(state, rename_urn)
    manager = renamed["deployment"].get("secrets_providers") or {}
    if manager.get("type") == "service" and isinstance(manager.get("state"), dict):
        manager["state"] |= {"project": new[0], "stack": new[1]}
    return renamed


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map_texts(item, change) for key, item in value.items()}
    return value
