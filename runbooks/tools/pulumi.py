"""pulumi: command lines that always name folder, stack and stack config, and readers of its JSON answers.

Builders never select a stack, and only `stack_init` creates one. Shapes follow the recorded answers of pulumi 3.260.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runbooks.core.command import Command
from runbooks.core.errors import ToolFailed
from runbooks.tools.stack import Stack

READ_TIMEOUT = 120.0
"""Seconds after which a command that only reads is stopped; previews run programs and charts, without a limit."""
SECRET = "[secret]"  # noqa: S105 - what pulumi shows instead of one
FIRST_WITH_EXIT_CODES = (3, 227, 0)
"""The first version whose exit codes name the kind of failure (pkg/cmd/pulumi/cmd/exit_codes.go)."""
STATELESS = frozenset({"same", "read", "refresh", "read-replacement", "discard", "discard-replaced"})
"""Operations that do not change deployed resources."""


# Builders


def _command(stack: Stack, *words: str, arguments: Sequence[str] = (), **options: Any) -> Command:
    # `pulumi stack …` works on the state alone and takes no `--config-file`.
    has_config = stack.config_file is not None and words[0] != "stack"
    config = ("--config-file", str(stack.config_file)) if has_config else ()
    # Behind `--` if one of them would be read as an option.
    separator = ("--",) if any(argument.startswith("-") for argument in arguments) else ()
    where = ("-C", str(stack.folder), *words, "--stack", stack.selector, *config, "--non-interactive")
    return Command(argv=(stack.program, *where, *separator, *arguments), env=stack.env, **options)


def version(program: str, env: Mapping[str, str]) -> Command:
    return Command(argv=(program, "version"), env=env, title="read pulumi's version", timeout=READ_TIMEOUT)


def whoami(program: str, env: Mapping[str, str]) -> Command:
    argv = (program, "whoami", "--json", "--non-interactive")
    return Command(argv=argv, env=env, title="read the login", timeout=READ_TIMEOUT)


def stack_init(stack: Stack) -> Command:
    """Creates the stack; with a file backend it also writes `Pulumi.<stack>.yaml` into the folder it runs in."""
    folder = stack.init_folder or stack.folder
    argv = (stack.program, "-C", str(folder), "stack", "init", stack.selector, "--non-interactive")
    return Command(argv=argv, env=stack.env, title=f"create the stack {stack.reference}", mutates=True)


def stack_ls(stack: Stack) -> Command:
    """The stacks of all projects on the stack's backend; on the cloud those of its organization alone."""
    where = () if stack.selector == stack.name else ("--organization", stack.organization)
    argv = (stack.program, "-C", str(stack.folder), "stack", "ls", "--all", "--json", *where, "--non-interactive")
    return Command(argv=argv, env=stack.env, title="list the stacks", timeout=READ_TIMEOUT)


def stack_show(stack: Stack) -> Command:
    """The description of the stack, as a text: the only answer that names an update in progress."""
    return _command(stack, "stack", title=f"look at the stack of {stack.service}", timeout=READ_TIMEOUT)


def stack_export(stack: Stack, *, show_secrets: bool = False) -> Command:
    """Prints the state. It is always confidential, as an object may hold a secret that pulumi does not know as one."""
    words = ("stack", "export", *(("--show-secrets",) if show_secrets else ()))
    title = f"read the state of {stack.service}"
    return _command(stack, *words, title=title, confidential=True, timeout=READ_TIMEOUT)


def stack_import(stack: Stack, document: str) -> Command:
    """Replaces the state by an edited export; pulumi drops the pending operations that it still has."""
    title = f"write the state of {stack.service}"
    return _command(stack, "stack", "import", title=title, stdin=document.encode(), mutates=True)


def config_list(stack: Stack) -> Command:
    """Prints the config with its secrets in plaintext."""
    title = f"read the config of {stack.service}"
    return _command(stack, "config", "--json", "--show-secrets", title=title, confidential=True, timeout=READ_TIMEOUT)


