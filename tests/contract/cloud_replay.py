"""Sends the recorded requests of the real `pulumi` and `esc` to the lab's cloud, in order, and compares every answer.

Identifiers, tokens, ciphertext and ETags differ by nature: what the cloud gave for a recorded one stands for it in all
later requests. Everything else in an answer is compared: same status, same keys, same types, and the same values except
times. Keys that the recording server left out and the real service has are allowed where `MORE` names them.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.cloud.conftest import Caller, Reply

RECORDED = Path(__file__).parent / "recorded" / "cloud"

MORE = {"copilotIsEnabled", "currentOperation", "id", "lastUpdate", "code", "message"} | {
    "exprs", "schema", "executionContext", "trace",
}  # fmt: skip
"""Left out by the recording server, or cut from the recording."""
OF_THE_MOMENT = frozenset({"tokenExpiration", "startTime", "endTime", "ciphertext", "token"})
"""Only their types are compared."""
FREE_MAPS = frozenset({"environment", "config", "resourceChanges"})
"""Of an update in the history: the recording server kept nothing there."""
SAME = {"lab": ("organization",), "yaml": ("<yaml>", "stitch/prod")}
"""The recording server called its organization `lab`, and the nameless environment `yaml` (the vendor: `<yaml>`).

It said `yaml` also where an imported environment was wrong; the vendor's evaluator names that environment.
"""


@dataclass
class Replay:
    """One cloud, all recordings one after the other."""

    caller: Caller
    known: dict[str, str] = field(default_factory=dict)
    """Recorded ciphertexts and ETags, and what the cloud gave instead."""
    created: str = ""
    started: str = ""
    update_token: str = ""
    active: str = ""
    opened: str = ""

    def exchange(self, recorded: dict[str, Any]) -> list[str]:
        """Sends one recorded request; the differences of its answer."""
        path = self._path(recorded)
        reply = self.caller.send(recorded["method"], path, self._body(recorded), **self._headers(recorded))
        found = []
        if reply.status != recorded["status"]:
            found.append(f"status {reply.status}, recorded {recorded['status']}: {reply.body[:300]!r}")
        elif not (recorded["answer"] is None and not reply.body):
            found += differences(recorded["answer"], content_of(reply), self.known)
        for name in recorded["answer_headers"]:
            if name not in reply.headers:
                found.append(f"no header {name}")
        self._learn(recorded, path, reply)
        return [f"{recorded['method']} {recorded['path']}: {difference}" for difference in found]

    def _path(self, recorded: dict[str, Any]) -> str:
        path = re.sub(r"^(/api/(?:stacks|esc/environments))/lab\b", r"\1/organization", recorded["path"])
        if "$UUID" not in path:
            return str(path)
        if "/open/" in path:
            return str(path).replace("$UUID", self.opened)
        if path.endswith("/cancel"):
            return str(path).replace("$UUID", self.active)
        inside = recorded["auth"] == "update-token"
        return str(path).replace("$UUID", self.started if inside else self.created)

    def _headers(self, recorded: dict[str, Any]) -> dict[str, str]:
        headers = {name: self.known.get(value, value) for name, value in recorded["headers"].items()}
        if recorded["auth"] == "update-token":
            headers["Authorization"] = f"update-token {self.update_token}"
        return headers

    def _body(self, recorded: dict[str, Any]) -> bytes | None:
        request = recorded["request"]
        if request is None:
            return None
        if isinstance(request, str):
            return request.encode()
        text = json.dumps(self._translated(request))
        return gzip.compress(text.encode()) if "Content-Encoding" in recorded["headers"] else text.encode()

    def _translated(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._translated(item) for key, item in value.items()}
        if isinstance(value, list):
            # A text among events says how many the recording left out.
            return [self._translated(item) for item in value if not str(item).startswith("… ")]
        return self.known.get(value, value) if isinstance(value, str) else value

    def _learn(self, recorded: dict[str, Any], path: str, reply: Reply) -> None:
        content = content_of(reply) if reply.status == 200 else None
        etag = recorded["answer_headers"].get("ETag")
        if etag:
            self.known[etag] = reply.headers["ETag"]
        if not isinstance(content, dict):
            return
        if path.endswith("/encrypt"):
            self.known[recorded["answer"]["ciphertext"]] = content["ciphertext"]
        self.created = content.get("updateID", self.created)
        self.active = content.get("activeUpdate", self.active)
        if "token" in content:
            self.started, self.update_token = path.rsplit("/", 1)[-1], content["token"]
        if path.partition("?")[0].endswith("/open"):
            self.opened = content["id"]


def content_of(reply: Reply) -> Any:
    return reply.content if not reply.body or "json" in reply.headers["Content-Type"] else reply.body.decode()


def differences(recorded: Any, found: Any, known: dict[str, str], where: str = "") -> list[str]:
    """Every difference between a recorded answer and the cloud's."""
    if type(recorded) is not type(found):
        return [f"{where or 'the answer'} is {found!r:.200}, recorded {recorded!r:.200}"]
    if isinstance(recorded, dict):
        return list(_of_objects(recorded, found, known, where))
    if isinstance(recorded, list):
        if len(recorded) != len(found):
            return [f"{where} has {len(found)} items, recorded {len(recorded)}"]
        pairs = enumerate(zip(recorded, found, strict=True))
        return [text for i, (one, other) in pairs for text in differences(one, other, known, f"{where}[{i}]")]
    key = where.rsplit(".", 1)[-1]
    if key in OF_THE_MOMENT or "$" in str(recorded) or _same(recorded, found, known):
        return []
    return [f"{where} is {found!r:.200}, recorded {recorded!r:.200}"]


def _of_objects(recorded: dict[str, Any], found: dict[str, Any], known: dict[str, str], where: str) -> Iterator[str]:
    names = {known.get(name, name): name for name in recorded}
    for name in sorted(names.keys() - found.keys()):
        yield f"{where}.{name} is missing"
    free = where.rsplit(".", 1)[-1] in FREE_MAPS
    for name in sorted(found.keys() - names.keys() - MORE):
        if not free and not (name == "value" and _is_unknown(found)):
            yield f"{where}.{name} is not in the recording"
    for name in names.keys() & found.keys():
        yield from differences(recorded[names[name]], found[name], known, f"{where}.{name}")


def _is_unknown(value: dict[str, Any]) -> bool:
    """Newer evaluators write `"value": null` beside `"unknown": true`, older ones leave it out."""
    return value.get("unknown") is True and value["value"] is None


def _same(recorded: object, found: object, known: dict[str, str]) -> bool:
    if recorded == found:
        return True
    return isinstance(recorded, str) and found in (*SAME.get(recorded, ()), known.get(recorded))


def steps(scenario: str) -> list[dict[str, Any]]:
    """The steps of one recording."""
    recorded: list[dict[str, Any]] = json.loads((RECORDED / f"{scenario}.json").read_text("utf-8"))["steps"]
    return recorded
