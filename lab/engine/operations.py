"""preview, up, refresh and destroy: from a command's options to an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, TextIO

from lab.engine.backend import Run, RunRequest, StackName
from lab.engine.cancellation import CancellationToken
from lab.engine.deployment import Deployment, Stopped
from lab.engine.display import SECRET_TEXT, Display, EventSink, SecretFilter
from lab.engine.events import Diagnostic, Emit, Ended, Notice, Prelude, Summary
from lab.engine.failures import (
    ChangesProposed,
    CommandFailed,
    NotSupported,
    OperationFailed,
    StackNotFound,
    UsageError,
)
from lab.engine.guard import check_cluster
from lab.engine.hosting import Host, ProviderRegistry
from lab.engine.journal import Journal
from lab.engine.program import ALREADY_TOLD, Program
from lab.engine.project import Project, Setting, StackSettings, effective_settings, full_key, write_setting
from lab.engine.secrets_manager import SecretsManager, ciphertexts_in
from lab.engine.session import Session
from lab.engine.state import Snapshot, decode, decode_deployment, encode_deployment
from lab.engine.urns import ROOT_STACK_TYPE, make_urn
from lab.engine.values import PropertyMap, Secret, Value, has_secrets

_CONFIRM = "--yes or --skip-preview or --preview-only must be passed in to proceed when running in non-interactive mode"


@dataclass(frozen=True)
class Options:
    """Of one operation; ``kind`` is update, refresh or destroy."""

    kind: str
    stack: str = ""
    preview_only: bool = False
    skip_preview: bool = False
    yes: bool = False
    json: bool = False
    output_json: bool = False
    diff: bool = False
    expect_no_changes: bool = False
    show_secrets: bool = False
    show_replacement_steps: bool = False
    suppress_outputs: bool = False
    refresh: bool = False
    clear_pending_creates: bool = False
    remove: bool = False
    message: str = ""
    parallel: int = 0
    config: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Everything an operation has looked up before it starts."""

    session: Session
    project: Project
    name: StackName
    settings: StackSettings
    chosen: Mapping[str, Setting]
    values: Mapping[str, str]
    secret_keys: tuple[str, ...]
    secrets: SecretsManager
    deployment: Mapping[str, Any]
    snapshot: Snapshot
    secret_texts: tuple[str, ...] = ()
    """Of the environment variables and files of ESC environments, and of lists and maps in the settings."""

    @property
    def hidden(self) -> SecretFilter:
        return SecretFilter([*(self.values[key] for key in self.secret_keys), *self.secret_texts])


def run_operation(session: Session, options: Options) -> None:
    """Raises ``CommandFailed`` for every end but success."""
    if not (options.preview_only or options.yes or options.skip_preview):
        raise UsageError(_CONFIRM)
    project = session.project()
    name = session.stack_name(project, options.stack)
    _save_settings(session, project, name, options)
    with _interruptible(), _with_environments(session, project, name) as opened:
        _run_all(opened, project, name, options)
    if options.remove:
        session.backend.remove_stack(name)


@contextlib.contextmanager
def _with_environments(session: Session, project: Project, name: StackName) -> Iterator[Session]:
    """With the variables and files of the stack's ESC environments, for this process and the program."""
    settings = session.settings(project, name)
    if not settings.environments:
        yield session
        return
    from lab.engine.environments import Files

    environment = session.opened(settings)
    with Files(environment.files) as files:
        yield session.with_variables({**environment.variables, **files})


def _run_all(session: Session, project: Project, name: StackName, options: Options) -> None:
    with _early_program(session, project, options) as program_slot:
        if options.preview_only:
            _run_once(_prepare(session, project, name), options, preview=True, program_slot=program_slot)
            return
        with session.backend.locked(name):
            work = _prepare(session, project, name)
            if not options.skip_preview:
                _run_once(work, options, preview=True, program_slot=program_slot)
                work = _prepare(session, project, name)
            _run_once(work, options, preview=False, program_slot=program_slot)


