"""ESC environments: opens one with its secrets masked, compares it with its file, pushes the file."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbooks.core.command import Command
from runbooks.core.errors import NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.core.names import check_name, unknown
from runbooks.core.search_path import find_program
from runbooks.core.yaml_file import dump
from runbooks.stacks import states
from runbooks.stacks.guard import check_opened
from runbooks.stacks.service import Service, Setting
from runbooks.stacks.session import Session
from runbooks.stacks.target import refuse_without_esc
from runbooks.tools import definitions, esc, pulumi
from runbooks.tools.esc import EnvironmentName, Esc, Opened, Value, property_path
from runbooks.tools.pulumi import as_text
from runbooks.tools.stack_config import StackFile, full_key, read_binding

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap


def read_name(session: Session, text: str) -> EnvironmentName:
    """The name of an environment on this target. Raises `Usage` for an invalid one, or a backend without ESC."""
    name = esc.read_name(text, session.target.organization)
    refuse_without_esc(session.target, name.short)
    return name


def esc_of(session: Session) -> Esc:
    """The CLI of this run for environments. It stores a token of PULUMI_ACCESS_TOKEN in the run's folder only.

    pulumi 3.255 and newer write an opened environment's `files` into temporary files and leave them there: these are
    below the run's folder too, which is removed.
    """
    env = {**session.env, "TMPDIR": session.env["PULUMI_HOME"]}
    if "PULUMI_ACCESS_TOKEN" in env:
        env["PULUMI_CREDENTIALS_PATH"] = env["PULUMI_HOME"]
    program = find_program("esc") or session.target.own_tool("esc")
    if program is None:
        return Esc(program=session.tools.pulumi, is_pulumi=True, env=env)
    return Esc(program=str(program), is_pulumi=False, env=env)


def run_esc(
    session: Session,
    command: Command,
    name: EnvironmentName | None,
    *,
    diagnostics: type[OpsError] = ToolFailed,
    after_interrupt: bool = False,
) -> str:
    """The answer to a command on an environment, or on the whole organization.

    Raises the error for its failure, also of one that exits with 0; `diagnostics` for errors in a definition.
    """
    outcome = session.runner.run(command, after_interrupt=after_interrupt)
    esc.judge(outcome, name, session.masker.mask, diagnostics=diagnostics)
    return outcome.stdout


def open_environment(session: Session, name: EnvironmentName) -> Opened:
    """Open it, and register every secret in it with the masker. Raises the error for its diagnostics."""
    outcome = session.runner.run(esc_of(session).open(name))
    # Register secrets before a failure is explained: the answer has the values that could be opened.
    if outcome.stdout.strip():
        opened = esc.read_opened(outcome.stdout)
        session.masker.register_all(opened.secret_texts())
    try:
        esc.judge(outcome, name, session.masker.mask)
    except ToolFailed as error:
        waiting: list[str] = []
        with contextlib.suppress(OpsError):  # the first error is shown
            waiting = waits_for(session, name)
        if not waiting:
            raise
        raise ToolFailed(
            f"{name.short} reads outputs of {', '.join(waiting)}, which has none yet",
            expected="producers that were deployed on this target",
            next_step=f"./inv deploy.{waiting[0]}",
        ) from error
    except NotFound as error:
        raise explain_missing(session, name) from error
    if not outcome.stdout.strip():
        raise ToolFailed(
            f"opening {name.short} exited with 0 and printed nothing",
            expected="its values",
            next_step=f"./inv esc.open {name.short}",
        )
    return opened


def waits_for(session: Session, name: EnvironmentName) -> list[str]:
    """The services whose outputs the environment's file reads, and which have no outputs yet."""
    if name.short not in definitions.defined_names(session.root):
        return []
    document = definitions.read_definition(session.root, name)
    projects = {stack.project for stack in definitions.stacks_read(document)}
    read = [service for service in session.services if service.project_name in projects]
    return [service.name for service in read if not states.exports_of(session, service)]


