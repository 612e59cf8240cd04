"""Secret settings of stacks: the declared ones, and the value from a prompt or from standard input."""

from __future__ import annotations

from runbooks.core.errors import Usage
from runbooks.core.names import check_name
from runbooks.core.reporter import Reporter
from runbooks.stacks.service import Service, Setting

LONGEST = 1_000_000
"""Characters of a value; more is a mistake, such as the wrong file piped in."""


def find_setting(service: Service, key: str) -> Setting:
    """The declared secret called `key`, with or without its namespace. Raises `NotFound` with the nearest names.

    Raises `Usage` where the service's secrets are in its ESC environment: in the stack config they would win over it.
    """
    bare = key.removeprefix(f"{service.project_name}:")
    if service.environment and not service.secrets:
        own = [entry.key for entry in service.environment_keys if entry.is_secret and ":" not in entry.key]
        set_it = f"./inv esc.set {service.environment} pulumiConfig."
        list_with = f"./inv esc.open {service.environment}; {set_it}<name> sets one"
        check_name(f"secret of {service.name}", bare, own, list_with=list_with)
        raise Usage(
            f"{service.name} takes its secrets from the environment {service.environment}, and not from its stack "
            "config",
            expected="the value set there",
            next_step=f"{set_it}{bare}",
        )
    by_key = {setting.key: setting for setting in service.secrets}
    return by_key[check_name(f"secret setting of {service.name}", bare, by_key, list_with="./inv doctor")]


def read_value(reporter: Reporter, key: str, about: str) -> str:
    """Read a secret that can be stored, from a prompt or from standard input, as `Reporter.read_secret` does.

    Raises `Usage` for an empty value, and for one that is absurdly long or contains a NUL.
    """
    value = reporter.read_secret(f"{key} ({about}), not shown: ", LONGEST)
    if not value.strip():
        raise Usage(f"the value for {key} is empty; nothing was set", expected="a value at the prompt or piped in")
    if len(value) > LONGEST or "\0" in value:
        raise Usage(f"the value for {key} cannot be stored", expected=f"text of at most {LONGEST} characters")
    return value