def _save_settings(session: Session, project: Project, name: StackName, options: Options) -> None:
    """``--config``: written to the settings file, as the real CLI does."""
    for setting in options.config:
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"--config must be given as <key>=<value>, not '{setting}'")
        write_setting(session.settings_file(project, name), project.name, full_key(key, project.name), value)


# -- the program, started before it is needed ----------------------------------------------------------------------


class _ProgramSlot:
    """Starts the program's process and keeps what it prints until the run is ready to show it."""

    def __init__(self, start: Callable[[Callable[[str, bool], None]], Program] | None) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._emit: Emit | None = None
        self._kept: list[Diagnostic] = []
        self._started: Program | None = None
        self._running: Program | None = None
        if start is not None:
            self._started = start(self._on_line)

    def take(self, emit: Emit) -> Program | None:
        """The waiting process, or a new one for the second of two runs; ``None`` when there is no program to run."""
        if self._start is None:
            return None
        with self._lock:
            self._emit = emit
            kept, self._kept = self._kept, []
        for event in kept:
            emit(event)
        program, self._started = self._started, None
        self._running = program if program is not None else self._start(self._on_line)
        return self._running

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def _on_line(self, line: str, is_error: bool) -> None:
        event = Diagnostic("", line, "info#err" if is_error else "info")
        with self._lock:
            emit = self._emit
            if emit is None:
                self._kept.append(event)
                return
        emit(event)

    def close(self) -> None:
        if self._started is not None:
            self._started.stop()


@contextlib.contextmanager
def _early_program(session: Session, project: Project, options: Options) -> Iterator[_ProgramSlot]:
    start = None
    if options.kind == "update":

        def start(on_line: Callable[[str, bool], None]) -> Program:
            return Program(project, session.environment, on_line)

    slot = _ProgramSlot(start)
    try:
        yield slot
    finally:
        slot.close()


# -- preparation ---------------------------------------------------------------------------------------------------


def _prepare(session: Session, project: Project, name: StackName) -> Work:
    settings = session.settings(project, name)
    environment = session.opened(settings)
    deployment = session.backend.read_latest(name)
    try:
        secrets = session.secrets_of_settings(settings, deployment, name) or session.secrets_for_writing(settings, name)
        crypter = secrets.crypter
    except CommandFailed as error:
        raise CommandFailed(f"getting stack configuration: get stack secrets manager: {error}") from error
    crypter.preload(ciphertexts_in([setting.raw for setting in settings.settings.values()]))
    chosen = effective_settings(project, name.stack, settings, environment.settings(project.name, crypter.encrypt))
    values = {key: setting.plain(lambda: crypter) for key, setting in chosen.items()}
    check_cluster(session.environment, values)
    secret_keys = tuple(key for key, setting in chosen.items() if setting.secret)
    snapshot = _snapshot(session, deployment, secrets)
    inner = [crypter.decrypt(text) for text in ciphertexts_in([setting.raw for setting in chosen.values()])]
    hidden = (*environment.secret_texts, *inner)
    return Work(session, project, name, settings, chosen, values, secret_keys, secrets, deployment, snapshot, hidden)


def _snapshot(session: Session, deployment: dict[str, Any], secrets: SecretsManager) -> Snapshot:
    """Decrypted by what the state says it was encrypted with; to be written with ``secrets``."""
    own = deployment.get("secrets_providers")
    crypter = secrets.crypter
    if own and own != secrets.document:
        crypter = session.crypter_of_state(deployment) or crypter
    crypter.preload(ciphertexts_in(deployment))
    snapshot = decode_deployment(deployment, crypter.decrypt)
    snapshot.secrets_provider = secrets.document
    return snapshot


# -- one run -------------------------------------------------------------------------------------------------------


