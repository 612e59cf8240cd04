"""The text of a pull request, from git and the records of runs: what is known, and by name what is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from runbooks.core.journal import KEPT_RUNS
from runbooks.stacks import touched
from runbooks.stacks.branch import Change
from runbooks.stacks.runs import Run, StackPreview
from runbooks.stacks.target import LAB
from runbooks.stacks.touched import Touched

OWN_TASK = "pr.body"
OF_OTHER_FILES = ("destroy.", "rollback.")
"""Tasks whose previews are not of the checkout as it lies here: of none, or of an older commit."""
MOST_COMMANDS = 40
MOST_CHANGES = 30
"""Of one stack; the count above them is complete."""
MOST_FILES = 12


def lines(change: Change, runs: Sequence[Run]) -> list[str]:
    """The text in Markdown, section by section; `runs` are all that are kept, oldest first."""
    ours = of_change(runs, change)
    return [
        *summary(change),
        *commands(change, ours),
        *previews(change, ours),
        *stacks(ours),
        *settings(change),
        *way_back(change),
        *not_known(change, runs, ours),
    ]


# What the records know


def of_change(runs: Sequence[Run], change: Change) -> list[Run]:
    """The runs since the fork; records hold no branch, so all of them."""
    return [run for run in runs if run.began >= change.forked and run.task != OWN_TASK]


def newest_previews(runs: Iterable[Run]) -> list[StackPreview]:
    """Of each stack on each target the last one of these files, in the order in which the stacks first came up."""
    found: dict[tuple[str, str], StackPreview] = {}
    for run in runs:
        if run.task.startswith(OF_OTHER_FILES):
            continue
        for preview in run.previews:
            found[preview.target, preview.service] = preview
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class StackState:
    """What the runs left of a stack that one of them changed."""

    service: str
    target: str
    done: str
    at: datetime
    proof: str = ""
    """What its verification counted, where there was one since."""


def changed_stacks(runs: Iterable[Run]) -> list[StackState]:
    """Every stack that was applied, begun or destroyed, with what came last."""
    found: dict[tuple[str, str], StackState] = {}
    for run in runs:
        for service, done in _done_by(run):
            found[run.target, service] = StackState(service=service, target=run.target, done=done, at=run.began)
        for service, proof in run.proofs.items():
            if (run.target, service) in found:
                found[run.target, service] = replace(found[run.target, service], proof=proof)
    return list(found.values())


def _done_by(run: Run) -> Iterator[tuple[str, str]]:
    yield from ((service, "applied") for service in run.applied)
    yield from ((service, "begun, failed") for service in run.failed)
    verb, _, service = run.task.partition(".")
    if verb == "destroy" and run.exit_code == 0:
        yield service, "destroyed"


# The sections


def summary(change: Change) -> list[str]:
    rows = [f"| {code(each.service.name)} | {_touched_by(each)} |" for each in change.touched]
    table = ["| service | touched by |", "|---|---|", *rows] if rows else ["No service is touched."]
    besides = besides_services(change)
    return [
        *("## Summary", "", "Why: _not known here; add a sentence._", ""),
        *(f"- {_plain(subject)}" for subject in change.subjects),
        *([f"- not committed yet: {files_told(change.uncommitted)}"] if change.uncommitted else []),
        *("", *table, ""),
        *([f"Besides: {besides}.", ""] if besides else []),
    ]


def _touched_by(each: Touched) -> str:
    """Its own files by their names alone; a new project as a whole."""
    folder = f"pulumi/{each.service.folder}/"
    if each.is_new:
        own = sum(path.startswith(folder) for path in each.files)
        return f"new: {code(folder)}, {own} files"
    return files_told([path.removeprefix(folder) for path in each.files])


def besides_services(change: Change) -> str:
    """The files that touch no service, counted by their folder below the root."""
    of_services = {path for each in change.touched for path in each.files}
    rooms: dict[str, int] = {}
    for path in sorted(each.path for each in change.files if each.path not in of_services):
        room = path.split("/")[0]
        rooms[room] = rooms.get(room, 0) + 1
    return ", ".join(f"{code(room)} ({number})" for room, number in rooms.items())


def commands(change: Change, ours: Sequence[Run]) -> list[str]:
    """Each command line once, where it last stood, with how it ended."""
    same: dict[tuple[str, str], list[Run]] = {}
    for run in ours:
        same[run.command, run.target] = [*same.pop((run.command, run.target), []), run]
    told = [_told_command(runs) for runs in same.values()]
    left_out = len(told) - MOST_COMMANDS
    return [
        *("## Commands run", ""),
        *(f"As recorded since {when(change.forked)}, when the commit {code(change.fork[:12])} was made:", ""),
        *([f"- {left_out} earlier ones, left out here"] if left_out > 0 else []),
        *(told[-MOST_COMMANDS:] or ["- none"]),
        "",
    ]


def _told_command(same: Sequence[Run]) -> str:
    run = same[-1]
    target = f" on {code(run.target)}" if run.target else ""
    ended = "no end recorded" if run.exit_code is None else f"exit {run.exit_code}"
    often = f"{len(same)} times, last " if len(same) > 1 else ""
    return f"- {code(run.command)}{target}: {ended}, {often}{when(run.began)}"


def previews(change: Change, ours: Sequence[Run]) -> list[str]:
    """The last preview of every stack: a row where the change touches it or it would change, a word where not."""
    names = {each.service.name for each in change.touched}
    found = newest_previews(ours)
    shown = [each for each in found if each.service in names or not each.is_unchanged]
    others = ", ".join(f"{each.service} on {each.target}" for each in found if each not in shown)
    rows = [
        f"| {code(each.stack)} | {code(each.target)} | {cell(each.told)} | {when(each.at)}{_outdated(change, each)} |"
        for each in shown
    ]
    digest = [line for each in shown if each.changes for line in _digest(each)]
    return [
        *("## Previews", ""),
        *(["| stack | target | would change | previewed |", "|---|---|---|---|", *rows, ""] if rows else []),
        *([_plain(f"Nothing would change besides: {others}."), ""] if others else []),
        *([] if found else ["None recorded.", ""]),
        *(["```", *digest, "```", ""] if digest else []),
    ]


def _digest(preview: StackPreview) -> Iterator[str]:
    """The changes of one stack, gravest first, as the record has them."""
    yield _plain(f"{preview.service} on {preview.target}: {preview.told}")
    for change in preview.changes[:MOST_CHANGES]:
        mark = "DESTRUCTIVE: " if change.destructive else ""
        why = f"  ({change.why})" if change.why else ""
        yield _plain(f"  {mark}{change.verb} {change.kind} {change.name}{why}")
    if len(preview.changes) > MOST_CHANGES:
        yield f"  … and {len(preview.changes) - MOST_CHANGES} more"


def _outdated(change: Change, preview: StackPreview) -> str:
    newer = newer_files(change, preview)
    return f"; **since then written: {files_told(newer)}**" if newer else ""


def newer_files(change: Change, preview: StackPreview) -> list[str]:
    """Files of the previewed service that were written after its preview."""
    files = [path for each in change.touched if each.service.name == preview.service for path in each.files]
    return [path for path in files if path in change.written and change.written[path] > preview.at]


def stacks(ours: Sequence[Run]) -> list[str]:
    found = changed_stacks(ours)
    rows = [
        f"| {code(each.service)} | {code(each.target)} | {each.done} {when(each.at)} | {cell(each.proof) or 'no'} |"
        for each in found
    ]
    table = ["| service | target | last | verified since |", "|---|---|---|---|", *rows] if rows else ["None recorded."]
    lab = [f"{code(LAB)} is a throw-away platform on one machine.", ""] if any(x.target == LAB for x in found) else []
    return [*("## Stacks touched", "", *table, ""), *lab]


def settings(change: Change) -> list[str]:
    """Names of what differs, never a value."""
    told = [
        f"- {code(path)}: {', '.join(map(_plain, keys)) or 'changed'}" for path, keys in sorted(change.settings.items())
    ]
    return ["## Settings touched", "", *(told or ["None."]), ""]


def way_back(change: Change) -> list[str]:
    commit = change.fork[:12]
    steps = [
        *(_back(each, commit) for each in change.touched),
        *(_back_for_gone(folder, commit) for folder in touched.gone_projects(change.files)),
        *(
            f"environment {environment[1]}: its file as it was, then {code(f'./inv esc.apply {environment[1]}')}"
            for path in sorted(change.settings)
            if (environment := touched.ENVIRONMENT.fullmatch(path))
        ),
        "this repository: `git revert` of the commits, then `./inv check`",
    ]
    return ["## How to go back", "", *(f"- {step}" for step in steps), ""]


def _back(each: Touched, commit: str) -> str:
    name = each.service.name
    if each.is_new:
        return f"{name}, which is new: {code(f'./inv destroy.{name}')}, while its folder is still there"
    data = "; its data is not rolled back" if each.service.stateful else ""
    return f"{name}: {code(f'./inv rollback.{name} --to {commit}')}{data}"


def _back_for_gone(folder: str, commit: str) -> str:
    there = code(f"git switch --detach {commit}")
    return f"{code(folder)} is gone and its stacks are not: destroy or deploy them from a checkout that has it, {there}"


def not_known(change: Change, runs: Sequence[Run], ours: Sequence[Run]) -> list[str]:
    return ["## Not known here", "", *(f"- {line}" for line in _gaps(change, runs, ours)), ""]


def _gaps(change: Change, runs: Sequence[Run], ours: Sequence[Run]) -> Iterator[str]:
    yield "why the change is wanted"
    yield "what was run otherwise than with `./inv`, on another machine or with another state folder"
    if ours:
        yield "which of the runs above were for this change: a record names no branch"
    if len(runs) >= KEPT_RUNS and runs[0].began > change.forked:
        yield f"runs before {when(runs[0].began)}: the last {KEPT_RUNS} are kept"
    found = newest_previews(ours)
    for each in change.touched:
        yield from _not_previewed(change, each, [seen for seen in found if seen.service == each.service.name])
    last = max(change.written.values(), default=change.forked)
    for command in ("./inv check", "./inv test"):
        if not any(run.command == command and run.exit_code == 0 and run.began > last for run in ours):
            yield f"whether {code(command)} passes: no such run since the last file was written ended with exit 0"


def _not_previewed(change: Change, each: Touched, found: Sequence[StackPreview]) -> Iterator[str]:
    real = [seen for seen in found if seen.target != LAB]
    if not real:
        where = "it was previewed on the lab only" if found else "it was not previewed"
        yield f"what {each.service.name} would change on a real target: {where}"
    elif all(newer_files(change, seen) for seen in real):
        yield f"what {each.service.name} would change now: it was not previewed since its files were written"


# Words


def when(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def code(text: str) -> str:
    """The text as code, in a line or in a table's cell."""
    shown = cell(text)
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """On one line, and no end of a block of code."""
    return "".join(character if character.isprintable() else " " for character in text).replace("```", "` ` `")


def files_told(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MOST_FILES} more" if len(paths) > MOST_FILES else ""
    return ", ".join(code(path) for path in paths[:MOST_FILES]) + more
