"""Every way in which the canary is printed and looked for, written without a look at the masker's own list.

Programs of the test import a copy of this file, so it needs the standard library only.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse

COLOUR = "\x1b[1;31m"


def same_anywhere(value: str) -> dict[str, str]:
    """Name of the encoding → the value in it, whatever stands around it."""
    raw = value.encode()
    return {
        "raw": value,
        "URL": urllib.parse.quote(value, safe=""),
        "URL of a path": urllib.parse.quote(value),
        "URL of a form": urllib.parse.quote_plus(value),
        "URL in lower case": re.sub("%..", lambda found: found[0].lower(), urllib.parse.quote(value, safe="")),
        "HTML": html.escape(value),
        "XML": html.escape(value, quote=False).replace('"', "&quot;").replace("'", "&apos;"),
        "hex": raw.hex(),
        "hex in upper case": raw.hex().upper(),
        "lines of Windows": value.replace("\n", "\r\n"),
        "lines joined": value.replace("\n", " "),
    }


def spellings(value: str) -> dict[str, str]:
    """Name of the encoding → the value in it, as a program prints it."""
    raw = value.encode()
    plain = base64.b64encode(raw).decode()
    half = len(value) // 2
    return same_anywhere(value) | {
        "with text around": f"url=postgres://me:{value}@host/db",
        "twice without a gap": value + value,
        "JSON": json.dumps({"value": value}, ensure_ascii=False),
        "JSON in ASCII": json.dumps({"value": value}),
        "JSON of Go": go_json(value),
        "JSON in JSON": json.dumps(json.dumps({"value": value}, ensure_ascii=False), ensure_ascii=False),
        "base64": plain,
        "base64 after one byte": base64.b64encode(b":" + raw).decode(),
        "base64 after two bytes": base64.b64encode(b"a:" + raw).decode(),
        "base64 after three bytes": base64.b64encode(b"me:" + raw).decode(),
        "base64 before more": base64.b64encode(raw + b"\nmore text").decode(),
        "base64url": base64.urlsafe_b64encode(raw).decode(),
        "base64url without padding": base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "base64 in lines": "\n".join(plain[at : at + 76] for at in range(0, len(plain), 76)),
        "shell": shlex.quote(value),
        "repr": repr(value),
        "colour inside": f"{value[:half]}{COLOUR}{value[half:]}",
    }


def go_json(value: str) -> str:
    text = json.dumps({"value": value}, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def traces(value: str) -> dict[str, str]:
    """Name of the encoding → what nobody may find of the value: the longest part that is the same in any context."""
    raw = value.encode()
    found = same_anywhere(value) | {
        "JSON": json.dumps(value, ensure_ascii=False)[1:-1],
        "JSON in ASCII": json.dumps(value)[1:-1],
        "JSON of Go": go_json(value)[len('{"value": "') : -len('"}')],
        "shell": shlex.quote(value)[1:-1],
        "HTML without quotes": html.escape(value, quote=False),
        "repr": repr(value)[1:-1],
    }
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + raw).decode()
        core = encoded[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        found[f"base64 after {before}"] = core
        found[f"base64url after {before}"] = core.replace("+", "-").replace("/", "_")
        found[f"start of a line of base64 after {before}"] = core[:40]
    for number, line in enumerate(value.splitlines()):
        found[f"line {number + 1}"] = line
    return found
