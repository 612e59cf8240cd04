"""The text of a pull request: a template filled from git and from the journals of the runs on this machine.

Only names of settings are shown, never a value. What neither git nor a journal holds is named as not known.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from runbooks.core.errors import Usage
from runbooks.core.journal import KEPT_RUNS, read_journal, runs_of
from runbooks.stacks.changed import ENVIRONMENT, BranchChange, read_change
from runbooks.stacks.report import code, one_line
from runbooks.stacks.service import Service
from runbooks.stacks.session import RunContext
from runbooks.stacks.summary import count_verbs
from runbooks.stacks.target import LAB
from runbooks.tools.pulumi import describe_object

TEMPLATE = Path(__file__).resolve().parents[1] / "templates" / "pull_request.md"
OTHER_FILES = ("destroy.", "rollback.")
"""Tasks whose previews do not show the checked out files, but an older commit or no program at all."""
PROJECT_FILE = "Pulumi.yaml"


def write_text(run: RunContext, root: Path, base: str, services: Sequence[Service]) -> str:
    """The pull request's text in Markdown. Raises the same errors as `read_change`."""
    change = read_change(run, root, base, services)
    if not change.files:
        raise Usage(
            f"nothing here differs from {base}",
            expected="a branch with commits of its own, or changed files",
            next_step="./inv pr.body --base REF compares with another commit",
        )
    every = read_runs(run.state_dir)
    # A journal names no branch: all runs since the fork count.
    runs = [each for each in every if each.began >= change.forked and each.task != "pr.body"]
    found = (preview for each in runs if not each.task.startswith(OTHER_FILES) for preview in each.previews)
    previews = list({(preview.target, preview.service): preview for preview in found}.values())
    sections = {
        "summary": _summary(change),
        "commands": _commands(runs),
        "previews": _previews(previews) or ["None recorded."],
        "settings": [f"- {code(path)}: {', '.join(map(one_line, keys))}" for path, keys in change.settings.items()],
        "way_back": [f"- {step}" for step in _way_back(change)],
        "gaps": [f"- {gap}" for gap in _gaps(change, every, runs, previews)],
    }
    facts = {name: "\n".join(lines or ["None."]) for name, lines in sections.items()}
    facts |= {"since": when(change.forked), "fork": code(change.fork[:12])}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(facts).removesuffix("\n")


# What the journals hold


@dataclass(frozen=True, kw_only=True)
class StackPreview:
    """The plan summary of one stack."""

    at: datetime
    service: str
    target: str
    state: str
    """Its counted changes, or `unchanged`, or the producers it waits for."""
    changes: tuple[str, ...]
    """`delete Secret old  (deleted)`, gravest first."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a task."""

    began: datetime
    task: str
    command: str
    """The command as typed after `./inv`."""
    target: str
    """Empty for a run without one."""
    exit_code: int | None
    """`None` when the journal has no end: the run is still running, or was killed."""
    previews: tuple[StackPreview, ...]


def read_runs(state_dir: Path) -> list[Run]:
    """All runs that are kept, oldest first. A journal of another form is left out."""
    runs = []
    for path in runs_of(state_dir):
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, StopIteration):
            runs.append(_read_run(read_journal(path)))
    return runs


def _read_run(records: Sequence[Mapping[str, Any]]) -> Run:
    first = next(record for record in records if record["kind"] == "run")
    last = {record["kind"]: record for record in records}
    return Run(
        began=datetime.fromisoformat(first["time"]).astimezone(UTC),
        task=first["task"],
        command=shlex.join(["./inv", *map(one_line, first["argv"][1:])]),
        target=last["target"]["target"] if "target" in last else "",
        exit_code=last["end"]["exit_code"] if "end" in last else None,
        previews=tuple(
            StackPreview(
                at=datetime.fromisoformat(record["time"]).astimezone(UTC),
                service=stack["service"],
                target=record["target"],
                state=count_verbs(change["verb"] for change in stack["changes"]) or stack["state"],
                changes=tuple(map(_change_line, stack["changes"])),
            )
            for record in records
            if record["kind"] == "plan"
            for stack in record["stacks"]
        ),
    )


