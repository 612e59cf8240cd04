"""Secret settings of stacks: the value comes from a prompt or from standard input, never from an argument."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from runbooks.stacks.service import SecretSetting, Service

LONGEST = 1_000_000
"""Characters of a value; more is a mistake, such as the wrong file piped in."""


@task(
    name="set",
    help={
        "service": "The service the setting belongs to.",
        "key": "The setting, as the service declares it.",
        "generate": "Make a value of 32 letters and digits instead of asking for one.",
    },
)
def set_secret(c: Any, service: str, key: str, generate: bool = False) -> None:
    """Set a secret of the service's stack, from a prompt without echo or from standard input."""
    from runbooks.core.errors import NotFound, Usage
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks import states
    from runbooks.stacks.preparation import generated_secret, prepare
    from runbooks.stacks.states import has_stack
    from runbooks.tools import pulumi
    from runbooks.tools.stack_config import full_key, kept

    wanted = find_service(service)
    setting = known_setting(wanted, key)
    if generate and not setting.generated:
        raise Usage(
            f"a made-up value is no {setting.about}",
            expected="the real value",
            next_step=f"./inv secrets.set {service} {key}",
        )
    with open_session(c, "secrets.set", cluster=False) as session:
        stack = prepare(session, wanted) if session.target.ephemeral else session.stack(wanted)
        if not has_stack(session, stack):
            raise NotFound(
                f"{wanted.name} has no stack {stack.name!r} on {session.target.shown_backend}",
                expected=f"the stack {stack.reference}",
                next_step=f"./inv --target {session.target.name} stack.init {wanted.name}",
            )
        value = generated_secret() if generate else asked_for(setting)
        session.masker.register(value)
        with kept(stack.settings_file):
            done = session.runner.run(pulumi.config_set_secret(stack, full_key(stack.project, setting.key), value))
            if not done.ok:
                raise states.explain_confidential(session, done, stack)
        where = stack.settings_file.name
        session.reporter.line(f"Set the secret {setting.key} of {wanted.name} in {where}, encrypted.")


def known_setting(service: Service, key: str) -> SecretSetting:
    """The declared secret called `key`, with or without its namespace. Raises `NotFound` with the nearest names."""
    from runbooks.core.names import known
    from runbooks.tools.stack_config import full_key

    refuse_those_of_environment(service, key)
    by_key = {setting.key: setting for setting in service.secrets}
    by_full_key = {full_key(service.project_name, setting.key): setting for setting in service.secrets}
    if key in by_full_key:
        return by_full_key[key]
    return by_key[known(f"secret setting of {service.name}", key, by_key, list_with="./inv doctor")]


def refuse_those_of_environment(service: Service, key: str) -> None:
    """Raise `Usage` where the service's secrets are in its ESC environment: in the stack file they would win over it.

    Raises `NotFound` when the environment has none of that name either.
    """
    from runbooks.core.errors import Usage
    from runbooks.core.names import known

    if service.secrets or not service.environment:
        return
    own = [entry.key for entry in service.environment_keys if entry.is_secret and ":" not in entry.key]
    setting = f"./inv esc.set {service.environment} pulumiConfig."
    bare = known(
        f"secret of {service.name}",
        key.removeprefix(f"{service.project_name}:"),
        own,
        list_with=f"./inv esc.open {service.environment}; {setting}<name> sets one",
    )
    raise Usage(
        f"{service.name} takes its secrets from the environment {service.environment}, and not from its stack file",
        expected="the value set there",
        next_step=f"{setting}{bare}",
    )


def asked_for(setting: SecretSetting) -> str:
    """The value: typed twice without echo on a terminal, else all of standard input without its last newline.

    Raises `Usage` for an empty or an absurdly long one, or one that cannot be kept as text.
    """
    value = typed(setting.key, setting.about) if sys.stdin.isatty() else piped()
    return checked(value, setting.key)


def checked(value: str, key: str) -> str:
    from runbooks.core.errors import Usage

    if not value.strip():
        raise Usage(
            f"the value for {key} is empty", expected="a value at the prompt or on standard input; nothing was set"
        )
    if len(value) > LONGEST or "\0" in value:
        raise Usage(
            f"the value for {key} is not one a setting can hold", expected=f"text of at most {LONGEST} characters"
        )
    return value


def typed(key: str, about: str) -> str:
    """A value typed twice without echo. Raises `Usage` when the two differ, `NotApproved` at the end of input."""
    import getpass

    from runbooks.core.errors import NotApproved, Usage

    try:
        first = getpass.getpass(f"{key} ({about}), not shown: ")
        again = getpass.getpass("the same again: ") if first else first
    except EOFError:
        raise NotApproved("no value was typed; nothing was set", expected="a value at the prompt") from None
    if first != again:
        raise Usage("the two values differ; nothing was set", expected="the same value twice")
    return first


def piped() -> str:
    """All of standard input without its last newline. Raises `Usage` when it is no text."""
    from runbooks.core.errors import Usage

    raw = sys.stdin.buffer.read(LONGEST + 2)
    try:
        value = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Usage("standard input is not UTF-8 text; nothing was set", expected="the value as text") from None
    return value.removesuffix("\n").removesuffix("\r")
