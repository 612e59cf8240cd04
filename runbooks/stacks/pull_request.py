"""The text of a pull request: a template filled from git and from the journals of the runs on this machine.

Only names of settings are shown, never a value. What neither git nor a journal holds is named as not known.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import NotFound, OpsError, ToolFailed, Usage
from runbooks.core.journal import KEPT_RUNS, read_journal, runs_of
from runbooks.core.yaml_file import parse
from runbooks.stacks.plan import kind_of
from runbooks.stacks.service import Service
from runbooks.stacks.session import RunContext
from runbooks.stacks.summary import count_verbs
from runbooks.stacks.target import LAB
from runbooks.tools import git
from runbooks.tools.pulumi import name_of, type_of

TEMPLATE = """\
## Summary

Why: _not known here; add a sentence._

{summary}

## Commands run

As recorded since {since}, when the commit {fork} was made:

{commands}

## Previews

{previews}

## Settings touched

{settings}

## How to go back

{way_back}

## Not known here

{gaps}"""
OTHER_FILES = ("destroy.", "rollback.")
"""Tasks whose previews are not of the checked out files: of none, or of an older commit."""
LIB, CHARTS, LOCK, PROJECT_FILE = "pulumi/lib/", "charts.yaml", "uv.lock", "Pulumi.yaml"
ENVIRONMENT = re.compile(r"environments/(.+)\.ya?ml")
SETTINGS = re.compile(r"pulumi/.+/Pulumi\.[^/]+\.yaml|targets\.yaml|charts\.yaml|environments/.+\.ya?ml")
PACKAGES = ("pyproject.toml", LOCK)
"""Settings that are named as a whole."""
LIB_IMPORT = re.compile(r"^\s*(?:from|import)\s+lib\.(\w+)", re.MULTILINE)
CHART_CALL = re.compile(r"\bchart\(\s*\"([^\"]+)\"")


def write_text(run: RunContext, root: Path, base: str, services: Sequence[Service]) -> str:
    """The pull request's text in Markdown. Raises as `read_change` does."""
    change = read_change(run, root, base, services)
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
    return TEMPLATE.format(since=when(change.forked), fork=code(change.fork[:12]), **facts)


# What changed


@dataclass(frozen=True, kw_only=True)
class BranchChange:
    """Everything since the checkout left its base, committed or not."""

    fork: str
    """The commit where the two parted."""
    forked: datetime
    """When that commit was made."""
    subjects: tuple[str, ...]
    """First lines of the commits since then, oldest first."""
    files: Mapping[str, str]
    """Path → `A` new, `M` changed, `D` deleted."""
    uncommitted: tuple[str, ...]
    touched: Mapping[Service, tuple[str, ...]]
    """Service → the files that touch it."""
    settings: Mapping[str, tuple[str, ...]]
    """File → the keys that differ and how."""
    written: Mapping[str, datetime]
    """File → when it was last written here."""


