"""Makes a stack ready for its first command: its config, the environments that it binds, its state.

The lab creates what is missing; a real target's error names it. The state stays in memory until something may have
changed it (`forget`). It is read in plaintext, so that every secret in it is registered with the masker before anything
of it is shown.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runbooks.core.command import Command
from runbooks.core.environment import changes_pulumi_unseen
from runbooks.core.errors import STATE_FOLDER, NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.core.files import make_folder, write_atomically
from runbooks.core.names import unknown
from runbooks.core.runner import CommandFailed
from runbooks.core.yaml_file import read_text
from runbooks.stacks.service import Service
from runbooks.stacks.session import ClearState, Session
from runbooks.stacks.target import Target, refuse_without_esc
from runbooks.tools import definitions, esc, pulumi
from runbooks.tools.cloud import Cloud, NoAnswer, token_for
from runbooks.tools.esc import EnvironmentName, Opened
from runbooks.tools.failures import explain
from runbooks.tools.kubeconfig import read_context
from runbooks.tools.pulumi import as_text
from runbooks.tools.secret_values import SECRET_SIGNATURE, generate_secret, secrets_in_config, secrets_in_export
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import (
    StackFile,
    full_key,
    missing_keys,
    preserve,
    refresh_copy,
    refuse_interrupted_edit,
)

Answer = TypeVar("Answer")

CONFIGS = "the folder of the lab's stack configs"


def prepare(session: Session, service: Service) -> Stack:
    """Prepare the service's stack for its first command, once a run, and return it.

    On the lab its config is brought up to date, and stack and secrets are made where they are missing. On a real target
    stack and secrets must be there: raises `NotFound` or `Usage` with the command that makes them. On both its secrets
    are registered with the masker, and a config that leads to another cluster is refused.
    """
    stack = session.prepared.get(service.name)
    if stack is None:
        stack = set_up(session, service)
        settings = read_settings(session, stack)
        # Registers the secrets of what is bound; those of config and state follow. Their plaintext stays in memory.
        session.known.opened[(settings.path, *settings.environment)] = open_bound(session, settings)
        register_secrets(session, stack, settings)
        # Last: another thread must not find a stack whose secrets are not registered yet.
        session.prepared[service.name] = stack
    return stack


def set_up(session: Session, service: Service) -> Stack:
    """Find the service's stack and check its own config, without opening bound environments.

    Raises `NotFound` or `Usage` on a real target where stack or secrets are missing.
    """
    stack = find_stack(session, service)
    if session.target.ephemeral:
        return stack
    refuse_interrupted_edit(stack.settings_file)
    file = StackFile.read(stack.settings_file)
    if not file.environment:  # which may provide what the file does not
        refuse_missing(session, service, file, ())
    return stack


def refuse_missing(session: Session, service: Service, file: StackFile, plain: Iterable[str]) -> None:
    """Raise `Usage` for the secrets, and the plain settings, of the service that its stack config lacks."""
    secret = [setting.key for setting in service.secrets]
    missing = missing_keys(file, service.project_name, [*plain, *secret])
    if missing:
        key = missing[0].removeprefix(f"{service.project_name}:")
        by_hand = f"pulumi config set {missing[0]} VALUE in pulumi/{service.folder}"
        raise Usage(
            f"{service.name} has no value for {', '.join(missing)}",
            expected=f"every required setting in {file.path.name}",
            next_step=f"./inv --target {session.target.name} secrets.set {service.name} {key}"
            if key in secret
            else by_hand,
        )


def find_stack(session: Session, service: Service) -> Stack:
    """Find the service's stack. The lab creates a missing one, with its secrets.

    Raises `NotFound` on a real target: no run creates a stack there by itself, so that a typo makes none.
    """
    stack = session.stack(service)
    if session.target.ephemeral:
        make_stack(session, service, stack)
    elif not has_stack(session, stack):
        raise NotFound(
            f"{service.name} has no stack {stack.name!r} on {session.target.shown_backend}",
            expected=f"the stack {stack.reference}; no run creates one by itself",
            next_step=f"./inv --target {session.target.name} stack.init {service.name}",
        )
    return stack


def outputs_of(session: Session, name: str) -> dict[str, object]:
    """The outputs of the service called `name` as its state holds them (secrets encrypted); empty before an update."""
    return dict(state_of(session, prepare(session, session.service(name))).outputs)


# What the lab makes by itself: its own copies of stack configs, stacks, generated secrets


def make_stack(session: Session, service: Service, stack: Stack) -> None:
    """Bring the stack's config up to date, and make the stack and its secrets where they are missing."""
    make_folder(stack.settings_file.parent, CONFIGS)
    # Without the lock, two runs could generate one secret twice, and the database would have the first value.
    with _lock(stack.settings_file.parent):
        refresh_config(session, stack)
        if not has_stack(session, stack):
            try:
                with preserve(stack.settings_file):
                    session.runner.check(pulumi.stack_init(stack))
            except CommandFailed as error:
                if "already exists" not in error.outcome.stderr:  # another run made it meanwhile
                    raise
            listed = session.known.once.answers.get(LISTING)
            if isinstance(listed, dict):  # also an empty one, of a new lab
                listed[stack.reference] = pulumi.StackRow(name=stack.name)
        required = (setting.key for setting in service.secrets)
        for key in missing_keys(StackFile.read(stack.settings_file), stack.project, required):
            value = generate_secret()
            session.masker.register(value)
            with preserve(stack.settings_file):
                session.runner.check(pulumi.config_set_secret(stack, key, value))


