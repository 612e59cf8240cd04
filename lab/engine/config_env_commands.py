"""``config env …``: which ESC environments a stack's settings import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from lab.engine.backend import StackName
from lab.engine.cloud_client import CloudError
from lab.engine.config_commands import show_merged
from lab.engine.environments import check_environments, names_of
from lab.engine.failures import CommandFailed, UsageError
from lab.engine.project import Project, StackSettings, edit_stack_settings, full_key
from lab.engine.session import Session
from lab.engine.stack_commands import columns, say, say_json
from lab.esc.client import read_name
from lab.esc.yaml_text import dump

CONFIRM = "non-interactive mode requires --yes flag"
_NONE = (
    "This stack configuration has no environments listed. Try adding one with `pulumi config env add "
    "<projectName>/<envName>`."
)


def add(session: Session, stack: str, names: tuple[str, ...], *, yes: bool, show_secrets: bool) -> None:
    """Appends, also what is there already, as the real CLI does."""
    if not names:
        raise UsageError("config env add needs the name of an environment")

    def appended(environments: Any) -> Any:
        environments = CommentedSeq() if environments is None else environments
        imports = environments.setdefault("imports", []) if isinstance(environments, dict) else environments
        imports += list(names)
        return environments

    _change(session, stack, appended, yes=yes, show_secrets=show_secrets)


def remove(session: Session, stack: str, name: str, *, yes: bool, show_secrets: bool) -> None:
    """The last one of that name only."""

    def without(environments: Any) -> Any:
        imports = environments.get("imports") or [] if isinstance(environments, dict) else environments or []
        positions = [index for index, entry in enumerate(names_of(imports)) if entry == name]
        if positions:
            del imports[positions[-1]]
        return environments if imports or isinstance(environments, dict) else None

    _change(session, stack, without, yes=yes, show_secrets=show_secrets)


def _change(session: Session, stack: str, change: Callable[[Any], Any], *, yes: bool, show_secrets: bool) -> None:
    """Show what the settings would be; only then, and only when the environments are there, write them."""
    if not yes:
        raise CommandFailed(CONFIRM)
    esc = session.esc()
    project, name, settings = _settings(session, stack)
    environments = change(_copied(settings.environments))
    environment = check_environments(esc, environments or [])
    show_merged(session, name, settings, environment, show_secrets=show_secrets)

    def write(document: Any) -> None:
        changed = change(document.get("environment"))
        if changed:
            document["environment"] = changed
        else:
            document.pop("environment", None)

    edit_stack_settings(session.settings_file(project, name), write)


def _copied(environments: Any) -> Any:
    if isinstance(environments, dict):
        return {**environments, "imports": list(environments.get("imports") or ())}
    return None if environments is None else list(environments)


def _settings(session: Session, stack: str) -> tuple[Project, StackName, StackSettings]:
    project = session.project()
    name = session.stack_name(project, stack)
    return project, name, session.settings(project, name)


def show(session: Session, stack: str, *, as_json: bool) -> None:
    session.esc()
    _, _, settings = _settings(session, stack)
    names = names_of(settings.environments)
    if as_json:
        say_json(names)
    elif names:
        say(columns([("ENVIRONMENTS",), *((name,) for name in names)]))
    else:
        say(_NONE)


def init(session: Session, stack: str, environment: str, *, yes: bool, keep: bool) -> None:
    """An environment made of the stack's own settings, which then come from there."""
    if not yes:
        raise CommandFailed(CONFIRM)
    esc = session.esc()
    project, name, settings = _settings(session, stack)
    wanted = environment or name.stack
    # Unlike elsewhere a name of one part means the stack's own project.
    target = read_name(wanted if "/" in wanted else f"{project.name}/{wanted}", esc.organization)
    say(f"Creating environment {target.project}/{target.name} for stack {name.stack}...")
    values: dict[str, Any] = {}
    for key, setting in settings.settings.items():
        text = setting.plain(lambda: session.secrets_for_writing(settings, name).crypter)
        values[full_key(key, project.name)] = {"fn::secret": text} if setting.secret else text
    try:
        esc.create(target)
        esc.update(target, dump(CommentedMap({"values": {"pulumiConfig": values}})))
    except CloudError as error:
        raise CommandFailed(f"creating environment: {error}") from error

    def bind(document: Any) -> None:
        bound = document.get("environment")
        bound = CommentedSeq() if bound is None else bound
        bound.append(f"{target.project}/{target.name}")
        document["environment"] = bound
        if not keep:
            document.pop("config", None)

    edit_stack_settings(session.settings_file(project, name), bind)