def config_set(stack: Stack, key: str, value: str) -> Command:
    """Sets a plain config value. pulumi itself refuses a value that looks like a secret."""
    title = f"set {key} of {stack.service}"
    return _command(stack, "config", "set", arguments=(key, value), title=title, mutates=True)


def config_set_secret(stack: Stack, key: str, value: str) -> Command:
    """Sets a secret config value from standard input. pulumi drops one trailing newline."""
    return _command(
        stack,
        *("config", "set", "--secret"),
        arguments=(key,),
        title=f"set the secret {key} of {stack.service}",
        mutates=True,
        confidential=True,
        stdin=f"{value}\n".encode(),
    )


def check_settings(stack: Stack, checker: Path, config: Mapping[str, str], secrets: Iterable[str]) -> Command:
    """Let the program judge these config values, without pulumi's engine; it prints what is wrong, never a secret."""
    given = json.dumps({"config": dict(config), "secrets": sorted(secrets)})
    argv = (sys.executable, str(checker), str(stack.folder), stack.project, stack.name)
    title = f"let the program of {stack.service} check its settings"
    return Command(argv=argv, stdin=given.encode(), confidential=True, timeout=READ_TIMEOUT, title=title)


def preview(stack: Stack) -> Command:
    """Previews with all steps of replaces (decision 5): some deletes of dependents appear in no other step."""
    return _command(stack, "preview", "--json", "--show-replacement-steps", title=f"preview {stack.service}")


def up(stack: Stack) -> Command:
    """Applies without another preview of pulumi's own: the approved one was made before. Prints one event a line."""
    return _command(stack, "up", "--json", "--yes", "--skip-preview", title=f"apply {stack.service}", mutates=True)


def refresh_preview(stack: Stack) -> Command:
    return _command(stack, "refresh", "--preview-only", "--json", title=f"look for drift of {stack.service}")


def refresh(stack: Stack, urns: Sequence[str]) -> Command:
    """Reads these resources from the cluster into the state."""
    targets = (f"--target={urn}" for urn in urns)
    title = f"take {len(urns)} resources of {stack.service} into its state"
    return _command(stack, "refresh", "--json", "--yes", "--skip-preview", *targets, title=title, mutates=True)


def destroy_preview(stack: Stack) -> Command:
    return _command(stack, "destroy", "--preview-only", "--json", title=f"preview destroying {stack.service}")


def destroy(stack: Stack) -> Command:
    words = ("destroy", "--json", "--yes", "--skip-preview")
    return _command(stack, *words, title=f"destroy {stack.service}", mutates=True)


def cancel(stack: Stack) -> Command:
    """Cancels. On a file backend this deletes the lock files and stops no process: find their holder first."""
    argv = (stack.program, "-C", str(stack.folder), "cancel", "--yes", "--non-interactive", stack.selector)
    return Command(argv=argv, env=stack.env, title=f"remove the lock of {stack.service}", mutates=True)


# Answers


@dataclass(frozen=True, kw_only=True)
class StackRow:
    """A line of `stack ls`."""

    name: str
    """It lacks the project if that is the command's folder's, and the organization if that is the default one."""
    updating: bool = False
    """Only the cloud reports it."""

    def reference(self, listed_from: Stack) -> str:
        """`<organization>/<project>/<stack>`, for a list that was printed in the folder of `listed_from`."""
        parts = self.name.split("/")
        before = {1: (listed_from.organization, listed_from.project), 2: (parts[0], listed_from.project)}
        return "/".join((*before.get(len(parts), parts[:2]), parts[-1]))


@dataclass(frozen=True, kw_only=True)
class PropertyChange:
    """One line of a `detailedDiff`."""

    path: str
    kind: str
    """`add`, `delete`, `update`, each also with `-replace`."""
    of_inputs: bool
    """Whether the old value is an input of the old state, not an output."""

    @property
    def forces_replace(self) -> bool:
        return self.kind.endswith("-replace")