def refresh_config(session: Session, stack: Stack) -> None:
    """Bring the lab's own copy of the stack config up to date with its template; real targets have no copy."""
    if not session.target.ephemeral:
        return
    if stack.config_file is None or stack.init_folder is None:
        raise Usage("the lab's target has no folder for stack configs", next_step="./inv lab.up")
    make_folder(stack.init_folder, CONFIGS)
    text, copied = read_text(stack.folder / "Pulumi.yaml"), stack.init_folder / "Pulumi.yaml"
    if not copied.exists() or read_text(copied) != text:
        write_atomically(copied, text, mode=0o600, next_step=STATE_FOLDER)
    template = stack.folder / f"Pulumi.{stack.name}.yaml"
    refresh_copy(template, stack.config_file, session.target.settings.get(stack.project, {}))


def config_file_of(session: Session, service: Service) -> Path:
    """The stack config; on the lab a private copy, brought up to date."""
    stack = session.stack(service)
    refresh_config(session, stack)
    return stack.settings_file


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Wait while another run makes the same stack and its secrets."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# Stack configs and environments that would send pulumi to another cluster


def read_settings(session: Session, stack: Stack) -> StackFile:
    """Read the stack config. Raises `Refused` if it points pulumi at another cluster than the target's."""
    file = StackFile.read(stack.settings_file)
    check_stack_settings(plain_settings(file.config), session.target, source=str(stack.settings_file))
    return file


def plain_settings(config: Mapping[str, object]) -> dict[str, str | None]:
    """The `config:` of a stack in the form for `check_stack_settings`: secrets (`{secure: …}`) become `None`."""
    return {
        str(key): None if isinstance(value, Mapping) and "secure" in value else str(value)
        for key, value in config.items()
    }


_STEERING = ("kubeconfig", "context", "cluster", "clusterIdentifier")


