"""Connects a consumer to its producers' outputs: `wire` checks each link, `bind` binds an environment to a stack."""

from __future__ import annotations

from pathlib import Path

from runbooks.core.errors import NotFound, Usage, VerificationFailed
from runbooks.core.names import check_name
from runbooks.core.reporter import require_yes
from runbooks.stacks import environments
from runbooks.stacks.environments import apply_definitions
from runbooks.stacks.plan import RunPlan
from runbooks.stacks.preparation import (
    check_values,
    config_file_of,
    explain_missing,
    open_checked,
    outputs_of,
    prepare,
    read_settings,
    refuse_missing,
    run_pulumi,
    waits_for,
)
from runbooks.stacks.preview import plan_stack
from runbooks.stacks.service import Reference, Service, Setting
from runbooks.stacks.session import Session
from runbooks.stacks.summary import show_plan
from runbooks.tools import definitions, esc, pulumi
from runbooks.tools.esc import EnvironmentName, Opened, Value, property_path
from runbooks.tools.stack_config import StackFile, full_key, is_same, preserve, read_binding
from runbooks.tools.stack_config import bind as bind_in_config


def wire(session: Session, service: Service, *, yes: bool) -> None:
    """Check each link from the outputs of its producers to its preview; `yes` sets a missing link.

    Raises the error for the first broken link.
    """
    link = f"environment {service.environment}" if service.environment else "reference"
    steps = [f"outputs of {', '.join(service.reads_outputs_of)}", link, "settings", f"preview {service.name}"]
    if service.environment:
        environments.read_name(session, service.environment)
    session.reporter.announce(
        f"Wiring {service.name}: its producer's outputs, how they reach it, its settings, then its preview."
    )
    session.reporter.plan(steps)
    with session.reporter.step(steps[0]):
        check_outputs(session, service)
    with session.reporter.step(steps[1]):
        if service.environment:
            bind_environment(session, service, yes=yes)
        if service.reference:
            check_reference(session, service, service.reference, yes=yes)
    with session.reporter.step(steps[2]):
        refuse_missing(session, service, StackFile.read(config_file_of(session, service)), service.required)
        session.reporter.line(f"{service.name} has every setting that its program requires")
    show_preview(session, service, steps[3])


def check_outputs(session: Session, service: Service) -> None:
    """Raise `VerificationFailed` that names every output that is missing, its producer and its consumer."""
    for name in service.reads_outputs_of:
        outputs = outputs_of(session, name)
        # `a|b` is either
        choices = [text.split("|") for text in outputs_read(session, service, name)]
        wanted = [" or ".join(choice) for choice in choices]
        missing = [" or ".join(choice) for choice in choices if all(outputs.get(each) in (None, "") for each in choice)]
        if missing:
            problem = f"has no output {', '.join(missing)}" if outputs else "has no outputs yet"
            # The other side of a wrong name: the consumer's definition could read an output that exists.
            instead = f"; or environments/{service.environment}.yaml could read: {', '.join(sorted(outputs))}"
            raise VerificationFailed(
                f"{name} {problem}, and {service.name} reads {', '.join(wanted)}",
                expected=f"{name} exports them under these names, and was applied since"
                + (instead if service.environment and outputs else ""),
                next_step=f"./inv deploy.{name}, then ./inv outputs.{name}",
            )
        session.reporter.line(f"{name} exports {', '.join(wanted)}")


def outputs_read(session: Session, service: Service, producer: str) -> list[str]:
    """Names of the outputs that the service reads; `a|b` is either."""
    if service.reference:
        return list(service.reference.outputs)
    name = esc.read_name(service.environment, session.target.organization)
    document = definitions.read_definition(session.root, name)
    project = session.service(producer).project_name
    reads = [read for read in definitions.stacks_read(document) if read.project == project]
    return [output for read in reads for output in definitions.outputs_read(document, read)]


def check_reference(session: Session, service: Service, reference: Reference, *, yes: bool) -> None:
    """Check that the reference names the producer's stack on this target; a missing one is set after asking.

    Raises `VerificationFailed` for another stack, `NotApproved` without an approval.
    """
    stack = prepare(session, service)
    key = full_key(stack.project, reference.setting)
    wanted = session.stack(session.service(reference.producer)).reference
    found = read_settings(session, stack).config.get(key)
    if found in (None, ""):
        confirm_change(
            session, f"{key} is not set. Set it to {wanted} in {stack.settings_file.name}?", service, yes=yes
        )
        with preserve(stack.settings_file):
            run_pulumi(session, pulumi.config_set(stack, key, wanted), stack)
        session.reporter.line(f"{key} set to {wanted}")
    elif found != wanted:
        raise VerificationFailed(
            f"{key} is {found}, but {reference.producer} on this target is {wanted}",
            expected="a reference of three parts to the stack whose outputs exist",
            next_step=f"pulumi config set {key} {wanted} in pulumi/{service.folder}",
        )
    else:
        session.reporter.line(f"{key} is {wanted}")