def _run_once(work: Work, options: Options, *, preview: bool, program_slot: _ProgramSlot) -> None:
    started = time.monotonic()
    sink = EventSink(_display(work, options, preview=preview), work.hidden)
    token = CancellationToken()
    losses: list[str] = []

    def lost(why: str) -> None:
        losses.append(why)
        sink(Diagnostic("", f"{why}\n", "error", "error: "))
        token.cancel()

    with _signals(token, sink, preview=preview, terminate=program_slot.kill):
        sink(Prelude({key: SECRET_TEXT if key in work.secret_keys else work.values[key] for key in work.values}))
        with work.session.backend.run(_request(work, options, preview=preview), lost) as run:
            sink.listen(run.tell)
            work = _on_what_is_there(work, run)
            deployment, journal = _deployment(work, options, preview=preview, sink=sink, token=token, run=run)
            try:
                _carry_out(work, options, deployment, journal, program_slot, sink)
            finally:
                deployment.registry.close()
            if not preview:
                with contextlib.suppress(Stopped):
                    journal.flush()
            deployment.failed = deployment.failed or bool(losses)
            seconds = time.monotonic() - started
            result = _conclude(deployment, sink, preview=preview, seconds=seconds, token=token)
            run.finish(result, _history_entry(work, options, deployment, result, seconds))
    _raise_for(deployment, options, result, preview=preview)


def _on_what_is_there(work: Work, run: Run) -> Work:
    """The state may be another one than when it was read, if the back end holds it only since the run began."""
    deployment = run.state()
    if deployment is None or deployment == work.deployment:
        return work
    return replace(work, deployment=deployment, snapshot=_snapshot(work.session, deployment, work.secrets))


def _request(work: Work, options: Options, *, preview: bool) -> RunRequest:
    return RunRequest(
        work.name,
        options.kind,
        preview,
        message=options.message,
        environment=_circumstances(work, options),
        config={key: setting.raw for key, setting in work.chosen.items()},
        hidden=work.hidden,
    )


def _circumstances(work: Work, options: Options) -> dict[str, str]:
    """What a history entry says of how the command was run."""
    found = {"exec.kind": "cli", "pulumi.version": _version(), **options.flags}
    if work.settings.environments:
        from lab.engine.environments import metadata

        found["stack.environments"] = metadata(work.settings.environments)
    return found


def _display(work: Work, options: Options, *, preview: bool) -> Display:
    out: TextIO = sys.stdout
    if options.output_json or options.json:
        from lab.engine.display.documents import Digest, EventStream, SummaryLine

        if options.output_json:
            return SummaryLine(out)
        if options.preview_only:
            return Digest(out, work.hidden, halves=options.show_replacement_steps)
        return EventStream(out, work.hidden)
    from lab.engine.display.text import Difference, Progress, title_of

    root = make_urn(work.name.stack, work.project.name, "", ROOT_STACK_TYPE, f"{work.project.name}-{work.name.stack}")
    title = title_of(options.kind, preview=preview, stack=work.name.stack, end=work.session.backend.title_end)
    if options.diff:
        return Difference(
            out,
            sys.stderr,
            work.hidden,
            preview=preview,
            title=title,
            root_urn=root,
            show_secrets=options.show_secrets,
        )
    return Progress(
        out,
        work.hidden,
        kind=options.kind,
        preview=preview,
        title=title,
        root_urn=root,
        show_secrets=options.show_secrets,
        show_outputs=not options.suppress_outputs,
    )


def _deployment(
    work: Work, options: Options, *, preview: bool, sink: EventSink, token: CancellationToken, run: Run
) -> tuple[Deployment, Journal]:
    name, encrypt = work.name, work.secrets.crypter.encrypt

    def save(snapshot: Snapshot) -> None:
        try:
            run.save(encode_deployment(snapshot, encrypt))
        except OperationFailed as error:
            raise Stopped from error

    journal = Journal(work.snapshot, None if preview else save)
    folder = str(work.project.program()[0]) if options.kind == "update" else str(work.project.folder)
    host = Host(project=work.project.name, stack=name.stack, program_folder=folder, cancellation=token, emit=sink)
    deployment = Deployment(
        stack=name.stack,
        project=work.project.name,
        journal=journal,
        registry=ProviderRegistry(host),
        preview=preview,
        emit=sink,
        cancellation=token,
        settings={key: _provider_setting(work, key) for key in work.values},
        read_stack=lambda reference: _read_other_stack(work.session, work.project, reference),
        parallel=options.parallel or int(work.session.environment.get("PULUMI_PARALLEL") or 16),
    )
    return deployment, journal