def check_stack_settings(
    settings: Mapping[str, str | None], target: Target, *, source: str, next_step: str = ""
) -> None:
    """Refuse `kubernetes:` settings that lead to another cluster than the target's.

    `settings` maps full keys to values, `None` where the value is secret. `source` is where they are set, and
    `next_step` how they are removed there, for the message. Raises `Refused`.
    """
    forgets = settings.get("kubernetes:deleteUnreachable", "false")
    if str(forgets).lower() != "false":
        raise Refused(
            f"kubernetes:deleteUnreachable in {source} is on: pulumi would forget every object while the cluster does "
            "not answer",
            expected="no such setting: existing objects stay in the state",
            next_step=next_step or f"remove kubernetes:deleteUnreachable from {source}",
        )
    # pulumi's provider takes these before KUBECONFIG, which the run sets.
    for name in _STEERING:
        key = f"kubernetes:{name}"
        if key not in settings:
            continue
        value = settings[key]
        if value is None:
            raise _disagrees(key, "a secret value, which cannot be compared", "no such setting", source, next_step)
        wanted = _wanted(name, settings, target)
        if not _agrees(name, value, wanted):
            found = repr(value) if len(value) < 200 else "a whole kubeconfig"
            expected = repr(wanted) if wanted else "no such setting, or kubernetes:context with the target's context"
            raise _disagrees(key, found, expected, source, next_step)


def check_opened(target: Target, opened: Opened, name: str) -> None:
    """Refuse the ESC environment `name`, opened, when it points pulumi at another cluster, by variable or setting.

    Also refuses variables that silently change what pulumi does. pulumi sets them in its own process, so the allow-list
    of a run's children does not remove them. Raises `Refused`.
    """
    next_step = f"remove it from environments/{name}.yaml, then ./inv esc.apply {name}"
    # The keys of `files` are variables too: each names a temporary file.
    variables, files = opened.variables, opened.under("files")
    unseen = sorted(filter(changes_pulumi_unseen, {*variables, *files}))
    if unseen:
        raise Refused(
            f"{', '.join(unseen)} in environmentVariables of {name} would change what pulumi does without being seen",
            expected="no such variable in an environment that a stack binds",
            next_step=next_step,
        )
    if "KUBECONFIG" in {*variables, *files}:
        is_file = "KUBECONFIG" in files
        raise _disagrees(
            "KUBECONFIG",
            "a file of its own" if is_file else repr(variables["KUBECONFIG"]),
            "no KUBECONFIG: the run gives pulumi its own, with the checked context alone",
            f"{'files' if is_file else 'environmentVariables'} of {name}",
            next_step,
        )
    config: dict[str, str | None] = {}
    for value in opened.values:
        if value.path[0] == "pulumiConfig" and len(value.path) > 1 and str(value.path[1]).startswith("kubernetes:"):
            # A whole kubeconfig may be given as a map.
            text = as_text(value.value) if len(value.path) == 2 else "a map or list of values"
            config[str(value.path[1])] = None if value.secret else text
    check_stack_settings(config, target, source=f"pulumiConfig of {name}", next_step=next_step)


def _wanted(name: str, settings: Mapping[str, str | None], target: Target) -> str:
    if name == "context":
        return target.context
    if name == "clusterIdentifier":
        return target.cluster_uid
    context = read_context(target.kubeconfig, target.context)
    if name == "cluster":
        return context.cluster_name
    # With a kubeconfig alone, its current context would decide.
    return str(target.kubeconfig) if settings.get("kubernetes:context") == target.context else ""


def _agrees(name: str, value: str, wanted: str) -> bool:
    if name == "kubeconfig" and wanted and "\n" not in value:
        return os.path.realpath(Path(value).expanduser()) == os.path.realpath(wanted)
    return bool(wanted) and value == wanted


def _disagrees(key: str, found: str, expected: str, source: str, next_step: str) -> OpsError:
    return Refused(
        f"{key} in {source} is {found}, so pulumi would not go to the cluster that was checked",
        expected=expected,
        next_step=next_step or f"remove {key} from {source}",
    )


# The environments that its config binds


def open_bound(session: Session, file: StackFile) -> list[Opened]:
    """Open and check the environments that a stack config binds, in its order.

    Raises `Usage` on a backend without ESC, before anything is started.
    """
    if not file.environment:
        return []
    about = f"{file.path.name} binds {', '.join(file.environment)}"
    refuse_without_esc(session.target, file.environment[0], about)
    return [open_checked(session, esc.read_entry(entry, session.target.organization)) for entry in file.environment]