def bind_environment(session: Session, service: Service, *, yes: bool) -> None:
    """Check that the environment opens and provides all required settings. Bind it, after asking, if necessary."""
    name = environments.read_name(session, service.environment)
    path, _ = open_for(session, service, name)
    if not any(is_same(entry, name.short) for entry in StackFile.read(path).environment):
        confirm_change(session, f"{path.name} does not bind {name.short}. Bind it?", service, yes=yes)
    if bind_in_config(path, name.short):
        session.reporter.line(f"{path.name} binds {name.short} now")


def confirm_change(session: Session, question: str, service: Service, *, yes: bool) -> None:
    """Raise `NotApproved` unless the target is the lab, `--yes` was given or the user agrees."""
    if not session.target.ephemeral and not yes:
        refusal = f"{service.name} was left as it is: the change was not approved"
        require_yes(session.reporter, question, refusal=refusal, again=f"./inv wire.{service.name}")


def bind(session: Session, name: EnvironmentName, consumer: Service) -> None:
    """Bind the environment to the consumer's stack config, once: open it, check what it provides, then preview."""
    steps = [f"open {name.short}", "bind", f"preview {consumer.name}"]
    session.reporter.announce(f"Binding {name.short} to the stack of {consumer.name}; then I preview that stack.")
    session.reporter.plan(steps)
    with session.reporter.step(steps[0]):
        path, opened = open_for(session, consumer, name)
    with session.reporter.step(steps[1]):
        changed = bind_in_config(path, name.short, name.version)
        session.reporter.line(f"{path.name}: {'binds it now' if changed else 'binds it already'}")
        provided = {full_key(consumer.project_name, key) for key in (opened.settings if opened else ())}
        for key in StackFile.read(path).config:
            if key in provided:
                session.reporter.line(f"  {key} is in {path.name} too, and wins over the environment")
    show_preview(session, consumer, steps[2])


def consumer_of(session: Session, name: EnvironmentName, service: str = "", *, task: str = "esc.bind") -> Service:
    """The service to bind: the named one, else the one that the environment is for. `task` is for the message."""
    if service:
        return session.service(service)
    owners = {entry.environment: entry for entry in session.services if entry.environment}
    list_with = f"./inv {task} {name.short} --service NAME"
    return owners[check_name("environment of a service", name.short, owners, list_with=list_with)]


def open_for(session: Session, service: Service, name: EnvironmentName) -> tuple[Path, Opened | None]:
    """Open the environment, in the version that the service's stack config binds, and check what it provides.

    Returns the stack config, and the opened environment; `None` while stacks that it reads have no outputs.
    """
    path = config_file_of(session, service)
    bound = as_bound(session, service, path, name)
    opened = open_unless_waiting(session, bound)
    if opened is not None:
        check_contract(session, bound, service, opened)
        check_values(session, service, StackFile.read(path), [opened])
    return path, opened


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


def open_unless_waiting(session: Session, name: EnvironmentName) -> Opened | None:
    """The opened environment, checked by the guard; `None`, with a message, while stacks that it reads have no outputs.

    The first preview after their deployment then opens and checks it.
    """
    waiting = waits_for(session, name)
    if not waiting:
        return open_or_apply(session, name)
    if name.version and environments.live_definition(session, name) is None:
        raise explain_missing(session, name)
    session.reporter.advice(
        f"{name.short} reads outputs of {', '.join(waiting)}, which has none yet: its values are checked "
        f"by the first preview after ./inv deploy.{waiting[0]}"
    )
    return None


def open_or_apply(session: Session, name: EnvironmentName) -> Opened:
    """Open and check the environment; on the lab apply its definition first if it does not exist."""
    try:
        return open_checked(session, name)
    except NotFound:
        if not session.target.ephemeral or name.version:
            raise
        apply_definitions(session, [name.short])
        return open_checked(session, name)


def show_preview(session: Session, service: Service, step: str) -> None:
    """Preview one stack alone and show what it would change. Raises the error for a failing preview."""
    with session.reporter.step(step):
        plan = plan_stack(session, service)
    show_plan(session, RunPlan(layers=((plan,),), target=session.target.name))


# What a consumer requires of its environment


def check_contract(session: Session, name: EnvironmentName, service: Service, opened: Opened) -> None:
    """Raise `Usage` with every config value of the service that the environment does not provide correctly."""
    settings = opened.settings
    required = {
        key: settings.get(key.key) or settings.get(full_key(service.project_name, key.key))
        for key in service.environment_keys
    }
    found = [_check_required(name, key, value, opened) for key, value in required.items()]
    found += [_check_stays_secret(value) for value in settings.values() if value not in required.values()]
    problems = list(filter(None, found))
    if problems:
        history = f"esc env version history {name.full.partition('@')[0]}"
        raise Usage(
            f"{name.shown} does not provide what {service.name} requires:\n  " + "\n  ".join(problems),
            expected=f"{len(required)} values below pulumiConfig, secret where the program declares them secret",
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
    if problem := _check_stays_secret(value):
        return problem
    if key.is_secret and not value.secret:
        return f"{path}: must be secret and is not; use `fn::secret`, or take it from a secret output"
    if value.secret and not key.is_secret:
        return f"{path}: is secret, but the program shows it in plaintext; give it without `fn::secret`"
    return ""


def _check_stays_secret(value: Value) -> str:
    if not value.becomes_plaintext:
        return ""
    return f"{value.shown_path}: a secret {value.kind} becomes plaintext in the config; wrap it in `fn::toString`"