def _provider_setting(work: Work, key: str) -> Value:
    value = work.values[key]
    return Secret(value) if key in work.secret_keys else value


def _read_other_stack(session: Session, project: Project, reference: str) -> tuple[PropertyMap, list[str]] | None:
    """Outputs of a stack of the same back end, for a stack reference; ``None`` when it is not there."""
    name = session.backend.read_reference(reference, project.name)
    try:
        deployment = session.backend.read_latest(name)
    except StackNotFound:
        return None
    outputs = raw_outputs(deployment)
    if not outputs:
        return {}, []
    crypter = session.crypter_of_state(deployment)
    if crypter is not None:
        crypter.preload(ciphertexts_in(outputs))

    def decrypt(text: str) -> str:
        if crypter is None:
            raise CommandFailed(f"stack {name.qualified} has secrets and no secrets provider")
        return crypter.decrypt(text)

    values = {key: decode(value, decrypt) for key, value in outputs.items()}
    return values, sorted(key for key, value in values.items() if has_secrets(value))


def raw_outputs(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The root stack's outputs, secrets still encrypted."""
    for resource in deployment.get("resources") or ():
        if resource.get("type") == ROOT_STACK_TYPE and not resource.get("delete"):
            outputs = resource.get("outputs") or {}
            return outputs if isinstance(outputs, dict) else {}
    return {}


def _carry_out(
    work: Work, options: Options, deployment: Deployment, journal: Journal, slot: _ProgramSlot, sink: EventSink
) -> None:
    with contextlib.suppress(Stopped):
        if options.kind == "refresh" or options.refresh:
            _refresh(options, deployment, journal)
        if options.kind == "update":
            deployment.warn_pending()
            _run_program(work, deployment, journal, slot, sink, options)
        elif options.kind == "destroy":
            from lab.engine.deleting import delete_left_over

            deployment.warn_pending()
            journal.forget_interrupted(keep_creates=True)
            delete_left_over(deployment, journal)


def _refresh(options: Options, deployment: Deployment, journal: Journal) -> None:
    from lab.engine.refreshing import refresh

    snapshot = refresh(deployment, journal, quiet=options.kind != "refresh")
    journal.base = snapshot
    journal.changed()
    journal.forget_interrupted(keep_creates=not options.clear_pending_creates)
    deployment.use_base()


def _run_program(
    work: Work, deployment: Deployment, journal: Journal, slot: _ProgramSlot, sink: EventSink, options: Options
) -> None:
    program = slot.take(_told_while_open(deployment, sink))
    if program is None:
        return
    try:
        from lab.engine.deleting import delete_left_over
        from lab.engine.monitor import Monitor

        monitor = Monitor(deployment, organization=work.name.organization)
        try:
            program.run(_order(work, deployment, monitor.serve(), options))
            code = _await_program(deployment, monitor, program)
            monitor.wait_idle()
            if code is None or _has_succeeded(deployment, code):
                journal.forget_interrupted(keep_creates=True)
                delete_left_over(deployment, journal)
                if code is None and not deployment.failed:
                    _has_succeeded(deployment, program.wait() or 0)
            deployment.finish_root()
        finally:
            monitor.close()
    finally:
        program.stop()


def _told_while_open(deployment: Deployment, sink: EventSink) -> Emit:
    """After a failure the program is cut off, and what it says of that is noise."""

    def emit(event: Any) -> None:
        if not (deployment.failed or deployment.cancellation.is_cancelled):
            sink(event)

    return emit


def _order(work: Work, deployment: Deployment, address: str, options: Options) -> dict[str, Any]:
    return {
        "monitor": address,
        "engine": address,
        "project": work.project.name,
        "stack": work.name.stack,
        "organization": work.name.organization,
        "parallel": options.parallel or 16,
        "dry_run": deployment.preview,
        "config": dict(work.values),
        "secret_keys": list(work.secret_keys),
    }


def _await_program(deployment: Deployment, monitor: Any, program: Program) -> int | None:
    """Exit code of a program that ended early, ``None`` when it has registered everything."""
    while True:
        if monitor.finished.wait(0.02):
            return None
        code = program.poll()
        if code is not None and not monitor.finished.is_set():
            program.wait()
            return code
        if deployment.failed or deployment.cancellation.is_cancelled:
            monitor.wait_idle()
            program.stop()
            return 1


def _has_succeeded(deployment: Deployment, code: int) -> bool:
    if deployment.failed or deployment.cancellation.is_cancelled:
        return False
    if code == 0:
        return True
    if code != ALREADY_TOLD:
        text = f"an unhandled error occurred: program exited with non-zero exit code: {code}\n"
        deployment.emit(Diagnostic("", text, "error", "error: "))
    deployment.program_failed = True
    deployment.failed = True
    return False


def _conclude(
    deployment: Deployment, sink: EventSink, *, preview: bool, seconds: float, token: CancellationToken
) -> str:
    if token.is_cancelled and not deployment.failed:
        sink(Diagnostic("", f"{'preview' if preview else 'update'} canceled\n", "error", "error: "))
        deployment.failed = True
    elif deployment.failed and not deployment.program_failed:
        sink(Diagnostic("", f"{'preview' if preview else 'update'} failed\n", "error", "error: "))
    result = "failed" if deployment.failed else "succeeded"
    sink(Summary(dict(deployment.changes), preview, result, seconds))
    sink(Ended())
    return result


def _raise_for(deployment: Deployment, options: Options, result: str, *, preview: bool) -> None:
    if deployment.failed:
        raise OperationFailed(NotSupported.exit_code if deployment.not_supported else 1)
    changed = any(number for op, number in deployment.changes.items() if op != "same")
    if options.expect_no_changes and changed and result == "succeeded":
        verb = {"update": "preview" if preview else "update"}.get(options.kind, options.kind)
        proposed = "proposed" if preview else "made"
        raise ChangesProposed(f"no changes were expected for {verb} but changes were {proposed}")


def _history_entry(work: Work, options: Options, deployment: Deployment, result: str, seconds: float) -> dict[str, Any]:
    ended = time.time()
    return {
        "kind": options.kind,
        "startTime": int(ended - seconds),
        "message": options.message,
        "environment": _circumstances(work, options),
        "config": {key: setting.raw for key, setting in work.settings.settings.items()},
        "result": result,
        "endTime": int(ended),
        "resourceChanges": dict(sorted(deployment.changes.items())),
    }


def _version() -> str:
    from lab.engine import VERSION

    return VERSION


# -- signals -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Before and after a run SIGTERM ends the command as SIGINT does: through every clean-up."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _signals(
    token: CancellationToken, sink: EventSink, *, preview: bool, terminate: Callable[[], None]
) -> Iterator[None]:
    """The first SIGINT or SIGTERM cancels, the second ends the process at once."""

    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            # No clean-up: pending operations and the lock stay and say that something may be under way.
            terminate()
            os._exit(1)
        threading.Thread(target=_cancel, args=(number, token, sink, preview), daemon=True).start()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _cancel(number: int, token: CancellationToken, sink: EventSink, preview: bool) -> None:
    again, received = ("press ^C again", "^C") if number == signal.SIGINT else ("send SIGTERM again", "SIGTERM")
    text = f"{received} received; cancelling. If you would like to terminate immediately, {again}.\n"
    if not preview:
        text += "Note that terminating immediately may lead to orphaned resources and other inconsistencies.\n"
    sink(Notice(text))
    token.cancel()