def _change_line(change: Mapping[str, Any]) -> str:
    mark = "DESTRUCTIVE: " if change["rank"] == "destructive" else ""
    why = f"  ({change['why']})" if change["why"] else ""
    return one_line(f"{mark}{change['verb']} {describe_object(change['urn'])}{why}")


# The sections


def _summary(change: BranchChange) -> list[str]:
    rows = []
    for service, paths in change.touched.items():
        is_new = change.files.get(f"pulumi/{service.folder}/{PROJECT_FILE}") == "A"
        rows.append(f"| {code(service.name)} | {'new: ' if is_new else ''}{list_files(paths)} |")
    return [
        *(f"- {one_line(subject)}" for subject in change.subjects),
        *([f"- not committed yet: {list_files(change.uncommitted)}"] if change.uncommitted else []),
        *("", *(["| service | touched by |", "|---|---|", *rows] if rows else ["No service is touched."])),
    ]


def _commands(runs: Iterable[Run]) -> list[str]:
    """Each command line once, with how often it ran and how the last run ended."""
    same: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        same[run.command, run.target] = [*same.pop((run.command, run.target), []), run]
    lines = []
    for (command, target), found in same.items():
        ended = "no end recorded" if found[-1].exit_code is None else f"exit {found[-1].exit_code}"
        often = f"{len(found)} times, last " if len(found) > 1 else ""
        on = f" on {code(target)}" if target else ""
        lines.append(f"- {code(command)}{on}: {ended}, {often}{when(found[-1].began)}")
    return lines


def _previews(previews: Sequence[StackPreview]) -> list[str]:
    lines = [
        line
        for each in previews
        for line in (
            f"{each.service} on {each.target}, {when(each.at)}: {each.state}",
            *map("  {}".format, each.changes),
        )
    ]
    return ["```", *lines, "```"] if lines else []


def _way_back(change: BranchChange) -> Iterator[str]:
    commit = change.fork[:12]
    for service in change.touched:
        if change.files.get(f"pulumi/{service.folder}/{PROJECT_FILE}") == "A":
            yield f"{service.name}, which is new: {code(f'./inv destroy.{service.name}')}, before its folder is removed"
        else:
            data = "; its data is not rolled back" if service.stateful else ""
            yield f"{service.name}: {code(f'./inv rollback.{service.name} --to {commit}')}{data}"
    for path, status in change.files.items():
        if status == "D" and path.endswith(f"/{PROJECT_FILE}"):
            there = code(f"git switch --detach {commit}")
            yield f"{code(path)} is deleted and its stacks are not: destroy them from a checkout that has it, {there}"
        if environment := ENVIRONMENT.fullmatch(path):
            yield f"environment {environment[1]}: restore its file, then {code(f'./inv esc.apply {environment[1]}')}"
    yield "this repository: `git revert` of the commits, then `./inv check`"


def _gaps(
    change: BranchChange, every: Sequence[Run], runs: Sequence[Run], previews: Sequence[StackPreview]
) -> Iterator[str]:
    yield "why the change is wanted"
    yield "what was run without `./inv`, on another machine or with another state folder"
    if runs:
        yield "which of the runs above were for this change: a journal names no branch"
    if len(every) >= KEPT_RUNS and every[0].began > change.forked:
        yield f"runs before {when(every[0].began)}: the last {KEPT_RUNS} are kept"
    for service, paths in change.touched.items():
        real = [each for each in previews if each.service == service.name and each.target != LAB]
        last = max((change.written[path] for path in paths if path in change.written), default=change.forked)
        if not real:
            yield f"what {service.name} would change on a real target: it was not previewed there"
        elif all(each.at < last for each in real):
            yield f"what {service.name} would change now: its files were written after its last preview"
    last = max(change.written.values(), default=change.forked)
    for command in ("./inv check", "./inv test"):
        if not any(run.command == command and run.exit_code == 0 and run.began > last for run in runs):
            yield f"whether {code(command)} passes: no such run ended with exit 0 since the last file was written"


def when(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def list_files(paths: Sequence[str]) -> str:
    return ", ".join(map(code, paths[:12])) + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
