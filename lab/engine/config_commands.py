"""``config …``: a stack's settings."""

from __future__ import annotations

import math
import os
import re
import sys
from collections import Counter
from typing import Any

from lab.engine.failures import CommandFailed, UsageError
from lab.engine.passphrase import Crypter
from lab.engine.project import Setting, full_key, remove_setting, write_setting
from lab.engine.session import NO_ENVIRONMENTS, Session
from lab.engine.stack_commands import columns, say, say_json

_SECRET_KEY = re.compile(r"passwd|pass|password|pass phrase|secret|token", re.IGNORECASE)


def list_settings(session: Session, stack: str, *, as_json: bool, show_secrets: bool) -> None:
    project = session.project()
    name = session.stack_name(project, stack)
    settings = session.settings(project, name)
    crypter = _Lazily(session, stack)
    shown = {key: _shown(setting, crypter, show_secrets) for key, setting in settings.settings.items()}
    if as_json:
        say_json(
            {
                key: {**({} if value is None else {"value": value}), "secret": settings.settings[key].secret}
                for key, value in shown.items()
            }
        )
        return
    rows = [("KEY", "VALUE")]
    rows += [
        (key.removeprefix(f"{project.name}:"), "[secret]" if value is None else value) for key, value in shown.items()
    ]
    say(columns(rows))


class _Lazily:
    """The crypter of a stack's settings, derived when first called."""

    def __init__(self, session: Session, stack: str) -> None:
        self._session = session
        self._stack = stack

    def __call__(self) -> Crypter:
        project = self._session.project()
        name = self._session.stack_name(project, self._stack)
        settings = self._session.settings(project, name)
        manager = self._session.secrets_of_settings(settings, self._session.backend.read_latest(name))
        if manager is None:
            raise CommandFailed(f"{settings.path} has secrets and no encryptionsalt")
        return manager.crypter


def _shown(setting: Setting, crypter: _Lazily, show_secrets: bool) -> str | None:
    return setting.plain(crypter) if show_secrets or not setting.secret else None


def get(session: Session, stack: str, key: str, *, as_json: bool) -> None:
    """In clear, always."""
    project = session.project()
    name = session.stack_name(project, stack)
    setting = session.settings(project, name).settings.get(full_key(key, project.name))
    if setting is None:
        raise CommandFailed(f"configuration key '{key}' not found for stack '{name.stack}'")
    value = setting.plain(_Lazily(session, stack))
    if as_json:
        say_json({"value": value, "secret": setting.secret})
    else:
        say(value)


def set_value(session: Session, stack: str, key: str, value: str | None, *, secret: bool, plaintext: bool) -> None:
    """Without ``value`` it is read from standard input, one newline at its end is dropped."""
    project = session.project()
    name = session.stack_name(project, stack)
    key = full_key(key, project.name)
    if value is None:
        if sys.stdin.isatty():
            raise UsageError("the lab's stand-in for pulumi does not prompt: give the value on standard input")
        value = sys.stdin.read().removesuffix("\n")
    settings = session.settings(project, name)
    entry: Any = value
    if secret:
        entry = {"secure": session.secrets_for_writing(settings).crypter.encrypt(value)}
    elif not plaintext and looks_like_secret(key, value):
        raise CommandFailed(
            f"config value for '{key}' looks like a secret; rerun with --secret to encrypt it, or --plaintext if you "
            "meant to store in plaintext"
        )
    write_setting(settings.path, project.name, key, entry)


def looks_like_secret(key: str, value: str) -> bool:
    """A key named like a secret with a value too random for a word (the real CLI estimates it with zxcvbn)."""
    if not _SECRET_KEY.search(key.rsplit(":", 1)[-1]) or not value:
        return False
    letters = Counter(value)
    per_letter = -sum(number / len(value) * math.log2(number / len(value)) for number in letters.values())
    entropy = per_letter * len(value)
    return entropy >= 80 or (entropy >= 40 and per_letter >= 3)


def remove(session: Session, stack: str, key: str) -> None:
    project = session.project()
    name = session.stack_name(project, stack)
    remove_setting(session.settings_file(project, name), project.name, full_key(key, project.name))


def refuse_environments(session: Session, stack: str) -> None:
    session.stack_name(session.project(), stack)
    raise CommandFailed(NO_ENVIRONMENTS.format(host=os.uname().nodename))