def open_checked(session: Session, name: EnvironmentName) -> Opened:
    """Open the environment. Raises `Refused` if it would send pulumi to another cluster than the checked one."""
    opened = open_environment(session, name)
    check_opened(session.target, opened, name.short)
    return opened


def open_environment(session: Session, name: EnvironmentName) -> Opened:
    """Open it, and register every secret in it with the masker. Raises the error for its diagnostics."""
    outcome = session.runner.run(session.esc.open(name))
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


def check_values(session: Session, service: Service, file: StackFile, opened: Sequence[Opened]) -> None:
    """Raise `Usage` with every value that is missing or that the program would refuse.

    `opened` are the environments in the order in which they are bound; the stack config wins over them.
    """
    stack = session.stack(service)
    provided = [pair for environment in opened for pair in environment.settings.items()]
    config = {full_key(stack.project, key): as_text(value.value) for key, value in provided}
    secret = {full_key(stack.project, key) for key, value in provided if value.secret}
    if file.has_encrypted_values:
        values, secrets = pulumi.read_config(run_pulumi(session, pulumi.config_list(stack), stack))
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


def waits_for(session: Session, name: EnvironmentName) -> list[str]:
    """The services whose outputs the environment's file reads, and which have no outputs yet."""
    if name.short not in definitions.defined_names(session.root):
        return []
    document = definitions.read_definition(session.root, name)
    projects = {stack.project for stack in definitions.stacks_read(document)}
    read = [service for service in session.services if service.project_name in projects]
    return [service.name for service in read if not exports_of(session, service)]


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


def live_names(session: Session) -> list[EnvironmentName]:
    """The environments of the target's organization on its backend."""
    organization = session.target.organization
    return list(
        esc.read_list(esc.ask(session.runner, session.esc.ls(organization), None, session.masker.mask), organization)
    )


# The state of its stack: from a file backend, from the Pulumi Cloud, or through pulumi


def register_secrets(session: Session, stack: Stack, file: StackFile) -> None:
    """Register every secret of the stack's config and state with the masker. Raises the error for pulumi's failure.

    The values of bound environments are registered when they are opened.
    """
    if file.has_encrypted_values:
        # The cloud has no key of a config that has its own.
        found = (
            None if file.has_own_key else _from_cloud(session, lambda it: it.decrypt(stack.reference, file.ciphertexts))
        )
        if found is None:
            listed = run_pulumi(session, pulumi.config_list(stack), stack)
            session.masker.register_all(secrets_in_config(listed))
        else:
            session.masker.register_all(found.values())
    path = state_file(session, stack)
    # A plain state of a file backend can show that no value in it is secret, without a run of pulumi.
    if path is None or SECRET_SIGNATURE in path.read_text(encoding="utf-8"):
        clear_state(session, stack)


def has_stack(session: Session, stack: Stack) -> bool:
    """Whether the backend holds the stack. Raises the error for pulumi's failure."""
    # A file backend needs no process: the file exists or not. Any other backend is listed once a run.
    if session.target.file_backend is not None:
        return _find_file(session, stack) is not None
    return row_of(session, stack) is not None


def is_deployed(session: Session, stack: Stack) -> bool:
    """Whether the stack exists and its state holds resources: a preview on the lab leaves an empty one."""
    return has_stack(session, stack) and bool(state_of(session, stack).own_resources)


LISTING = "stacks"


def row_of(session: Session, stack: Stack) -> pulumi.StackRow | None:
    """The stack's line in the backend's list, which is read once a run. Raises the error for pulumi's failure."""

    def read() -> dict[str, pulumi.StackRow] | OpsError:
        try:
            rows = pulumi.read_stacks(run_pulumi(session, pulumi.stack_ls(stack), stack))
        except OpsError as error:
            return error  # that is not tried again for every service, as a silent server costs minutes
        return {row.reference(stack): row for row in rows}

    listed = session.known.once.read(LISTING, read)
    if isinstance(listed, OpsError):
        raise listed
    return listed.get(stack.reference)


