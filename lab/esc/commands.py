"""What each command does. Diagnostics of ``open``, ``run``, ``set`` and ``edit`` go to standard error and end with 0,
as recorded from the real esc 0.26."""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.engine.cloud_client import CloudError
from lab.engine.failures import CommandFailed, UsageError
from lab.esc import formats, paths, yaml_text
from lab.esc.client import Definition, EnvironmentName, EscClient, read_name
from lab.esc.diagnostics import long, short
from lab.esc.running import run as run_command

_TOO_MANY = "too many errors"


def _name(client: EscClient, given: Namespace) -> EnvironmentName:
    return read_name(given.name, client.organization)


def _say(text: str) -> None:
    print(text, end="" if text.endswith("\n") else "\n")


def _read(place: str) -> str:
    """A file, or standard input for ``-``."""
    if place == "-":
        return sys.stdin.read()
    try:
        return Path(place).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"reading {place}: {error.strerror or error}") from error


def _diagnostics(error: CloudError) -> list[dict[str, Any]]:
    """Those of a definition or an evaluation; anything else goes on as an error."""
    found = error.body.get("diagnostics")
    if not found:
        raise error
    return list(found)


# -- environments --------------------------------------------------------------------------------------------------


def init(client: EscClient, given: Namespace) -> int:
    """The environment stays, empty, when its definition is bad."""
    name = _name(client, given)
    definition = _read(given.file) if given.file else ""
    try:
        client.create(name)
    except CloudError as error:
        raise CommandFailed(f"creating environment: {error}") from error
    _say(f"Environment created: {name.qualified}")
    sys.stdout.flush()
    if definition:
        try:
            client.update(name, definition)
        except CloudError as error:
            print(long(_diagnostics(error), definition), end="", file=sys.stderr)
            raise CommandFailed(f"updating environment definition: {_TOO_MANY}") from error
    return 0


def ls(client: EscClient, given: Namespace) -> int:
    found = client.environments(given.organization)
    names = [
        "/".join(
            [
                *([] if one["organization"] == client.organization else [one["organization"]]),
                one["project"],
                one["name"],
            ]
        )
        for one in found
        if not given.project or one["project"] == given.project
    ]
    if given.output == "json":
        _say(formats.as_json({"environments": sorted(names)}))
    else:
        for name in sorted(names):
            _say(name)
    return 0


def rm(client: EscClient, given: Namespace) -> int:
    """An environment, or one value of it."""
    name = _name(client, given)
    if given.path:
        definition = client.definition(name)
        document = yaml_text.load(definition.yaml)
        if not paths.drop(document, paths.under_values(paths.parse(given.path))):
            raise CommandFailed(f"path {given.path} is not set in {name.qualified}")
        return _change(client, name, document, definition)
    if not given.yes:
        raise UsageError("--yes must be given: the lab's stand-in does not ask")
    client.delete(name)
    _say(f'Environment "{name.qualified}" has been removed!')
    return 0


# -- values --------------------------------------------------------------------------------------------------------


def open_(client: EscClient, given: Namespace) -> int:
    """Prints in clear, in every format."""
    try:
        opened = client.open(_name(client, given), _duration(given.lifetime))
    except CloudError as error:
        print(short(_diagnostics(error)), end="", file=sys.stderr)
        return 0
    value = _at(opened, given.path, given.name)
    _say(formats.render(value, given.format))
    return 0


