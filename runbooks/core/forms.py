"""Every way a secret may be spelt in what a tool prints: escaped, quoted, encoded, split into lines.

Pure functions from a value to byte patterns; `mask.py` looks for them. Adding a spelling is one entry in `_TEXT_FORMS`.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

_COLOUR_CODE = re.compile(rb"(?:\x1b|\\{1,4}u001[bB])(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[()][0-9A-Za-z])")
"""A terminal colour or style sequence, also as it stands in JSON and in JSON within JSON.

Hyperlinks (OSC) are left in, they hold text.
"""

SHORTEST_LINE = 4
_PEM_MARKER = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")
_GO_JSON_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_BASE64_LINE_WIDTHS = (64, 76)


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _json_ascii(value: str) -> str:
    return json.dumps(value)[1:-1]


def _json_go(value: str) -> str:
    """Spell it as Go's encoding/json does (pulumi, kubectl, helm): HTML characters become `\\u` escapes."""
    return "".join(_GO_JSON_ESCAPES.get(character, character) for character in _json(value))


def _url_forms(value: str) -> Iterator[str]:
    """Percent-encoded as Python, Go (userinfo, path, query) and JavaScript do it, with either case of hex digits."""
    for quoted in (*(quote(value, safe=safe) for safe in ("", "/", "$&+,;=", "!'()*")), quote_plus(value)):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)


_TEXT_FORMS: tuple[Callable[[str], str], ...] = (
    str,
    _json,
    _json_ascii,
    _json_go,
    lambda value: _json(_json(value)),
    lambda value: _json_ascii(_json_ascii(value)),
    lambda value: _json_go(_json_go(value)),
    lambda value: repr(value)[1:-1],
    lambda value: value.replace("'", "''"),  # YAML and SQL
    html.escape,
    lambda value: html.escape(value, quote=False),
    # Go's html.EscapeString and encoding/xml, then XML.
    lambda value: html.escape(value, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
    lambda value: html.escape(value, quote=False).replace('"', "&quot;").replace("'", "&apos;"),
    lambda value: shlex.quote(value)[1:-1] if "'" in value else value,
    lambda value: value.replace("'", "'\\''"),
    # A shell's double quotes, and its backslashes.
    lambda value: re.sub(r'([$`"\\])', r"\\\1", value),
    lambda value: re.sub(r"([^A-Za-z0-9_@%+=:,./\n-])", r"\\\1", value, flags=re.ASCII),
)


def text_forms(value: str) -> set[bytes]:
    """The value itself and every escaped or quoted spelling, without the quotes around it.

    Each also within JSON: what a program prints in whatever spelling, pulumi puts into the messages of its events.
    """
    spelt = {form(value) for form in _TEXT_FORMS}
    spelt.update(_url_forms(value))
    in_json = {form(text) for text in spelt for form in (_json, _json_ascii, _json_go)}
    return {_encoded(text) for text in spelt | in_json}


def line_joins(value: str) -> set[str]:
    """Spellings of a value of several lines, whose line breaks tools replace in several ways."""
    lines = value.splitlines()
    if len(lines) < 2:
        return set()
    stripped = [line.strip() for line in lines]
    return {"\n".join(lines), "\r\n".join(lines), " ".join(lines), " ".join(stripped), "".join(stripped)}


def secret_lines(value: str) -> list[str]:
    """The lines of a value that are secret by themselves: tools indent and prefix them one by one.

    Too short ones and the public markers of a PEM block are not.
    """
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) < 2:
        return []
    return [line for line in lines if len(line) >= SHORTEST_LINE and not _PEM_MARKER.fullmatch(line)]


def whole_encodings(value: str) -> set[bytes]:
    """Base64 (both alphabets, with and without padding) and hex (both cases) of exactly this value."""
    raw = _encoded(value)
    padded = {base64.b64encode(raw), base64.urlsafe_b64encode(raw)}
    unpadded = {encoded.rstrip(b"=") for encoded in padded}
    return padded | unpadded | {raw.hex().encode(), raw.hex().upper().encode()}


def embedded_base64(value: str) -> set[bytes]:
    """The parts of the value's base64 that do not depend on the text before and after it.

    Three alignments, both alphabets; characters that also hold bits of the neighbours are left out.
    """
    raw = _encoded(value)
    found = set()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        first = (0, 2, 3)[shift]
        last = (shift + len(raw)) * 8 // 6
        found.add(encoded[first:last])
    return found | {encoded.translate(_URL_SAFE) for encoded in found}


def wrapped_base64(value: str) -> set[bytes]:
    """The lines of the value's base64 when a tool wraps it (`base64`, `openssl`, PEM)."""
    encoded = base64.b64encode(_encoded(value))
    return {
        encoded[start : start + width]
        for width in _BASE64_LINE_WIDTHS
        if len(encoded) > width
        for start in range(0, len(encoded), width)
    }


def cut_colour(text: bytes) -> tuple[bytes, frozenset[int]]:
    """The text without colour codes, and the positions where they were: words end there.

    Patterns are cleaned in the same way as the text that is searched.
    """
    if b"\x1b" not in text and b"u001" not in text:
        return text, frozenset()
    parts, cuts, position, length = [], set(), 0, 0
    for code in _COLOUR_CODE.finditer(text):
        parts.append(text[position : code.start()])
        length += len(parts[-1])
        cuts.add(length)
        position = code.end()
    return b"".join([*parts, text[position:]]), frozenset(cuts)


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
