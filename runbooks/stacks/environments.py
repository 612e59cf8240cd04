"""ESC environments as files: compares one with the backend, pushes the file, keeps the secrets that are set there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbooks.core.errors import NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.core.yaml_file import dump
from runbooks.stacks.session import Session
from runbooks.stacks.target import refuse_without_esc
from runbooks.tools import definitions, esc
from runbooks.tools.esc import EnvironmentName

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap


def read_name(session: Session, text: str) -> EnvironmentName:
    """The name of an environment on this target. Raises `Usage` for an invalid one, or a backend without ESC."""
    name = esc.read_name(text, session.target.organization)
    refuse_without_esc(session.target, name.short)
    return name


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The definition to push, and how it differs from the backend's."""

    name: EnvironmentName
    live: str | None
    """The definition on the backend as it was compared; `None` without such an environment."""
    differences: list[str]
    carried: definitions.Carried
    notes: list[str]
    """What the lab has otherwise than the file."""

    @property
    def is_new(self) -> bool:
        return self.live is None

    @property
    def kept(self) -> list[str]:
        """The secrets that stay as they are on the backend."""
        return [definitions.shown_path(path) for path in (*self.carried.kept, *self.carried.added)]


def compare(session: Session, name: EnvironmentName) -> Draft:
    """Compare the environment's file with the backend.

    Raises `Refused` if pushing would lose a secret, or the list entry of a secret is ambiguous.
    """
    wanted, adapted = read_wanted(session, name)
    live = live_definition(session, name)
    current = definitions.read_live(live or "", name)
    values = (node[definitions.SECRET] for _, node in definitions.secrets_in(current))
    session.masker.register_all(value for value in values if isinstance(value, str))
    carried = definitions.carry_over(wanted, current)
    definitions.refuse_loss(carried, current, name)
    # The lab generates what is not set; it is kept from then on like any other secret.
    generated = definitions.fill_empty(carried.document) if session.target.ephemeral else []
    session.masker.register_all(generated)
    notes = [f"in the lab it reads {change}" for change in adapted]
    if generated:
        notes.append(f"secrets that get a generated value, as everywhere in the lab: {len(generated)}")
    return Draft(
        name=name,
        live=live,
        differences=definitions.differences(current, carried.document),
        carried=carried,
        notes=notes,
    )


def check_place(session: Session, name: EnvironmentName, live: str, path: definitions.KeyPath) -> str:
    """Raise `Refused` where a secret set at `path` would replace something else, or reach another entry of a list than
    the file has there. Gives the list entry it reaches, as it is shown; empty for a path through no list."""
    current = definitions.read_live(live, name)
    in_list = any(isinstance(part, int) for part in path)
    has_file = definitions.definition_path(session.root, name).exists()
    wanted = read_wanted(session, name)[0] if in_list and has_file else None
    definitions.refuse_other_place(current, wanted, path, name)
    return definitions.holding_entry(current.get("values"), path)


def read_wanted(session: Session, name: EnvironmentName) -> tuple[CommentedMap, list[str]]:
    """The file's definition for this target, and the stacks that were replaced by the lab's."""
    wanted = definitions.read_definition(session.root, name)
    return wanted, definitions.with_stack(wanted, session.target.stack) if session.target.ephemeral else []


def live_definition(session: Session, name: EnvironmentName, *, after_interrupt: bool = False) -> str | None:
    """The definition on the backend; `None` without such an environment."""
    try:
        return esc.ask(
            session.runner, session.esc.definition(name), name, session.masker.mask, after_interrupt=after_interrupt
        )
    except NotFound:
        return None


def push(session: Session, draft: Draft) -> int:
    """Push the definition; returns the revision, 0 if the CLI does not print it.

    `env edit --file` sends no ETag, so the definition on the backend is read again and compared right before it. The
    backend rejects a definition with diagnostics as a whole.
    Raises `Refused` if the definition changed since it was compared, `Usage` with the diagnostics. A new environment
    that does not accept its definition is removed again, as long as it is empty.
    """
    name = draft.name
    if draft.is_new:
        esc.ask(session.runner, session.esc.init(name), name, session.masker.mask)
    elif _read_plain(draft.live, name) != _read_plain(live_definition(session, name), name):
        raise Refused(
            f"{name.short} changed on the backend since it was compared",
            expected="the definition that was compared; nothing was changed",
            next_step=f"./inv esc.apply {name.short} compares again",
        )
    try:
        revision = _replace_definition(session, draft)
    except BaseException as error:
        # Refused: another user has written into it in the meantime.
        if draft.is_new and not isinstance(error, Refused):
            _remove_empty(session, name)
        raise
    session.journal.write("environment", name=name.short, revision=revision)
    return revision


def _read_plain(text: str | None, name: EnvironmentName) -> Any:
    return definitions.plain(definitions.read_live(text or "", name))


def _replace_definition(session: Session, draft: Draft) -> int:
    command = session.esc.edit(draft.name, dump(draft.carried.document))
    answer = esc.ask(session.runner, command, draft.name, session.masker.mask, diagnostics=Usage)
    revision = esc.read_revision(answer)
    if revision is None:
        raise ToolFailed(
            f"the CLI does not report that {draft.name.short} was updated",
            expected="Environment updated.",
            next_step=f"./inv esc.open {draft.name.short}",
        )
    return revision


def _remove_empty(session: Session, name: EnvironmentName) -> None:
    """Remove the environment that did not accept its definition, unless something was written into it meanwhile.

    Reports an environment that stays, instead of raising: the push has an error of its own.
    """
    try:
        if _read_plain(live_definition(session, name, after_interrupt=True), name) == _read_plain(None, name):
            esc.ask(session.runner, session.esc.remove(name), name, session.masker.mask, after_interrupt=True)
            return
        why = "it is no longer empty: this push arrived after all, or another user wrote into it"
    except OpsError as error:
        why = error.summary
    session.reporter.advice(f"{name.short} is left behind ({why}); next: ./inv esc.apply {name.short} compares again")


def show_draft(session: Session, draft: Draft) -> None:
    """Print what applying it changes."""
    reporter = session.reporter
    for note in draft.notes:
        reporter.line(f"  {note}")
    if draft.kept:
        reporter.line(f"  kept as they are on the backend: {', '.join(draft.kept)}")
    for line in draft.differences:
        reporter.quote(f"  {line}")
    report_draft(session, draft)


def report_draft(session: Session, draft: Draft) -> None:
    """Report what applying it changes, to programs alone."""
    changes = {"new": draft.is_new, "changes": draft.differences, "kept": draft.kept}
    session.reporter.event("definition", environment=draft.name.short, **changes)


def apply_definitions(session: Session, names: Sequence[str] | None = None) -> list[str]:
    """Apply definitions without asking, on the lab; returns those that changed. By default all.

    Applies none on a backend without ESC. A new environment is one line: its content is that of its file.
    """
    changed: list[str] = []
    if session.target.has_diy_backend:
        return changed
    for text in definitions.defined_names(session.root) if names is None else names:
        draft = compare(session, esc.read_name(text, session.target.organization))
        if not (draft.is_new or draft.differences):
            continue
        if draft.is_new:
            count = len(draft.differences)
            session.reporter.line(f"environment {text}: new, {count} values from environments/{text}.yaml")
            report_draft(session, draft)
        else:
            session.reporter.line(f"environment {text}: changed")
            show_draft(session, draft)
        push(session, draft)
        changed.append(text)
    return changed