@dataclass(frozen=True, kw_only=True)
class State:
    """The old or new state of a resource in a step. Secrets read `[secret]`."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    protected: bool = False
    retained: bool = False
    """`retainOnDelete`: pulumi forgets it and leaves the object."""
    pending_delete: bool = False
    """The old half of a replace that an earlier update could not finish."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation that a preview proposes."""

    op: str
    urn: str
    old: State | None = None
    new: State | None = None
    changes: tuple[PropertyChange, ...] = ()
    reasons: tuple[str, ...] = ()
    """Properties that differ, where the provider gives no detailed difference."""
    replace_reasons: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        return type_of(self.urn)

    @property
    def name(self) -> str:
        return name_of(self.urn)

    @property
    def changes_something(self) -> bool:
        return self.op not in STATELESS or bool(self.protection)

    @property
    def protection(self) -> str:
        """`protect` or `unprotect` if the resource stays and its protection changes, in a step `same` or `update`."""
        if self.op not in {"same", "update"} or self.old is None or self.new is None:
            return ""
        if self.old.protected == self.new.protected:
            return ""
        return "protect" if self.new.protected else "unprotect"

    @property
    def protected(self) -> bool:
        """Whether it is protected, also if the same update drops the protection: the engine would allow the replace."""
        return any(state.protected for state in (self.old, self.new) if state is not None)


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    severity: str
    """`error`, `warning`, `info`, `info#err`, `debug`."""
    message: str
    urn: str = ""
    ephemeral: bool = False


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The answer of `preview --json` and its relatives."""

    steps: tuple[Step, ...]
    diagnostics: tuple[Diagnostic, ...]
    change_summary: Mapping[str, int]
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.changes_something)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(diagnostic for diagnostic in self.diagnostics if diagnostic.severity == "error")


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of `up --json` that is about a resource, or a diagnostic."""

    kind: str
    """`started`, `done`, `failed` for a resource; `diagnostic`."""
    op: str = ""
    urn: str = ""
    parent: str = ""
    """The URN of the resource it belongs to."""
    is_component: bool = False
    """Whether it only groups other resources, as a chart does."""
    diagnostic: Diagnostic | None = None


@dataclass(frozen=True, kw_only=True)
class StateResource:
    urn: str
    identity: str = ""
    protected: bool = False
    pending_delete: bool = False
    """The old half of a replace that an earlier update could not finish."""
    external: bool = False
    """Whether the program reads it and did not create it."""
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The inputs of the last apply; secrets are as in the answer."""
    field_manager: str = ""
    """Of an object in the cluster: the name under which the provider applies it."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The answer of `stack export`."""

    resources: tuple[StateResource, ...]
    pending: tuple[tuple[str, str], ...] = ()
    """Operations a killed update left behind, as (`creating`, urn)."""
    outputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    written: str = ""
    """When an update last wrote it, ISO 8601; the year 1 if none did."""

    @property
    def own_resources(self) -> tuple[StateResource, ...]:
        """The resources without the stack itself and default providers, which exist in pulumi's state only."""
        return tuple(resource for resource in self.resources if not is_bookkeeping(resource.urn))


def type_of(urn: str) -> str:
    """`kubernetes:core/v1:Secret` of `urn:pulumi:mx::sample::parent$kubernetes:core/v1:Secret::name`."""
    parts = urn.split("::", 3)
    return parts[2].rpartition("$")[2] if len(parts) == 4 else ""


def name_of(urn: str) -> str:
    return urn.split("::", 3)[-1]


def kind_of(type_token: str) -> str:
    """`Secret` of `kubernetes:core/v1:Secret`, `Provider` of `pulumi:providers:postgresql`."""
    return "Provider" if type_token.startswith("pulumi:providers:") else type_token.rpartition(":")[2]


