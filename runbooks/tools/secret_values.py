"""Secret values: generated ones, and those in pulumi's plaintext answers. Callers keep these in memory."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterator
from typing import Any

from runbooks.core.errors import Usage
from runbooks.core.reporter import Reporter

SIGNATURE_KEY = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - Pulumi's public marker of a secret, not one itself

ALPHABET = string.ascii_letters + string.digits
"""Letters and digits need no escaping in a URL, in JSON or in a shell, so every tool's own masking finds them."""


def generate_secret() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(32))


LONGEST = 1_000_000
"""Characters of a value; more is a mistake, such as the wrong file piped in."""


def read_value(reporter: Reporter, key: str, about: str) -> str:
    """Read a secret that can be stored, from a prompt or from standard input, as `Reporter.read_secret` does.

    Raises `Usage` for an empty value, and for one that is absurdly long or contains a NUL.
    """
    value = reporter.read_secret(f"{key} ({about}), not shown: ", LONGEST)
    if not value.strip():
        raise Usage(f"the value for {key} is empty; nothing was set", expected="a value at the prompt or piped in")
    if len(value) > LONGEST or "\0" in value:
        raise Usage(f"the value for {key} cannot be stored", expected=f"text of at most {LONGEST} characters")
    return value


def secrets_in_config(answer: str) -> Iterator[str]:
    """Values of the secrets in `config --json --show-secrets`. Raises `ValueError` for invalid JSON."""
    for entry in json.loads(answer or "{}").values():
        if isinstance(entry, dict) and entry.get("secret"):
            yield from texts_in(entry.get("objectValue", entry.get("value")))


def parse_with_secrets(text: str) -> tuple[Any, list[dict[str, Any]]]:
    """The JSON document, and every object in it that is a secret, at any depth. Raises `ValueError`."""
    found: list[dict[str, Any]] = []

    def collect(item: dict[str, Any]) -> dict[str, Any]:
        if item.get(SIGNATURE_KEY) == SECRET_SIGNATURE:
            found.append(item)
        return item

    return json.loads(text, object_hook=collect if SECRET_SIGNATURE in text else None), found


def secrets_in_export(answer: str) -> Iterator[str]:
    """Every secret value in `stack export --show-secrets`. Raises `ValueError` for invalid JSON."""
    for secret in parse_with_secrets(answer or "{}")[1]:
        plaintext = secret.get("plaintext")
        yield from texts_in(_decoded(plaintext) if isinstance(plaintext, str) else secret.get("value"))


def unwrap_secrets(value: Any) -> Any:
    """The value with every secret in it replaced by its plaintext."""
    if isinstance(value, dict):
        if value.get(SIGNATURE_KEY) == SECRET_SIGNATURE and isinstance(value.get("plaintext"), str):
            return _decoded(value["plaintext"])
        return {key: unwrap_secrets(inner) for key, inner in value.items()}
    return [unwrap_secrets(inner) for inner in value] if isinstance(value, list) else value


def hide_secrets(value: Any) -> Any:
    """The value with every secret in it, ciphertext or plaintext, replaced by `[secret]`."""
    if isinstance(value, dict):
        if value.get(SIGNATURE_KEY) == SECRET_SIGNATURE:
            return "[secret]"
        return {key: hide_secrets(inner) for key, inner in value.items()}
    return [hide_secrets(inner) for inner in value] if isinstance(value, list) else value


def _decoded(plaintext: str) -> Any:
    try:
        return json.loads(plaintext)
    except ValueError:
        return plaintext


def texts_in(value: Any) -> Iterator[str]:
    """Every text and number in a value; keys are names, not secrets."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    # `true` and `false` are in every output.
    elif value is not None and not isinstance(value, bool) and value != "":
        yield str(value)
