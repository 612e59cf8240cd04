"""``stack …``, ``whoami`` and ``cancel``: everything about stacks that runs no program."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.engine.backend import FileBackend, StackName, StackSummary
from lab.engine.failures import CommandFailed, StackNotFound, UsageError
from lab.engine.operations import raw_outputs
from lab.engine.passphrase import PassphraseManager
from lab.engine.project import Project, read_setting, read_stack_settings, write_salt
from lab.engine.secrets_manager import ciphertexts_in
from lab.engine.session import Session
from lab.engine.state import SECRET_SIGNATURE, SIGNATURE, decode
from lab.engine.urns import name_of, qualified_type
from lab.engine.values import strip_secrets

HIDDEN = '"[secret]"'


def say(text: str) -> None:
    print(text)


def say_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def whoami(session: Session, *, as_json: bool) -> None:
    found = session.backend.whoami()
    if as_json:
        say_json(found)
    else:
        say(found["user"])


def select(session: Session, stack: str) -> None:
    if not stack:
        raise UsageError("stack select needs the stack's name: the lab's stand-in for pulumi never asks")
    project = session.project()
    name = session.backend.read_name(stack, project.name)
    if not session.backend.has_stack(name):
        raise StackNotFound(stack)
    session.select(project, name)


def init(session: Session, stack: str, *, secrets_provider: str, no_select: bool) -> None:
    """Creates the stack. A salt goes to the project's settings file, whatever ``--config-file`` says; a cloud's stack
    has none unless the passphrase is asked for."""
    if secrets_provider not in ("", "default", "passphrase"):
        raise CommandFailed(
            f"secrets provider '{secrets_provider}' is not supported by the lab's stand-in for pulumi; passphrase is"
        )
    if not stack:
        raise UsageError("missing stack name")
    project = session.project()
    name = session.backend.read_name(stack, project.name)
    if session.backend.has_stack(name):
        raise CommandFailed(f"stack '{name.qualified}' already exists")
    settings = read_stack_settings(project.stack_file(name.stack), project.name)
    if settings.salt:
        # A wrong passphrase is told before anything is made.
        _ = PassphraseManager(settings.salt, session.environment).crypter
    elif secrets_provider == "passphrase" or isinstance(session.backend, FileBackend):
        write_salt(settings.path, PassphraseManager.create(session.environment).salt)
    session.backend.create_stack(name, project.runtime)
    if not no_select:
        session.select(project, name)
    print(f"Created stack '{stack}'", file=sys.stderr)


def list_stacks(session: Session, *, as_json: bool, everything: bool, organization: str = "") -> None:
    project = None if everything else session.project()
    current = ""
    try:
        own = project or session.project()
        current = session.selected(own)
    except CommandFailed:
        own = None
    rows = []
    for stack in session.backend.stacks(project.name if project else None):
        if organization not in ("", stack.name.organization):
            continue
        is_own = own is not None and stack.name.project == own.name
        rows.append(_row(stack, stack.name.stack if is_own else stack.name.qualified, current))
    if as_json:
        say_json(rows)
        return
    table = [("NAME", "LAST UPDATE", "RESOURCE COUNT")]
    table += [
        (
            f"{row['name']}{'*' if row['current'] else ''}",
            "in progress" if row.get("updateInProgress") else str(row.get("lastUpdate", "n/a")),
            str(row.get("resourceCount", "n/a")),
        )
        for row in rows
    ]
    say(columns(table))


def _row(stack: StackSummary, shown: str, current: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": shown, "current": stack.name.qualified == current}
    if stack.is_updating is not None:
        row["updateInProgress"] = stack.is_updating
    if stack.last_update is not None and not stack.is_updating:
        row["lastUpdate"] = _time(stack.last_update)
    if stack.resources is not None:
        row["resourceCount"] = stack.resources
    return row


def _age(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


def columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def show(session: Session, stack: str) -> None:
    project = session.project()
    name = session.stack_name(project, stack)
    deployment = session.backend.read_latest(name)
    resources = deployment.get("resources") or []
    say(f"Current stack is {name.stack}:")
    if isinstance(session.backend, FileBackend):
        say(f"    Managed by {socket.gethostname()}")
    else:
        say(f"    Owner: {name.organization}")
    running = session.backend.running_update(name)
    if running is not None:
        say(f"    Update in progress:\n\tStarted: {_age(running[0])}\n\tRequested By: {running[1]}")
    updated = session.backend.last_update(name)
    if updated is not None:
        say(f"    Last updated: {_time(updated)}")
    version = deployment.get("manifest", {}).get("version")
    if version:
        say(f"    Pulumi version used: {version}")
    say(f"Current stack resources ({len(resources)}):")
    if resources:
        rows = [("TYPE", "NAME")]
        rows += [(qualified_type(item["urn"]).rsplit("$", 1)[-1], name_of(item["urn"])) for item in resources]
        say(columns(rows, "    "))
        outputs = _outputs(session, deployment, show_secrets=False)
        say("")
        _say_outputs(outputs)
    else:
        say("    No resources currently in this stack")
    say("\nUse `pulumi stack select` to change stack; `pulumi stack ls` lists known ones")


def _outputs(session: Session, deployment: Mapping[str, Any], *, show_secrets: bool) -> dict[str, Any]:
    outputs = raw_outputs(deployment)
    crypter = session.crypter_of_state(deployment) if show_secrets else None
    if crypter is not None:
        crypter.preload(ciphertexts_in(outputs))
    decrypt = crypter.decrypt if crypter is not None else (lambda _text: HIDDEN)
    return {key: strip_secrets(decode(value, decrypt)) for key, value in sorted(outputs.items())}


def _say_outputs(outputs: Mapping[str, Any]) -> None:
    say(f"Current stack outputs ({len(outputs)}):")
    if not outputs:
        say("    No output values currently in this stack")
        return
    rows = [("OUTPUT", "VALUE"), *((key, as_text(value)) for key, value in outputs.items())]
    say(columns(rows, "    "))


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def output(session: Session, stack: str, key: str, *, as_json: bool, show_secrets: bool) -> None:
    project = session.project()
    name = session.stack_name(project, stack)
    outputs = _outputs(session, session.backend.read_latest(name), show_secrets=show_secrets)
    if key:
        if key not in outputs:
            raise CommandFailed(f"current stack does not have output property '{key}'")
        if as_json:
            say_json(outputs[key])
        else:
            say(as_text(outputs[key]))
    elif as_json:
        say_json(outputs)
    else:
        _say_outputs(outputs)


def export(session: Session, stack: str, *, file: str, show_secrets: bool) -> None:
    project = session.project()
    deployment = session.backend.read_latest(session.stack_name(project, stack))
    if show_secrets:
        crypter = session.crypter_of_state(deployment)
        if crypter is not None:
            crypter.preload(ciphertexts_in(deployment))
            deployment = _in_clear(deployment, crypter.decrypt)
    text = json.dumps({"version": 3, "deployment": deployment}, indent=4, ensure_ascii=False)
    if file:
        Path(file).write_text(text + "\n", encoding="utf-8")
    else:
        say(text)


def _in_clear(value: Any, decrypt: Any) -> Any:
    if isinstance(value, list):
        return [_in_clear(item, decrypt) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get(SIGNATURE) == SECRET_SIGNATURE and "ciphertext" in value:
        return {SIGNATURE: SECRET_SIGNATURE, "plaintext": decrypt(value["ciphertext"])}
    return {key: _in_clear(item, decrypt) for key, item in value.items()}


def remove(session: Session, stack: str, *, yes: bool, force: bool, preserve_config: bool) -> None:
    project = session.project()
    name = session.stack_name(project, stack)
    if not yes:
        raise UsageError("--yes must be passed in to remove a stack in non-interactive mode")
    resources = session.backend.read_latest(name).get("resources") or []
    if resources and not force:
        raise CommandFailed(
            f"'{name.stack}' still has resources; removal rejected. Possible actions:\n"
            f"- Make sure that '{name.stack}' is the stack that you want to destroy\n"
            "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
            "- Run `pulumi stack rm --force` to override this error"
        )
    with session.backend.locked(name):
        session.backend.remove_stack(name)
    if not preserve_config:
        project.stack_file(name.stack).unlink(missing_ok=True)
    say(f"Stack '{name.stack}' has been removed!")


def history(session: Session, stack: str, *, as_json: bool, show_secrets: bool) -> None:
    project = session.project()
    name = session.stack_name(project, stack)
    entries = session.backend.history(name)
    shown = [
        _history_entry(session, project, name, entry, entry.get("version", len(entries) - 1 - number), show_secrets)
        for number, entry in enumerate(entries)
    ]
    if as_json:
        say_json(shown)
        return
    for entry in shown:
        say(f"Version: {entry['version']}\nUpdateKind: {entry['kind']}\nStatus: {entry['result']}")
        changes = ", ".join(f"{number} {op}" for op, number in entry["resourceChanges"].items())
        say(f"Message: {entry['message']}\n{changes}\nUpdated at {entry['endTime']}\n")


def _history_entry(
    session: Session, project: Project, name: StackName, entry: dict[str, Any], version: int, show_secrets: bool
) -> dict[str, Any]:
    manager = session.secrets_of_settings(session.settings(project, name), session.backend.read_latest(name), name)
    config: dict[str, Any] = {}
    for key, raw in sorted(entry.get("config", {}).items()):
        setting = read_setting(raw)
        config[key] = {"secret": setting.secret}
        if not setting.secret or (show_secrets and manager is not None):
            value = setting.plain(lambda: manager.crypter) if manager is not None else setting.value
            config[key] = {"value": value, "secret": setting.secret}
    return {
        "version": version,
        "kind": entry["kind"],
        "startTime": _time(entry["startTime"]),
        "message": entry["message"],
        "environment": entry["environment"],
        "config": config,
        "result": entry["result"],
        "endTime": _time(entry["endTime"]),
        "resourceChanges": entry["resourceChanges"],
    }


def cancel(session: Session, stack: str, *, yes: bool) -> None:
    """With files the run that holds the lock is not stopped; a cloud refuses its states from now on."""
    project = session.project()
    name = session.stack_name(project, stack)
    if not yes:
        raise UsageError("--yes must be passed in to cancel in non-interactive mode")
    session.backend.cancel(name)
    say(f"The currently running update for '{name.stack}' has been canceled!")