def read_change(run: RunContext, root: Path, base: str, services: Sequence[Service]) -> BranchChange:
    """Compare the checkout with the commit where it left `base`.

    Raises `NotFound` for a base that is not a commit or shares none, `Usage` when nothing differs, `ToolFailed` where
    git cannot read the checkout.
    """

    def ask(command: Command, *, may_fail: bool = False) -> Outcome:
        # Old settings are among the answers, so none is shown or recorded.
        outcome = run.runner.run(replace(command, confidential=True))
        if outcome.ok or (may_fail and outcome.exit_code == 1):
            return outcome
        message = (outcome.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise ToolFailed(
            f"git could not {command.title}: {run.masker.mask(message)}",
            expected="a git clone that this user may read",
            next_step="git status",
        )

    tip = ask(git.resolve(root, base), may_fail=True).stdout.strip()
    fork = ask(git.merge_base(root, tip), may_fail=True).stdout.strip() if tip else ""
    if not fork:
        raise NotFound(
            f"this branch and {base} share no commit" if tip else f"this clone has no commit or branch {base!r}",
            expected="the branch that the change is for",
            next_step="git branch --all lists the branches; ./inv pr.body --base NAME",
        )
    uncommitted = git.read_uncommitted(ask(git.uncommitted_files(root)))
    # git's difference lacks the files that git does not know yet.
    new = [each for each in uncommitted if each.status == "A"]
    files = {each.path: each.status for each in (*new, *git.read_changed(ask(git.changed_files(root, fork))))}
    if not files:
        raise Usage(
            f"nothing here differs from {base}",
            expected="a branch with commits of its own, or changed files",
            next_step="./inv pr.body --base REF compares with another commit",
        )
    settings: dict[str, tuple[str, ...]] = {path: ("changed",) for path in sorted(files) if path in PACKAGES}
    for path in sorted(filter(SETTINGS.fullmatch, files)):
        before = "" if files[path] == "A" else ask(git.show(root, fork, path)).stdout
        after = b"" if files[path] == "D" else (root / path).read_bytes()
        settings[path] = changed_keys(path, before.encode(), after)
    charts = {key.split(".")[0] for key in settings.get(CHARTS, ())}
    touched = {each: tuple(path for path in files if is_touched(root, each, path, charts)) for each in services}
    there = [path for path in files if (root / path).is_file()]
    return BranchChange(
        fork=fork,
        forked=datetime.fromisoformat(ask(git.commit_time(root, fork)).stdout.strip()).astimezone(UTC),
        subjects=tuple(ask(git.subjects(root, fork)).stdout.splitlines()),
        files=files,
        uncommitted=tuple(each.path for each in uncommitted),
        touched={service: paths for service, paths in touched.items() if paths},
        settings=settings,
        written={path: datetime.fromtimestamp((root / path).stat().st_mtime, UTC) for path in there},
    )


def is_touched(root: Path, service: Service, path: str, charts: Iterable[str]) -> bool:
    """Whether the service owns the file or uses it; `charts` are those whose pins differ."""
    folder = root / "pulumi" / service.folder
    if path.startswith(f"pulumi/{service.folder}/") or path == LOCK:
        return True
    if path.startswith(LIB):
        return Path(path).stem in _helpers_of(root, folder)
    if path == CHARTS:
        return not _found_in(folder, "*.py", CHART_CALL).isdisjoint(charts)
    environment = ENVIRONMENT.fullmatch(path)
    return environment is not None and environment[1] == service.environment


def _helpers_of(root: Path, folder: Path) -> set[str]:
    """The modules of `pulumi/lib` that the program imports, directly or not."""
    found: set[str] = set()
    waiting = _found_in(folder, "*.py", LIB_IMPORT)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _found_in(root / LIB, f"{name}.py", LIB_IMPORT) - found
    return found


def _found_in(folder: Path, pattern: str, wanted: re.Pattern[str]) -> set[str]:
    return {name for path in folder.glob(pattern) for name in wanted.findall(path.read_text(encoding="utf-8"))}


def changed_keys(path: str, before: bytes, after: bytes) -> tuple[str, ...]:
    """`key added`, `key changed`, `key removed` of each setting that differs; never a value."""
    try:
        old, new = (dict(_leaves(parse(Path(path), raw))) for raw in (before, after))
    except OpsError:
        return ("not YAML, so its keys are not known",)
    keys = [key for key in {**new, **old} if key not in old or key not in new or old[key] != new[key]]
    words = {key: "added" if key not in old else "changed" if key in new else "removed" for key in keys}
    return tuple(f"{key.removeprefix('config.')} {word}" for key, word in words.items()) or ("no setting differs",)


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is not a mapping; a secret and a list count as a whole, `{}` is nothing."""
    if not isinstance(document, Mapping) or set(document) == {"secure"}:
        if path:
            yield path, document
        return
    for key, value in document.items():
        yield from _leaves(value, f"{path}.{key}".removeprefix("."))


# What the journals hold


@dataclass(frozen=True, kw_only=True)
class StackPreview:
    """The plan summary of one stack."""

    at: datetime
    service: str
    target: str
    state: str
    """Its changes, counted; else `unchanged`, or what it waits for."""
    changes: tuple[str, ...]
    """`delete Secret old  (deleted)`, gravest first."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a task."""

    began: datetime
    task: str
    command: str
    """As it was typed, behind `./inv`."""
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
    return one_line(f"{mark}{change['verb']} {kind_of(type_of(change['urn']))} {name_of(change['urn'])}{why}")


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
    lines = []
    for each in previews:
        lines.append(one_line(f"{each.service} on {each.target}, {when(each.at)}: {each.state}"))
        lines += [f"  {change}" for change in each.changes]
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


# Markdown


def when(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def one_line(text: str) -> str:
    """On one line, and without the end of a code block."""
    return "".join(character if character.isprintable() else " " for character in text).replace("```", "` ` `")


def code(text: str) -> str:
    """The text as code, in a line or in a table's cell."""
    shown = one_line(text).replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def list_files(paths: Sequence[str]) -> str:
    return ", ".join(map(code, paths[:12])) + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