def describe_object(urn: str) -> str:
    """Its kind and name: `ConfigMap settings`."""
    return f"{kind_of(type_of(urn))} {name_of(urn)}"


def parents_of(urn: str) -> str:
    """The types of its parents, outermost first, joined by `$`; empty for a resource below the stack."""
    parts = urn.split("::", 3)
    return parts[2].rpartition("$")[0] if len(parts) == 4 else ""


def is_bookkeeping(urn: str) -> bool:
    """Whether it is the stack itself or a default provider, which exist in pulumi's state only."""
    kind = type_of(urn)
    return kind == "pulumi:pulumi:Stack" or (
        kind.startswith("pulumi:providers:") and name_of(urn).startswith("default")
    )


# Readers


def read_json(text: str, what: str) -> Any:
    """Read an answer. Raises `ToolFailed` for invalid JSON, without the text, which may contain secrets."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ToolFailed(
            f"the answer of {what} is not JSON (line {error.lineno}, {len(text)} characters)",
            expected="the JSON that pulumi 3.260 and newer print",
            next_step="./inv doctor",
        ) from error


def read_version(text: str) -> tuple[int, int, int]:
    """`v3.260.0` → (3, 260, 0); a pre-release or build suffix is dropped."""
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ToolFailed(f"pulumi version answered {text.strip()[:80]!r}", expected="a version such as v3.260.0")
    return int(found[1]), int(found[2]), int(found[3])


def read_login(text: str) -> tuple[str, str]:
    """User and backend of `whoami`."""
    answer = read_json(text, "pulumi whoami")
    return str(answer.get("user", "")), str(answer.get("url", ""))


def read_stacks(text: str) -> tuple[StackRow, ...]:
    rows = read_json(text, "pulumi stack ls")
    return tuple(StackRow(name=str(row["name"]), updating=bool(row.get("updateInProgress", False))) for row in rows)


def read_config(text: str) -> tuple[dict[str, str], set[str]]:
    """The values of a config by their full keys, and the keys of its secrets."""
    answer = read_json(text, "pulumi config")
    values = {key: as_text(item.get("value", "")) for key, item in answer.items()}
    return values, {key for key, item in answer.items() if item.get("secret")}


def as_text(value: Any) -> str:
    """A config value or an output as a text: JSON where it is not one."""
    return value if isinstance(value, str) else json.dumps(value)


def read_preview(text: str) -> Preview:
    """Read `preview --json`, also of a preview that failed: then `errors` has the reasons."""
    answer = read_json(text, "pulumi preview")
    return Preview(
        steps=tuple(_whole_steps([_step(item) for item in answer.get("steps") or ()])),
        diagnostics=tuple(_diagnostic(item) for item in answer.get("diagnostics") or () if not _is_noise(item)),
        change_summary=dict(answer.get("changeSummary") or {}),
        settings=dict(answer.get("config") or {}),
    )


HALVES = frozenset({"create-replacement", "delete-replaced", "discard-replaced", "remove-pending-replace"})


def _whole_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps, with each replace as one step.

    Before pulumi deletes an object to replace it, it deletes the object's dependents. A dependent that the program no
    longer has is not created again: its `delete-replaced` is a delete. Old objects that an earlier update left are read
    from the state.
    """
    replaced = {step.urn for step in steps if step.op == "replace"}
    for step in steps:
        if step.op not in HALVES or (step.op == "create-replacement" and step.urn not in replaced):
            yield step
        elif step.op == "delete-replaced" and step.urn not in replaced and step.old and not step.old.pending_delete:
            yield replace(step, op="delete")


def _step(item: Mapping[str, Any]) -> Step:
    return Step(
        op=str(item["op"]),
        urn=str(item["urn"]),
        old=_state(item.get("oldState")),
        new=_state(item.get("newState")),
        changes=tuple(
            PropertyChange(path=path, kind=str(change.get("kind", "update")), of_inputs=bool(change.get("inputDiff")))
            for path, change in (item.get("detailedDiff") or {}).items()
        ),
        reasons=tuple(item.get("diffReasons") or ()),
        replace_reasons=tuple(item.get("replaceReasons") or ()),
    )


