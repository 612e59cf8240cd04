"""`lab.json`: what the lab must remember between two commands (ports, processes, versions)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.platform.paths import write_private
from lab.platform.processes import ProcessId
from runbooks.core.errors import Usage

FORMAT = 1


@dataclass(frozen=True)
class Started:
    """A part as it was started last."""

    process: ProcessId
    fingerprint: str
    """Of its command line and environment: a part whose declaration changed is started anew."""
    version: str


@dataclass
class Record:
    """The lab's memory. Changed only by the one who holds the lab's lock."""

    ports: dict[str, int] = field(default_factory=dict)
    parts: dict[str, Started] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Record:
        """What was saved, empty when there is no file; raises `Usage` for a file that is none of ours."""
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return cls()
        except ValueError as error:
            raise _unreadable(path, str(error)) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise _unreadable(path, f"not of format {FORMAT}")
        try:
            return cls(
                ports={str(name): int(port) for name, port in content["ports"].items()},
                parts={str(name): _read_started(part) for name, part in content["parts"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(path, f"{type(error).__name__}: {error}") from error

    def save(self, path: Path) -> None:
        parts = {
            name: {
                "pid": part.process.pid,
                "started": part.process.started,
                "fingerprint": part.fingerprint,
                "version": part.version,
            }
            for name, part in self.parts.items()
        }
        content = {"format": FORMAT, "ports": self.ports, "parts": parts}
        write_private(path, json.dumps(content, indent=2) + "\n")


def _read_started(part: dict[str, Any]) -> Started:
    process = ProcessId(int(part["pid"]), str(part["started"]))
    return Started(process, str(part["fingerprint"]), str(part["version"]))


def _unreadable(path: Path, why: str) -> Usage:
    return Usage(
        f"the lab's record {path} cannot be read: {why}",
        expected="the file that lab.up wrote",
        next_step="./inv lab.reset   (ends the lab's processes and removes its state)",
    )
