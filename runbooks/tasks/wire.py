"""`wire.<consumer>`: from a producer's outputs to its consumer's preview, one link after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import each_service
from runbooks.services import SERVICES

if TYPE_CHECKING:
    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session
    from runbooks.tools.esc import Opened

CONSUMERS = tuple(service for service in SERVICES if service.reference or service.environment)


@each_service(services=CONSUMERS)
def wire(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Follow the wiring of {service} from its producer's outputs to its preview; sets what is missing, after asking.

    --yes sets a missing reference or binding without asking, where nobody can be asked.
    """
    from runbooks.run import open_session
    from runbooks.stacks import apply, environments
    from runbooks.stacks.order import by_name

    service = by_name(SERVICES)[names[0]]
    link = f"environment {service.environment}" if service.environment else "reference"
    steps = [f"outputs of {', '.join(service.reads_outputs_of)}", link, "settings", f"preview {service.name}"]
    with open_session(c, f"wire.{service.name}") as session:
        if service.environment:
            environments.named(session, service.environment)
        session.reporter.announce(
            f"Wiring {service.name}: its producer's outputs, how they reach it, its settings, then its preview."
        )
        session.reporter.plan(steps)
        with session.reporter.step(steps[0]):
            producer_gives(session, service)
        with session.reporter.step(steps[1]):
            opened = environment_resolves(session, service, yes=yes) if service.environment else None
            if service.reference:
                reference_resolves(session, service, yes=yes)
        with session.reporter.step(steps[2]):
            settings_are_complete(session, service, opened)
        apply.show_preview(session, service, steps[3])


# What the producer gives


def producer_gives(session: Session, service: Service) -> None:
    """Raise `VerificationFailed` that names every output that is missing, its producer and its consumer."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.stacks import preview

    for name in service.reads_outputs_of:
        outputs = preview.outputs_of(session, name)
        wanted = outputs_wanted(session, service, name)
        missing = [text.replace("|", " or ") for text in wanted if not any_given(outputs, text)]
        if missing:
            said = "has no outputs yet" if not outputs else f"has no output {', '.join(missing)}"
            raise VerificationFailed(
                f"{name} {said}, and {service.name} reads {', '.join(text.replace('|', ' or ') for text in wanted)}",
                expected=f"{name} exports them under these names, and was applied since{instead(service, outputs)}",
                next_step=f"./inv deploy.{name}, then ./inv outputs.{name}",
            )
        session.reporter.line(f"{name} gives {', '.join(text.replace('|', ' or ') for text in wanted)}")


def instead(service: Service, outputs: dict[str, object]) -> str:
    """The consumer's side of a name that does not fit: its definition could read one that is there."""
    if not (service.environment and outputs):
        return ""
    return f"; or environments/{service.environment}.yaml reads what is there: {', '.join(sorted(outputs))}"


def outputs_wanted(session: Session, service: Service, producer: str) -> list[str]:
    """Names of the outputs that the service reads; `a|b` is either."""
    from runbooks.stacks import definitions
    from runbooks.stacks.order import by_name
    from runbooks.tools import esc

    if service.reference:
        return list(service.reference.outputs)
    name = esc.read_name(service.environment, session.target.organization)
    document = definitions.read_definition(session.root, name)
    project = by_name(SERVICES)[producer].project_name
    return [
        output
        for read in definitions.stacks_read(document)
        if read.project == project
        for output in definitions.outputs_read(document, read)
    ]


def any_given(outputs: dict[str, object], names: str) -> bool:
    return any(outputs.get(name) not in (None, "") for name in names.split("|"))


# How it reaches the consumer


def reference_resolves(session: Session, service: Service, *, yes: bool) -> None:
    """The reference names the producer's stack on this target; a missing one is set after asking.

    Raises `VerificationFailed` for another stack, `NotApproved` when nobody agreed to set it.
    """
    from runbooks.core.errors import VerificationFailed
    from runbooks.stacks.guard import read_settings
    from runbooks.stacks.order import by_name
    from runbooks.stacks.preparation import prepare
    from runbooks.tools import pulumi
    from runbooks.tools.failures import explain
    from runbooks.tools.stack_config import full_key, kept

    if service.reference is None:
        return
    stack = prepare(session, service)
    key = full_key(stack.project, service.reference.setting)
    wanted = session.stack(by_name(SERVICES)[service.reference.producer]).reference
    found = read_settings(session, stack).config.get(key)
    if found in (None, ""):
        agreed(session, f"{key} is not set. Set it to {wanted} in {stack.settings_file.name}?", service, yes=yes)
        with kept(stack.settings_file):
            done = session.runner.run(pulumi.config_set(stack, key, wanted))
            if not done.ok:
                raise explain(done, stack)
        session.reporter.line(f"{key} set to {wanted}")
    elif found != wanted:
        raise VerificationFailed(
            f"{key} is {found}, but {service.reference.producer} on this target is {wanted}",
            expected="a reference of three parts to the stack whose outputs are there",
            next_step=f"pulumi config set {key} {wanted} in pulumi/{service.folder}",
        )
    else:
        session.reporter.line(f"{key} is {wanted}")


def environment_resolves(session: Session, service: Service, *, yes: bool) -> Opened:
    """The environment opens, provides what is required, and is bound once; a missing binding is made after asking."""
    from runbooks.stacks import environments
    from runbooks.tools import binding

    name = environments.named(session, service.environment)
    opened = environments.opened_or_applied(session, name)
    environments.check_opened(session, opened, name)
    environments.check_contract(session, name, service, opened)
    path = environments.settings_of(session, service)
    if not environments.bound_by(session, [service], name):
        agreed(session, f"{path.name} does not bind {name.short}. Bind it?", service, yes=yes)
    if binding.bind(path, name.short):
        session.reporter.line(f"{path.name} binds {name.short} now")
    return opened


def agreed(session: Session, question: str, service: Service, *, yes: bool) -> None:
    """Raise `NotApproved` unless a person, `--yes` or the lab agrees."""
    from runbooks.core.errors import NotApproved

    if session.target.ephemeral or yes or session.reporter.ask_yes(question):
        return
    raise NotApproved(
        f"{service.name} was left as it is: nobody agreed to the change",
        expected="y at the question, or --yes where nobody can be asked",
        next_step=f"./inv wire.{service.name}",
    )


# What else it requires


def settings_are_complete(session: Session, service: Service, opened: Opened | None) -> None:
    """Raise `Usage` that names every required setting without a value, secret ones with how to set them."""
    from runbooks.core.errors import Usage
    from runbooks.stacks.preparation import prepare
    from runbooks.tools.stack_config import StackFile, full_key, missing_keys

    stack = prepare(session, service)
    file = StackFile.read(stack.settings_file)
    secret = [setting.key for setting in service.secrets]
    provided = {full_key(stack.project, key) for key in (opened.settings if opened else ())}
    missing = [key for key in missing_keys(file, stack.project, [*service.required, *secret]) if key not in provided]
    if missing:
        first = missing[0].removeprefix(f"{stack.project}:")
        by_hand = f"pulumi config set {missing[0]} VALUE in pulumi/{service.folder}"
        how = f"./inv secrets.set {service.name} {first}" if first in secret else by_hand
        raise Usage(
            f"{service.name} lacks {', '.join(missing)}",
            expected=f"every required setting in {stack.settings_file.name}",
            next_step=how,
        )
    session.reporter.line(f"{service.name} has every setting that its program requires")