def _state(item: Mapping[str, Any] | None) -> State | None:
    if item is None:
        return None
    return State(
        inputs=item.get("inputs") or {},
        outputs=item.get("outputs") or {},
        protected=bool(item.get("protect")),
        retained=bool(item.get("retainOnDelete")),
        pending_delete=bool(item.get("delete")),
    )


def _diagnostic(item: Mapping[str, Any]) -> Diagnostic:
    message = f"{item.get('prefix') or ''}{item.get('message') or ''}"
    return Diagnostic(
        severity=str(item.get("severity", "info")),
        message=message.strip("\n"),
        urn=str(item.get("urn") or ""),
        ephemeral=bool(item.get("ephemeral")),
    )


AMBIENT_PLUGIN = re.compile(r"using pulumi-(?:resource|language)-\S+ from \$PATH")


def _is_noise(item: Mapping[str, Any]) -> bool:
    """Debug lines, empty ones, and the notice that a provider or language host was taken from PATH."""
    message = str(item.get("message") or "")
    return item.get("severity") == "debug" or not message.strip() or bool(AMBIENT_PLUGIN.search(message))


RESOURCE_EVENTS = {"resourcePreEvent": "started", "resOutputsEvent": "done", "resOpFailedEvent": "failed"}


def read_event(line: str) -> Event | None:
    """One line of `up --json`: an operation on a resource, or a diagnostic. `None` for any other line and for noise."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        answer = json.loads(line)
    except json.JSONDecodeError:  # a provider may print anything between the events
        return None
    for name, kind in RESOURCE_EVENTS.items():
        if name in answer:
            facts = answer[name]["metadata"]
            state = facts.get("new") or facts.get("old") or {"custom": True}
            return Event(
                kind=kind,
                op=str(facts["op"]),
                urn=str(facts["urn"]),
                parent=str(state.get("parent") or ""),
                is_component=not state.get("custom"),
            )
    diagnostic = answer.get("diagnosticEvent")
    is_shown = diagnostic is not None and not _is_noise(diagnostic)
    return Event(kind="diagnostic", diagnostic=_diagnostic(diagnostic)) if is_shown else None


def read_events(text: str) -> Iterator[Event]:
    return (event for event in map(read_event, text.splitlines()) if event is not None)


def read_export(text: str) -> Export:
    """Read `stack export`. Secrets stay as they are in the answer: ciphertext or plaintext."""
    return _export(read_json(text, "pulumi stack export").get("deployment") or {})


def read_checkpoint(text: str) -> Export:
    """Read the state file of a file backend: `.pulumi/stacks/<project>/<stack>.json`."""
    return _export((read_json(text, "the state file").get("checkpoint") or {}).get("latest") or {})


def _export(deployment: Mapping[str, Any]) -> Export:
    resources = deployment.get("resources") or ()
    stack: Mapping[str, Any] = next((item for item in resources if item.get("type") == "pulumi:pulumi:Stack"), {})
    return Export(
        resources=tuple(
            StateResource(
                urn=str(item["urn"]),
                identity=str(item.get("id") or ""),
                protected=bool(item.get("protect")),
                pending_delete=bool(item.get("delete")),
                external=bool(item.get("external")),
                inputs=item.get("inputs") or {},
                field_manager=str((item.get("outputs") or {}).get("__fieldManager") or ""),
            )
            for item in resources
        ),
        pending=tuple(
            (str(item.get("type", "")), str((item.get("resource") or item).get("urn", "")))
            for item in deployment.get("pending_operations") or ()
        ),
        outputs=stack.get("outputs") or {},
        written=str((deployment.get("manifest") or {}).get("time") or ""),
    )