def _at(environment: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    value = paths.value_at(environment.get("properties") or {}, paths.parse(path or ""))
    if value is paths.MISSING:
        raise CommandFailed(f"path {path} not found in {name}")
    return dict(value)


def _duration(text: str) -> str:
    """As Go prints it: ``2h`` is ``2h0m0s``."""
    if text.endswith("h"):
        return f"{text}0m0s"
    return f"{text}0s" if text.endswith("m") else text


def get(client: EscClient, given: Namespace) -> int:
    """The definition and what it gives without opening it, secrets hidden unless asked for."""
    name = _name(client, given)
    definition = client.definition(name, in_clear=given.show_secrets)
    if given.definition and not given.path:
        _say(definition.yaml)
        return 0
    try:
        checked = client.check(definition.yaml, show_secrets=given.show_secrets)
    except CloudError as error:
        print(short(_diagnostics(error)), end="", file=sys.stderr)
        return 0
    value = _at(checked, given.path, given.name)
    node = paths.node_at(yaml_text.load(definition.yaml), paths.under_values(paths.parse(given.path or "")))
    if given.value:
        _say(formats.render(value, given.value, hide=not given.show_secrets))
    elif given.definition:
        _say("" if node is paths.MISSING else yaml_text.dump(node))
    else:
        _say(_description(value, definition, given, node))
    return 0


def _description(value: dict[str, Any], definition: Definition, given: Namespace, node: Any) -> str:
    shown = formats.render(value, "json", hide=not given.show_secrets)
    text = f"# Value\n```json\n{shown}```\n"
    source = definition.yaml if not given.path else "" if node is paths.MISSING else yaml_text.dump(node)
    text += f"# Definition\n```yaml\n{source}\n```\n\n"
    where = (value.get("trace") or {}).get("def") if given.path else None
    if where:
        begin = where.get("begin") or {}
        text += f"# Defined at\n- {where.get('environment', '')}:{begin.get('line', 0)}:{begin.get('column', 0)}\n\n"
    return text


def set_(client: EscClient, given: Namespace) -> int:
    """``get``, change, ``PATCH`` with the ETag: a write in between is refused."""
    name = _name(client, given)
    path = paths.parse(given.path)
    if not path:
        raise UsageError("path must contain at least one element")
    text = _value_text(given)
    value: Any = text if given.string else yaml_text.load(text)
    if given.secret:
        value = {"fn::secret": value if isinstance(value, str | dict | list) else text}
    elif not given.plaintext and isinstance(value, str):
        _refuse_secret(given.path, value)
    definition = client.definition(name)
    document = yaml_text.load(definition.yaml)
    paths.put(document, paths.under_values(path), value)
    return _change(client, name, document, definition)


def _value_text(given: Namespace) -> str:
    if given.file:
        return _read(given.file)
    if given.value is None:
        raise UsageError("set needs a value, or --file")
    return str(given.value)


def _refuse_secret(path: str, value: str) -> None:
    from lab.engine.config_commands import looks_like_secret

    if looks_like_secret(path.rsplit(".", 1)[-1], value):
        raise CommandFailed(
            "value looks like a secret; rerun with --secret to mark it as such, or --plaintext if you meant to leave "
            "it as plaintext"
        )


def _change(client: EscClient, name: EnvironmentName, document: Any, before: Definition) -> int:
    text = yaml_text.dump(document)
    try:
        client.update(name, text, before.etag)
    except CloudError as error:
        print(long(_diagnostics(error), text), end="", file=sys.stderr)
    return 0


def edit(client: EscClient, given: Namespace) -> int:
    """Replaces the definition, whoever wrote the last one: no ETag is sent, as the real ``edit -f`` sends none."""
    name = _name(client, given)
    if not given.file:
        raise UsageError("edit needs --file: the lab's stand-in opens no editor")
    text = _read(given.file)
    try:
        revision, warnings = client.update(name, text)
    except CloudError as error:
        print(long(_diagnostics(error), text), end="", file=sys.stderr)
        return 0
    print(long(warnings, text), end="", file=sys.stderr)
    _say(f"Environment updated. (revision {revision})")
    return 0


def run(client: EscClient, given: Namespace) -> int:
    try:
        opened = client.open(_name(client, given), _duration(given.lifetime))
    except CloudError as error:
        print(short(_diagnostics(error)), end="", file=sys.stderr)
        return 0
    code = run_command(opened, given.command, interactive=given.interactive)
    if code:
        # The command's own code is lost, as with the real ones.
        raise CommandFailed(f"exit status {code}" if code > 0 else f"signal: {signal.Signals(-code).name}")
    return 0


# -- revisions -----------------------------------------------------------------------------------------------------


def history(client: EscClient, given: Namespace) -> int:
    for one in client.revisions(_name(client, given)):
        tags = one.get("tags") or ()
        _say(f"revision {one['number']}" + (f" (tag: {', '.join(tags)})" if tags else ""))
        _say(
            f"Author: {one.get('creatorName', '')} <{one.get('creatorLogin', '')}>\nDate:   {one.get('created', '')}\n"
        )
    return 0


def tag(client: EscClient, given: Namespace) -> int:
    """``NAME@tag [@version]``: a revision or another tag, the latest revision when none is given."""
    name = _name(client, given)
    if not name.version:
        raise UsageError("version tag needs a name with a tag, such as stitch/prod@stable")
    bare = EnvironmentName(name.organization, name.project, name.name)
    version = (given.revision or "").removeprefix("@")
    client.tag_revision(bare, name.version, client.definition(replace(bare, version=version)).revision)
    return 0


def tag_ls(client: EscClient, given: Namespace) -> int:
    for one in client.revision_tags(_name(client, given)):
        _say(f"{one['name']} (revision {one['revision']})")
    return 0


def tag_rm(client: EscClient, given: Namespace) -> int:
    name = _name(client, given)
    client.drop_revision_tag(name, name.version)
    return 0


def rollback(client: EscClient, given: Namespace) -> int:
    """The definition of an earlier revision as a new one."""
    name = _name(client, given)
    if not name.version:
        raise UsageError("version rollback needs a name with a version, such as stitch/prod@3")
    definition = client.definition(name)
    revision, _ = client.update(EnvironmentName(name.organization, name.project, name.name), definition.yaml)
    _say(f"Environment updated. (revision {revision})")
    return 0
