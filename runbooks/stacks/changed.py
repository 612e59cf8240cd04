"""Finds what changed: the files of a branch and the services they touch, or what differs from the last apply."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import NotFound, OpsError, ToolFailed
from runbooks.core.yaml_file import parse
from runbooks.stacks.fingerprint import STACK_CONFIG, changed_since, files_of, read_record
from runbooks.stacks.service import Service
from runbooks.stacks.session import RunContext, Session
from runbooks.tools import git

LIB, CHARTS, LOCK = "pulumi/lib/", "charts.yaml", "uv.lock"
ENVIRONMENT = re.compile(r"environments/(.+)\.ya?ml")
SETTINGS = re.compile(r"pulumi/.+/Pulumi\.[^/]+\.yaml|targets\.yaml|charts\.yaml|environments/.+\.ya?ml")
PACKAGES = ("pyproject.toml", LOCK)
"""Files that the list of changed settings names without their keys."""
NEVER_APPLIED = "it was never applied from here"
LIB_IMPORT = re.compile(r"^\s*(?:(?:from|import)\s+lib\.(\w+)|from\s+lib\s+import\s+(\([^)]*\)|[^\n#]+))", re.MULTILINE)
"""Names the module, or has the words of a list that includes the module: `from lib import charts, k8s as kube`."""
CHART_CALL = re.compile(r"\bchart\(\s*\"([^\"]+)\"")


def choose_changed(session: Session, since: str) -> tuple[str, ...]:
    """Find and report the services that changed. Raises the same errors as `read_change`."""
    reasons = changed_services(session, since)
    origin = f"since {since}" if since else "since it was last applied from here"
    session.reporter.line(f"Changed {origin}: {len(reasons) or 'nothing'} of {len(session.services)}")
    for name, why in reasons.items():
        if why != NEVER_APPLIED:
            session.reporter.line(f"  {name}: {why}")
    never = [name for name, why in reasons.items() if why == NEVER_APPLIED]
    if never:
        session.reporter.line(f"  never applied from here: {', '.join(never)}")
        session.reporter.line("  (--since HEAD chooses only services with files that differ from the last commit)")
    return tuple(reasons)


def changed_services(session: Session, since: str = "") -> dict[str, str]:
    """The services that changed, and those that read the outputs of one that did: name → why, in the list's order.

    With `since` a commit or branch: those whose files differ from where the checkout left it, committed or not.
    Without: those whose files differ from what was last applied from here, or that never were.
    Raises the same errors as `read_change`.
    """
    services = session.services
    if since:
        touched = read_change(session, session.root, since, services).touched
        found = {service.name: why for service, paths in touched.items() if (why := _reason(session, paths))}
    else:
        found = {service.name: why for service in services if (why := _differs_from_applied(session, service))}
    waiting = list(found)
    while waiting:
        producer = waiting.pop()
        readers = [each.name for each in services if producer in each.reads_outputs_of and each.name not in found]
        found |= dict.fromkeys(readers, f"it reads the outputs of {producer}")
        waiting += readers
    return {service.name: found[service.name] for service in services if service.name in found}


def _reason(session: Session, paths: Sequence[str]) -> str:
    """The first of the files that count on this target, and how many more do; empty when none does."""
    own = f"Pulumi.{session.target.stack}.yaml"
    counting = [path for path in paths if (name := Path(path).name) == own or not STACK_CONFIG.match(name)]
    return counting[0] + (f" and {len(counting) - 1} more" if counting[1:] else "") if counting else ""


def _differs_from_applied(session: Session, service: Service) -> str:
    stack = session.stack(service)
    record = read_record(session, stack)
    if record is None or not record.applied:
        return NEVER_APPLIED
    return ", ".join(changed_since(session, record.applied, files_of(session, stack)))


@dataclass(frozen=True, kw_only=True)
class BranchChange:
    """Everything since the checkout left its base, committed or not."""

    fork: str
    """The commit where checkout and base parted."""
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


def read_change(run: RunContext | Session, root: Path, base: str, services: Sequence[Service]) -> BranchChange:
    """Compare the checkout with the commit where it left `base`.

    Raises `NotFound` for a base that is not a commit or shares none, `ToolFailed` where git cannot read the checkout.
    """

    def ask(command: Command, *, may_fail: bool = False) -> Outcome:
        # The answers contain old settings, so they are neither shown nor recorded.
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
            next_step="git branch --all lists the branches",
        )
    uncommitted = git.read_uncommitted(ask(git.uncommitted_files(root)))
    # `git diff` lacks untracked files.
    new = [each for each in uncommitted if each.status == "A"]
    files = {each.path: each.status for each in (*new, *git.read_changed(ask(git.changed_files(root, fork))))}
    settings: dict[str, tuple[str, ...]] = {path: ("changed",) for path in sorted(files) if path in PACKAGES}
    for path in sorted(filter(SETTINGS.fullmatch, files)):
        before = "" if files[path] == "A" else ask(git.show(root, fork, path)).stdout
        # An invalid byte stays one, which YAML does not allow.
        after = "" if files[path] == "D" else (root / path).read_text(encoding="utf-8", errors="surrogateescape")
        settings[path] = changed_keys(path, before, after)
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
        used = (CHART_CALL.findall(program.read_text(encoding="utf-8")) for program in folder.glob("*.py"))
        return any(not set(names).isdisjoint(charts) for names in used)
    environment = ENVIRONMENT.fullmatch(path)
    return environment is not None and environment[1] == service.environment


def _helpers_of(root: Path, folder: Path) -> set[str]:
    """The modules of `pulumi/lib` that the program imports, directly or not."""
    found: set[str] = set()
    waiting = list(folder.glob("*.py"))
    while waiting:
        for module, listed in LIB_IMPORT.findall(waiting.pop().read_text(encoding="utf-8")):
            new = {module, *re.findall(r"\w+", listed)} - found
            found |= new
            waiting += [path for name in new if (path := root / LIB / f"{name}.py").is_file()]
    return found


def changed_keys(path: str, before: str, after: str) -> tuple[str, ...]:
    """`key added`, `key changed`, `key removed` of each setting that differs; never a value."""
    try:
        old, new = (dict(_leaves(parse(Path(path), text))) for text in (before, after))
    except OpsError:
        return ("not YAML, so its keys are not known",)
    keys = [key for key in {**new, **old} if key not in old or key not in new or old[key] != new[key]]
    words = {key: "added" if key not in old else "changed" if key in new else "removed" for key in keys}
    return tuple(f"{key.removeprefix('config.')} {word}" for key, word in words.items()) or ("no setting differs",)


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is not a mapping. A secret and a list count as a whole; `{}` is left out."""
    if not isinstance(document, Mapping) or set(document) == {"secure"}:
        if path:
            yield path, document
        return
    for key, value in document.items():
        yield from _leaves(value, f"{path}.{key}".removeprefix("."))