def state_of(session: Session, stack: Stack, *, after_interrupt: bool = False) -> pulumi.Export:
    """Read the stack's state. Its secrets are ciphertext if it comes from a file, else plaintext.

    `after_interrupt`: also in a run that was interrupted.
    """
    path = state_file(session, stack)
    if path is not None:
        return pulumi.read_checkpoint(path.read_text(encoding="utf-8"))
    return clear_state(session, stack, after_interrupt=after_interrupt).export


def exports_of(session: Session, service: Service) -> Mapping[str, Any]:
    """The outputs of the service's stack, secrets as in `state_of`; empty without a stack."""
    stack = session.stack(service)
    return state_of(session, stack).outputs if has_stack(session, stack) else {}


def clear_state(session: Session, stack: Stack, *, after_interrupt: bool = False) -> ClearState:
    """The state with its secrets in plaintext, each registered with the masker before this returns.

    Raises the error for pulumi's failure.
    """
    with session.known.once.lock(stack.reference):
        found = session.known.states.get(stack.reference)
        if found is None:
            text = _from_cloud(session, lambda cloud: cloud.export(stack.reference))
            if text is None:
                text = run_pulumi(
                    session, pulumi.stack_export(stack, show_secrets=True), stack, after_interrupt=after_interrupt
                )
            session.masker.register_all(secrets_in_export(text))
            found = ClearState(export=pulumi.read_export(text), digest=hash_text(text))
            # A state file is read each time, which is fast and shows whether it changed.
            if session.target.file_backend is None:
                session.known.remember(stack, found)
        return found


def sealed_state(session: Session, stack: Stack) -> pulumi.Export:
    """The state with its secrets as ciphertext, which needs no key. Raises the error for pulumi's failure."""
    text = _from_cloud(session, lambda cloud: cloud.export(stack.reference, show_secrets=False))
    return pulumi.read_export(text or run_pulumi(session, pulumi.stack_export(stack), stack))


def _from_cloud(session: Session, read: Callable[[Cloud], Answer]) -> Answer | None:
    """The answer of the Pulumi Cloud, without a process; `None` if pulumi has to be run, which reports the reason."""

    def log_in() -> Cloud | None:
        url = session.target.backend
        token = token_for(url, session.env, Path(session.env["PULUMI_CREDENTIALS_PATH"]))
        session.masker.register_all([token] if token else [])
        return Cloud(url=url, token=token) if token else None

    if session.target.has_diy_backend:
        return None
    cloud = session.known.once.read("cloud", log_in)
    # Without an answer pulumi runs: it supports more logins and explains a failure (docs/decisions/0007).
    try:
        return read(cloud) if cloud is not None else None
    except NoAnswer:
        return None


def run_pulumi(session: Session, command: Command, stack: Stack, *, after_interrupt: bool = False) -> str:
    """The standard output of a command of pulumi. Raises the error for its failure.

    Of a confidential command the standard output is never shown. Its standard error contains no values when it fails,
    and is masked.
    """
    outcome = session.runner.run(command, after_interrupt=after_interrupt)
    if not outcome.ok:
        shown = session.masker.mask(outcome.stderr) if command.confidential else outcome.shown_stderr
        raise explain(replace(outcome, shown_stderr=shown), stack)
    return outcome.stdout


SUFFIXES = (".gz", ".zst", "")
"""Suffixes of a state file; the first two are of compressed ones."""


def state_file(session: Session, stack: Stack) -> Path | None:
    """The state on a file backend, if it can be read without pulumi: not compressed."""
    path = _find_file(session, stack)
    return path if path is not None and path.suffix == ".json" else None


def _find_file(session: Session, stack: Stack) -> Path | None:
    folder = session.target.file_backend
    if folder is None:
        return None
    stacks = folder / ".pulumi" / "stacks" / stack.project
    return next((path for suffix in SUFFIXES if (path := stacks / f"{stack.name}.json{suffix}").exists()), None)


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