def live_names(session: Session) -> list[EnvironmentName]:
    """The environments of the target's organization on its backend."""
    organization = session.target.organization
    return list(esc.read_list(run_esc(session, esc_of(session).ls(organization), None), organization))


def explain_missing(session: Session, name: EnvironmentName) -> NotFound:
    """The error for an environment that is not on the backend, with the nearest names of files and backend."""
    if name.version:
        return NotFound(
            f"there is no revision or tag {name.version} of {name.short}",
            expected="a version that exists",
            next_step=f"esc env version history {name.full.partition('@')[0]} lists them",
        )
    files = definitions.defined_names(session.root)
    try:
        live = [each.short for each in live_names(session)]
    except OpsError:  # the list would only help to find the name
        live = []
    create_it = f"./inv esc.apply {name.short} creates it from environments/{name.short}.yaml"
    list_with = create_it if name.short in files else "./inv esc.list"
    return unknown("environment on this backend", name.short, {*files, *live} - {name.short}, list_with=list_with)


def open_checked(session: Session, name: EnvironmentName) -> Opened:
    """Open the environment. Raises `Refused` if it would send pulumi to another cluster than the checked one."""
    opened = open_environment(session, name)
    check_opened(session.target, opened, name.short)
    return opened


def open_bound(session: Session, file: StackFile) -> list[Opened]:
    """Open and check the environments that a stack config binds, in its order.

    Raises `Usage` on a backend without ESC, before anything is started.
    """
    if not file.environment:
        return []
    about = f"{file.path.name} binds {', '.join(file.environment)}"
    refuse_without_esc(session.target, file.environment[0], about)
    return [open_checked(session, esc.read_entry(entry, session.target.organization)) for entry in file.environment]


def as_bound(session: Session, service: Service, path: Path, name: EnvironmentName) -> EnvironmentName:
    """The environment in the version that the stack config at `path` binds; `name` where it binds none.

    Raises `Usage` where it is bound without merging: none of its values would reach the stack.
    """
    binding = read_binding(path, name.short)
    if binding is None:
        return name
    entry, is_merged = binding
    if not is_merged:
        raise Usage(
            f"{path} binds {entry} with `merge: false`, so none of its values reaches the stack of {service.name}",
            expected="an entry without that option",
            next_step=f"remove `merge: false` from {path}, then ./inv esc.bind {name.short}",
        )
    bound = esc.read_entry(entry, session.target.organization)
    if name.version:
        return name
    if bound.version:
        session.reporter.line(f"{path.name} binds {bound.shown}: that version is checked, not the newest")
    return bound


# What a consumer requires of it


def consumer_of(session: Session, name: EnvironmentName, service: str = "", *, task: str = "esc.bind") -> Service:
    """The service to bind: the named one, else the one that the environment is for. `task` is for the message."""
    if service:
        return session.service(service)
    owners = {entry.environment: entry for entry in session.services if entry.environment}
    list_with = f"./inv {task} {name.short} --service NAME"
    return owners[check_name("environment of a service", name.short, owners, list_with=list_with)]


def check_contract(session: Session, name: EnvironmentName, service: Service, opened: Opened) -> None:
    """Raise `Usage` with every config value of the service that the environment does not provide correctly."""
    settings = opened.settings
    required = {
        key: settings.get(key.key) or settings.get(full_key(service.project_name, key.key))
        for key in service.environment_keys
    }
    found = [_check_required(name, key, value, opened) for key, value in required.items()]
    found += [_check_secretness(value) for value in settings.values() if value not in required.values()]
    problems = list(filter(None, found))
    if problems:
        history = f"esc env version history {name.full.partition('@')[0]}"
        raise Usage(
            f"{name.shown} does not provide what {service.name} requires:\n  " + "\n  ".join(problems),
            expected=f"{len(required)} values below pulumiConfig, each with the right secretness",
            next_step=f"./inv esc.bind {name.short}@REVISION of one that does: {history}"
            if name.version
            else f"./inv esc.apply {name.short}; correct environments/{name.short}.yaml first if it is wrong too",
        )
    secret = sum(key.is_secret for key in required)
    session.reporter.line(
        f"{name.shown} provides all {len(required)} settings that {service.name} requires, {secret} secret"
    )


