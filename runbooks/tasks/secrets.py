"""Secret settings of stacks: the value comes from a prompt or from standard input, never from an argument."""

from __future__ import annotations

from typing import Any

from invoke import task

from runbooks.collection import command_again


@task(
    name="set",
    help={
        "service": "The service the setting belongs to.",
        "key": "The setting, as the service declares it.",
        "generate": "Make a value of 32 letters and digits instead of asking for one.",
    },
)
def set_secret(c: Any, service: str, key: str, generate: bool = False) -> None:
    """Set a secret of the service's stack, from a prompt without echo or from standard input.

    Example: ./inv secrets.set postgres superuser_password --generate
    """
    from runbooks.core.errors import Usage
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks.preparation import find_stack, run_pulumi
    from runbooks.stacks.service import find_setting
    from runbooks.tools import pulumi
    from runbooks.tools.secret_values import generate_secret, read_value
    from runbooks.tools.stack_config import full_key, preserve

    wanted = find_service(service)
    setting = find_setting(wanted, key)
    if generate and not setting.generated:
        raise Usage(
            f"a generated value is not a valid {setting.about}",
            expected="the real value",
            next_step=f"./inv secrets.set {service} {key}",
        )
    with open_session(c, "secrets.set", cluster=False) as session:
        stack = find_stack(session, wanted)
        value = generate_secret() if generate else read_value(session.reporter, setting.key, setting.about)
        session.masker.register(value)
        with preserve(stack.settings_file):
            command = pulumi.config_set_secret(stack, full_key(stack.project, setting.key), value)
            run_pulumi(session, command, stack)
        file = stack.settings_file.name
        session.reporter.line(f"Set the secret {setting.key} of {wanted.name} in {file}, encrypted.")
        session.reporter.line(f"next: {command_again(c, f'preview.{wanted.name}')} shows what it would change")
