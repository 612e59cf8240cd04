"""Names in paths: they become folders, so only plain words are accepted."""

from __future__ import annotations

import re

from lab.cloud.wire import bad_request

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def is_name(text: str) -> bool:
    """Letters, digits, dots, dashes and underscores, and not a way out of the folder."""
    return _WORD.fullmatch(text) is not None and not text.startswith(".")


def checked(kind: str, text: object) -> str:
    """The name itself; raises `ApiError` 400 for any other text."""
    if not isinstance(text, str) or not is_name(text):
        raise bad_request(f"invalid {kind}: letters, digits, '-', '_' and '.' only, at most 100")
    return text
