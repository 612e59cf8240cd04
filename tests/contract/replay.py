"""Replays recorded commands of the real CLI against the lab's stand-in and tells every difference that matters.

Same command: same exit code, same stream, same JSON shape, same decisive sentences. Layout of text for people, the
order of parallel lines, times, identifiers and what a server fills in are left out of the comparison.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded" / "pulumi"

_REPLACEMENTS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "$UUID"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "$TIME"),
    (re.compile(r"v3\.\d+\.\d+(-lab\.standin)?"), "$VERSION"),
    (re.compile(r"[0-9a-f]{64}"), "$MAGIC"),
    (re.compile(r"\(pid \d+\)"), "(pid $PID)"),
    (re.compile(r"v1:[A-Za-z0-9+/=:]+"), "$CIPHERTEXT"),
    (re.compile(r"\S+@\S+(?= \(pid)"), "$WHO"),
)

# Below these keys a server or the moment decides; only their presence is compared.
_OPAQUE = frozenset({"outputs", "duration", "timestamp", "sequence", "durationSeconds", "environment", "magic", "salt"})
# Filled by the notice that a provider was taken from PATH, which the stand-in has no reason to give.
_NOISE_SEVERITIES = ("warning", "info#err")


@dataclass
class Stage:
    """Where commands run. ``launcher`` is the command line that stands for ``pulumi``."""

    root: Path
    launcher: Sequence[str]
    environment: Mapping[str, str]
    project: str = "sample"

    @property
    def folder(self) -> Path:
        return self.root / self.project

    def write_project(self, name: str, python: str) -> None:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        virtualenv = Path(python).parent.parent
        text = f"name: {name}\nruntime:\n  name: python\n  options:\n    toolchain: uv\n    virtualenv: {virtualenv}\n"
        (self.root / name / "Pulumi.yaml").write_text(text)

    def write_program(self, source: str) -> None:
        (self.folder / "__main__.py").write_text(source)

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, env: Mapping[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        for name, value in (env or {}).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value.replace("$ROOT", str(self.root))
        words = [word.replace("$ROOT", str(self.root)) for word in argv]
        return subprocess.run(
            [*self.launcher, *words],
            cwd=self.folder,
            env=environment,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def must(self, *argv: str, stdin: str | None = None) -> str:
        done = self.run(argv, stdin=stdin)
        assert done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
        return done.stdout


@dataclass
class Scenario:
    """A recorded file with what it does not record: the program before a step, and settings.

    ``programs``: step number to source. ``skip``: step number to reason. ``before``: step number to a callback name.
    """

    name: str
    programs: Mapping[int, str] = field(default_factory=dict)
    skip: Mapping[int, str] = field(default_factory=dict)

    def steps(self) -> list[dict[str, Any]]:
        document = json.loads((RECORDED / f"{self.name}.json").read_text())
        steps: list[dict[str, Any]] = document["steps"]
        return steps


def replay(scenario: Scenario, stage: Stage, only: Sequence[int] | None = None) -> list[str]:
    """Runs the steps in order; gives one text a difference."""
    differences: list[str] = []
    for number, step in enumerate(scenario.steps()):
        if number in scenario.programs:
            stage.write_program(scenario.programs[number])
        if "argv" not in step or number in scenario.skip or (only is not None and number not in only):
            continue
        env: dict[str, str | None] = {**step.get("env", {}), **dict.fromkeys(step.get("env_unset", ()), None)}
        done = stage.run(step["argv"][1:], stdin=step.get("stdin"), env=env)
        where = f"{scenario.name} step {number} ({' '.join(step['argv'])})"
        differences += [f"{where}: {text}" for text in compare(step, done, stage)]
    return differences


def compare(step: Mapping[str, Any], done: subprocess.CompletedProcess[str], stage: Stage) -> Iterator[str]:
    if done.returncode != step["exit"]:
        yield f"exit {done.returncode}, recorded {step['exit']}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        return
    yield from _compare_stderr(step.get("stderr", ""), done.stderr, stage)
    recorded, found = step.get("stdout", ""), done.stdout
    if recorded.startswith('{"sequence"'):
        yield from _compare_streams(recorded, found)
    elif _is_json(recorded):
        yield from _compare_documents(recorded, found)
    else:
        yield from _compare_texts(recorded, normal(found, stage))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return text[:1] in ("{", "[")


def normal(text: str, stage: Stage) -> str:
    text = text.replace(str(stage.root.resolve()), "$ROOT").replace(str(stage.root), "$ROOT")
    text = text.replace("$ROOT/state/lab/backend", "$ROOT/state").replace(os.uname().nodename, "$HOST")
    if text.strip() == getpass.getuser() or f'"{getpass.getuser()}"' in text:
        text = text.replace(getpass.getuser(), "root")  # the recording was made as root
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def _recorded(text: str) -> str:
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def _compare_stderr(recorded: str, found: str, stage: Stage) -> Iterator[str]:
    wanted = [line for line in _recorded(recorded).splitlines() if line.strip()]
    given = [line for line in normal(found, stage).splitlines() if line.strip()]
    decisive = [line for line in wanted if not line.startswith(("Retry #", "Deployment init"))]
    if missing := [line for line in decisive if line not in given]:
        yield f"standard error lacks {missing!r}, has {given!r}"
    if not decisive and any(line.startswith("error") for line in given):
        yield f"standard error has {given!r}, recorded nothing"


# -- texts ---------------------------------------------------------------------------------------------------------


def _decisive(text: str) -> Counter[str]:
    """Lines of the blocks at the end, and of commands that print only what they were asked for."""
    lines = [line.rstrip() for line in _recorded(text).splitlines()]
    kept: list[str] = []
    block = ""
    for line in lines:
        if line in ("Diagnostics:", "Outputs:", "Resources:"):
            block = line
            kept.append(line if line != "Diagnostics:" else "")
        elif block == "Diagnostics:":
            kept.append(line if "error:" in line or "warning: Refreshed" in line or line.startswith("    * ") else "")
        elif block:
            kept.append(re.sub(r"Duration: .*", "Duration:", line))
    return Counter(line for line in kept if line)


def _compare_texts(recorded: str, found: str) -> Iterator[str]:
    if "Resources:" in recorded:
        if recorded.split("\n", 1)[0] != found.split("\n", 1)[0]:
            yield f"title {found.splitlines()[:1]!r}, recorded {recorded.splitlines()[:1]!r}"
        wanted, given = _decisive(recorded), _decisive(found)
        if wanted != given:
            yield f"lacks {dict(wanted - given)}, has besides {dict(given - wanted)}"
        return
    wanted_lines = [_bare(line) for line in _recorded(recorded).splitlines() if line.strip()]
    given_lines = [_bare(line) for line in found.splitlines() if line.strip()]
    if wanted_lines != given_lines:
        yield f"prints {given_lines!r}, recorded {wanted_lines!r}"


def _bare(line: str) -> str:
    line = re.sub(r"Last updated: .*", "Last updated:", line)
    return " ".join(line.split())


# -- documents -----------------------------------------------------------------------------------------------------


def _compare_documents(recorded: str, found: str) -> Iterator[str]:
    try:
        given = json.loads(found)
    except ValueError:
        yield f"is not a JSON document: {found[:400]!r}"
        return
    if "\n" not in recorded.strip() and "\n" in found.strip():
        yield "is not one line"
    yield from _shape(_calm(json.loads(recorded)), _calm(given), "")


def _calm(document: Any) -> Any:
    """Without what only one of two sides has a reason to say, and with parallel steps in a fixed order."""
    if not isinstance(document, dict):
        return document
    calm = dict(document)
    diagnostics = [item for item in calm.pop("diagnostics", []) if item.get("severity") not in _NOISE_SEVERITIES]
    if diagnostics:
        calm["diagnostics"] = diagnostics
    if isinstance(calm.get("deployment"), dict):
        calm["deployment"] = _calm(calm["deployment"])
    for key in ("steps", "resources"):
        if isinstance(calm.get(key), list):
            calm[key] = sorted(calm[key], key=lambda item: (item.get("urn", ""), item.get("op", "")))
    return calm


def _shape(recorded: Any, found: Any, where: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(found, dict):
        yield from _dict_shape(recorded, found, where)
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            yield f"{where or '.'}: {len(found)} items, recorded {len(recorded)}: {_brief(found)} {_brief(recorded)}"
            return
        for index, (one, other) in enumerate(zip(recorded, found, strict=True)):
            yield from _shape(one, other, f"{where}[{index}]")
    elif type(recorded) is not type(found):
        yield f"{where}: {found!r}, recorded {recorded!r}"
    elif isinstance(recorded, str):
        one, other = _recorded(recorded), _recorded(found)
        if one != other and "$ROOT" not in one and "$" not in one:
            yield f"{where}: {other!r}, recorded {one!r}"
    elif recorded != found:
        yield f"{where}: {found!r}, recorded {recorded!r}"


def _dict_shape(recorded: Mapping[str, Any], found: Mapping[str, Any], where: str) -> Iterator[str]:
    if set(recorded) != set(found):
        yield (
            f"{where or '.'}: lacks {sorted(set(recorded) - set(found))}, "
            f"has besides {sorted(set(found) - set(recorded))}"
        )
    for key in recorded.keys() & found.keys():
        if key not in _OPAQUE:
            yield from _shape(recorded[key], found[key], f"{where}.{key}")


def _brief(items: Sequence[Any]) -> list[str]:
    return [f"{item.get('op')} {item.get('urn', '')[-40:]}" if isinstance(item, dict) else str(item) for item in items]


# -- event streams -------------------------------------------------------------------------------------------------


def read_stream(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _events(text: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Kind, operation, URN and body of what is no debug message, no progress and no notice."""
    events = []
    for event in read_stream(text):
        kind = next(key for key in event if key.endswith("Event"))
        body = event[kind]
        if kind == "diagnosticEvent" and (body["severity"] != "error"):
            continue
        metadata = body.get("metadata", {})
        events.append((kind, metadata.get("op", ""), metadata.get("urn", ""), body))
    return events


def _compare_streams(recorded: str, found: str) -> Iterator[str]:
    wanted, given = _events(recorded), _events(found)
    count_wanted = Counter(event[:3] for event in wanted)
    count_given = Counter(event[:3] for event in given)
    if count_wanted != count_given:
        yield f"lacks events {dict(count_wanted - count_given)}, has besides {dict(count_given - count_wanted)}"
        return
    if given[0][0] != "preludeEvent" or given[-1][0] != "cancelEvent":
        yield "does not begin with preludeEvent or end with cancelEvent"
    bodies = {event[:3]: event[3] for event in given}
    for kind, op, urn, body in wanted:
        if kind != "diagnosticEvent":
            yield from _shape(body, bodies[kind, op, urn], f"{kind} {op} {urn[-30:]} ")
