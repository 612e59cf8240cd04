"""YAML that people wrote, changed in one place: comments and order stay, the layout becomes the vendor's."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from lab.engine.failures import CommandFailed


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20
    yaml.indent(mapping=4, sequence=6, offset=4)
    return yaml


def load(text: str) -> Any:
    """Raises ``CommandFailed``. An empty text is an empty mapping."""
    try:
        document = _yaml().load(text)
    except YAMLError as error:
        raise CommandFailed(f"the definition is not YAML: {error}") from error
    return CommentedMap() if document is None else document


def dump(document: Any) -> str:
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue().removesuffix("...\n")