def _check_required(name: EnvironmentName, key: Setting, value: Value | None, opened: Opened) -> str:
    """The problem of a required value, with its fix; empty without one."""
    path = property_path(("pulumiConfig", key.key))
    if value is None:
        is_map = any(entry.path[:2] == ("pulumiConfig", key.key) for entry in opened.values)
        return f"{path}: {'is a map or list; give one value' if is_map else 'missing'}"
    if value.unknown:
        return f"{path}: unknown, because its reference gave no value"
    if value.value in (None, ""):
        fix = f"./inv esc.set {name.short} '{path}'" if key.is_secret else "give it a value in the definition"
        return f"{path}: empty; {fix}"
    if problem := _check_secretness(value):
        return problem
    if key.is_secret and not value.secret:
        return f"{path}: must be secret and is not; use `fn::secret`, or take it from a secret output"
    if value.secret and not key.is_secret:
        return f"{path}: is secret, but the program shows it in plaintext; give it without `fn::secret`"
    return ""


def _check_secretness(value: Value) -> str:
    if not value.loses_secretness:
        return ""
    return f"{value.shown_path}: a secret {value.kind} loses its secretness in the config; wrap it in `fn::toString`"


def check_values(session: Session, service: Service, file: StackFile, opened: Sequence[Opened]) -> None:
    """Raise `Usage` with every value that is missing or that the program would refuse.

    `opened` are the environments in the order in which they are bound; the stack config wins over them.
    """
    stack = session.stack(service)
    provided = [pair for environment in opened for pair in environment.settings.items()]
    config = {full_key(stack.project, key): as_text(value.value) for key, value in provided}
    secret = {full_key(stack.project, key) for key, value in provided if value.secret}
    if file.has_encrypted_values:
        values, secrets = pulumi.read_config(states.run_pulumi(session, pulumi.config_list(stack), stack))
        config |= values
        secret |= secrets
    else:
        config |= {key: as_text(value) for key, value in file.config.items()}
    checker = session.root / "pulumi" / "lib" / "check_settings.py"
    outcome = session.runner.run(pulumi.check_settings(stack, checker, config, secret))
    problems = outcome.stdout.strip()
    if outcome.exit_code == 1 and problems:
        own = [key for key in file.config if f"{key}: " in problems]
        where = f"; {', '.join(own)}: in {file.path}, which wins over the environment" if own else ""
        raise Usage(
            problems.replace("\n\n", "\n").replace("\n", "\n  "),
            expected="values that the program accepts",
            next_step=f"set them as shown{where}, then ./inv preview.{service.name}",
        )


# Definitions as files


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
        return run_esc(session, esc_of(session).definition(name), name, after_interrupt=after_interrupt)
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
        run_esc(session, esc_of(session).init(name), name)
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
    command = esc_of(session).edit(draft.name, dump(draft.carried.document))
    revision = esc.read_revision(run_esc(session, command, draft.name, diagnostics=Usage))
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
            run_esc(session, esc_of(session).remove(name), name, after_interrupt=True)
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

    A new environment is one line: its content is that of its file.
    """
    changed = []
    for text in definitions.defined_names(session.root) if names is None else names:
        draft = compare(session, read_name(session, text))
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


def open_or_apply(session: Session, name: EnvironmentName) -> Opened:
    """Open and check the environment; on the lab apply its definition first if it does not exist."""
    try:
        return open_checked(session, name)
    except NotFound:
        if not session.target.ephemeral or name.version:
            raise
        apply_definitions(session, [name.short])
        return open_checked(session, name)
