"""``config …``: a stack's settings."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab.engine.backend import StackName
from lab.engine.environments import Environment
from lab.engine.failures import CommandFailed, UsageError
from lab.engine.project import Setting, StackSettings, full_key, overlay, remove_setting, write_setting
from lab.engine.secrets_manager import Crypter
from lab.engine.session import Session
from lab.engine.stack_commands import columns, say, say_json

_SECRET_KEY = re.compile(r"passwd|pass|password|pass phrase|secret|token", re.IGNORECASE)


def list_settings(session: Session, stack: str, *, as_json: bool, show_secrets: bool, opening: bool) -> None:
    """ESC environments are opened for ``--open`` and ``--show-secrets`` only; else what they give may be unknown."""
    project = session.project()
    name = session.stack_name(project, stack)
    settings = session.settings(project, name)
    environment = session.opened(settings) if opening or show_secrets else session.checked(settings)
    show_merged(session, name, settings, environment, as_json=as_json, show_secrets=show_secrets)


def show_merged(
    session: Session,
    name: StackName,
    settings: StackSettings,
    environment: Environment,
    *,
    as_json: bool = False,
    show_secrets: bool = False,
) -> None:
    """The settings file's entries over those of ``environment``."""
    crypter = _Lazily(session, name, settings)
    merged = merge(name, settings, environment, crypter if show_secrets else None)
    shown = {key: _shown(setting, crypter, show_secrets) for key, setting in merged.items()}
    if as_json:
        say_json(
            {
                key: {**({} if value is None else {"value": value}), "secret": merged[key].secret}
                for key, value in shown.items()
            }
        )
        return
    rows = [("KEY", "VALUE")]
    rows += [
        (key.removeprefix(f"{name.project}:"), "[secret]" if value is None else value) for key, value in shown.items()
    ]
    say(columns(rows))


def merge(
    name: StackName, settings: StackSettings, environment: Environment, crypter: Callable[[], Crypter] | None
) -> dict[str, Setting]:
    """Without a ``crypter`` secrets of the environment cannot be read: nothing is encrypted only to be hidden."""

    def encrypt(text: str) -> str:
        return crypter().encrypt(text) if crypter is not None else ""

    return overlay(settings.settings, environment.settings(name.project, encrypt))


class _Lazily:
    """The crypter of a stack's settings, made when first called."""

    def __init__(self, session: Session, name: StackName, settings: StackSettings) -> None:
        self._session = session
        self._name = name
        self._settings = settings

    def __call__(self) -> Crypter:
        deployment = self._session.backend.read_latest(self._name)
        manager = self._session.secrets_of_settings(self._settings, deployment, self._name)
        if manager is None:
            raise CommandFailed(f"{self._settings.path} has secrets and no encryptionsalt")
        return manager.crypter


def _shown(setting: Setting, crypter: _Lazily, show_secrets: bool) -> str | None:
    return setting.plain(crypter) if show_secrets or not setting.secret else None


def get(session: Session, stack: str, key: str, *, as_json: bool) -> None:
    """In clear, always; opens the stack's ESC environments when the settings file does not have the key."""
    project = session.project()
    name = session.stack_name(project, stack)
    settings = session.settings(project, name)
    full = full_key(key, project.name)
    crypter = _Lazily(session, name, settings)
    own = settings.settings
    merged = own if full in own else merge(name, settings, session.opened(settings), crypter)
    setting = merged.get(full)
    if setting is None:
        raise CommandFailed(f"configuration key '{key}' not found for stack '{name.stack}'")
    value = setting.plain(crypter)
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
        entry = {"secure": session.secrets_for_writing(settings, name).crypter.encrypt(value)}
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
