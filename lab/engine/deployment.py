"""The engine of one run: decides what a registration means (same, create, update, replace) and carries it out.

Called from several threads, one a registration; the program's own waiting makes the order. Provider calls are limited
by ``parallel``. The first failure refuses what comes after it (``Stopped``); what runs already is let finish and is
recorded.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.engine.cancellation import CancellationToken, Cancelled
from lab.engine.events import COUNTED, Diagnostic, Emit, Event, Step, StepDone, StepFailed, StepStarted
from lab.engine.failures import CommandFailed, NotSupported
from lab.engine.graph import Graph
from lab.engine.hosting import ProviderRegistry
from lab.engine.journal import Journal
from lab.engine.paths import covers, keep_ignored, read_path
from lab.engine.providers import (
    CheckFailure,
    CustomTimeouts,
    DiffKind,
    DiffResult,
    PartialFailure,
    PropertyDiff,
    Provider,
    ProviderError,
)
from lab.engine.state import UNKNOWN_STRING, ResourceState, now
from lab.engine.urns import (
    PROVIDER_TYPE_PREFIX,
    ROOT_STACK_TYPE,
    STACK_REFERENCE_TYPE,
    is_default_provider,
    is_provider,
    make_urn,
    name_of,
    package_of,
    provider_urn,
)
from lab.engine.values import UNKNOWN, PropertyMap, Value, secret

PENDING_OPERATIONS_TEXT = (
    "Attempting to deploy or update resources with {count} pending operations from previous deployment.\n{lines}\n"
    "These resources are in an unknown state because the Pulumi CLI was interrupted while waiting for changes to these "
    "resources to complete. You should confirm whether or not the operations listed completed successfully by checking "
    "the state of the appropriate provider. For example, if you are using AWS, you can confirm using the AWS Console.\n"
    "\nOnce you have confirmed the status of the interrupted operations, you can repair your stack using "
    "`pulumi refresh` which will refresh the state from the provider you are using and clear the pending operations if "
    "there are any.\n"
)


class Stopped(Exception):
    """The run is ending; this registration was not carried out."""


@dataclass
class Goal:
    """What the program asks for. ``inputs`` hold secrets and unknowns, no output values any more."""

    type: str
    name: str
    custom: bool
    inputs: PropertyMap = field(default_factory=dict)
    parent: str = ""
    protect: bool | None = None
    retain_on_delete: bool | None = None
    dependencies: Sequence[str] = ()
    property_dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    provider: str = ""
    delete_before_replace: bool | None = None
    ignore_changes: Sequence[str] = ()
    replace_on_changes: Sequence[str] = ()
    additional_secret_outputs: Sequence[str] = ()
    aliases: Sequence[str] = ()
    custom_timeouts: CustomTimeouts = field(default_factory=CustomTimeouts)
    deleted_with: str = ""


StackReader = Callable[[str], tuple[PropertyMap, list[str]] | None]
"""Outputs of a stack (secrets marked) and the names of the secret ones; ``None`` for a stack that is not there."""


class Deployment:
    """One preview, update, refresh or destroy of one stack."""

    def __init__(
        self,
        *,
        stack: str,
        project: str,
        journal: Journal,
        registry: ProviderRegistry,
        preview: bool,
        emit: Emit,
        cancellation: CancellationToken,
        settings: Mapping[str, Value],
        read_stack: StackReader,
        parallel: int,
    ) -> None:
        self.stack = stack
        self.project = project
        self.journal = journal
        self.registry = registry
        self.preview = preview
        self.cancellation = cancellation
        self.root_urn = make_urn(stack, project, "", ROOT_STACK_TYPE, f"{project}-{stack}")
        self.failed = False
        self.program_failed = False
        self.not_supported = False
        self.changes: dict[str, int] = {}
        self._emit = emit
        self._settings = settings
        self._read_stack = read_stack
        self._slots = threading.Semaphore(max(parallel, 1))
        self._lock = threading.RLock()
        self._default_lock = threading.RLock()
        self._defaults: dict[tuple[str, str], str] = {}
        self._claimed: dict[str, Goal] = {}
        self._states: dict[str, ResourceState] = {}
        self._olds: dict[str, ResourceState] = {}
        self._components: dict[str, Step] = {}
        self._root_outputs: PropertyMap | None = None
        self._deleted_early: dict[str, tuple[str, ...]] = {}
        self.use_base()

    def use_base(self) -> None:
        """Take the journal's old resources as what is there (again, after a refresh)."""
        self._olds = {state.urn: state for state in self.journal.base.resources if not state.delete}

    # -- events --------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        self._emit(event)

    def _tell(self, kind: type[StepStarted] | type[StepDone] | type[StepFailed], step: Step) -> None:
        """Default providers are the engine's own business and never shown or counted."""
        if is_default_provider(step.urn):
            return
        shown = Step(
            step.op,
            step.urn,
            step.type,
            step.old.copy() if step.old else None,
            step.new.copy() if step.new else None,
            step.keys,
            step.diffs,
            step.detailed_diff,
            step.logical,
        )
        self._emit(kind(shown))

    def start(self, step: Step) -> None:
        self._tell(StepStarted, step)

    def done(self, step: Step) -> None:
        self._tell(StepDone, step)
        self.count(step)

    def count(self, step: Step) -> None:
        if step.op in COUNTED and step.logical and not is_default_provider(step.urn):
            with self._lock:
                self.changes[step.op] = self.changes.get(step.op, 0) + 1

    def fail(self, step: Step | None, urn: str, error: Exception | str) -> Stopped:
        """Tell a failure and close the run; to be raised by the caller."""
        prefix = "Preview failed: " if self.preview and step is not None else ""
        message = str(error) or type(error).__name__
        self._emit(Diagnostic(urn, f"{prefix}{message}\n", "error", "error: "))
        if step is not None:
            self._tell(StepFailed, step)
        self.failed = True
        if isinstance(error, NotSupported):
            self.not_supported = True
        self._keep()
        return Stopped(message)

    def _keep(self) -> None:
        """Write what happened so far; when even that fails, say so."""
        try:
            self.journal.flush()
        except CommandFailed as error:
            self._emit(Diagnostic("", f"{error}\n", "error", "error: "))

    def check_open(self) -> None:
        if self.failed or self.cancellation.is_cancelled:
            raise Stopped

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the run's parallel operations."""
        with self._slots:
            self.check_open()
            yield

    def warn_pending(self) -> None:
        """At the start of an update: what an interrupted run may have done."""
        pending = self.journal.base.pending
        if pending and not self.preview:
            lines = "".join(f"  * {item.resource.urn}, interrupted while {item.type}\n" for item in pending)
            text = PENDING_OPERATIONS_TEXT.format(count=len(pending), lines=lines)
            self._emit(Diagnostic("", text, "warning", "warning: "))

    # -- registrations -------------------------------------------------------------------------------------------

    def register(self, goal: Goal) -> ResourceState:
        """Carry out one registration. Raises ``Stopped`` when it failed (told already) or the run is ending."""
        self.check_open()
        urn = make_urn(self.stack, self.project, goal.parent, goal.type, goal.name)
        self._claim(urn, goal)
        old = self._find_old(urn, goal)
        new = self._state_of(urn, goal, old)
        try:
            if not goal.custom:
                state = self._register_component(new, old)
            elif is_provider(goal.type):
                state = self._register_provider(new, old)
            else:
                state = self._register_custom(new, old, goal)
        except CommandFailed as error:
            raise self.fail(None, urn, error) from error
        with self._lock:
            self._states[urn] = state
        return state

    def registered(self, urn: str) -> ResourceState | None:
        """What this run registered or read under that URN."""
        with self._lock:
            return self._states.get(urn)

    def _claim(self, urn: str, goal: Goal) -> None:
        with self._lock:
            if urn in self._claimed:
                raise self.fail(None, urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
            self._claimed[urn] = goal

    def _find_old(self, urn: str, goal: Goal) -> ResourceState | None:
        for candidate in (urn, *goal.aliases):
            old = self._olds.get(candidate)
            if old is not None and (candidate == urn or candidate not in self._claimed):
                return old
        return None

    def inherited(self, parent: str, name: str) -> bool:
        """``protect`` or ``retain_on_delete`` of the nearest ancestor that says."""
        with self._lock:
            goal = self._claimed.get(parent)
        if goal is None:
            return False
        value = getattr(goal, name)
        return bool(value) if value is not None else self.inherited(goal.parent, name)

    def _state_of(self, urn: str, goal: Goal, old: ResourceState | None) -> ResourceState:
        timeouts = {name: value for name, value in vars(goal.custom_timeouts).items() if value}
        inherited = {
            name: bool(value) if value is not None else self.inherited(goal.parent, name)
            for name, value in (("protect", goal.protect), ("retain_on_delete", goal.retain_on_delete))
        }
        return ResourceState(
            urn,
            goal.type,
            goal.custom,
            inputs=goal.inputs,
            parent=goal.parent,
            protect=inherited["protect"],
            retain_on_delete=inherited["retain_on_delete"],
            dependencies=sorted(set(goal.dependencies)),
            provider=goal.provider,
            property_dependencies={
                key: sorted(set(goal.property_dependencies[key])) for key in sorted(goal.property_dependencies)
            },
            additional_secret_outputs=list(goal.additional_secret_outputs),
            custom_timeouts=timeouts,
            deleted_with=goal.deleted_with,
            ignore_changes=list(goal.ignore_changes),
            created=old.created if old else "",
            modified=old.modified if old else "",
            extra={},
        )

    # -- components ----------------------------------------------------------------------------------------------

    def _register_component(self, new: ResourceState, old: ResourceState | None) -> ResourceState:
        op = "create" if old is None else "same" if old.inputs == new.inputs else "update"
        step = Step(op, new.urn, new.type, old, new)
        self.start(step)
        if op != "same":
            new.modified = now()
            new.created = new.created or new.modified
        if old is not None:
            step = Step(op, new.urn, new.type, old.copy(), new)
            new.outputs = old.outputs
        self.journal.add(new, old, changed=op != "same")
        self.count(step)
        with self._lock:
            self._components[new.urn] = step
        return new

    def register_outputs(self, urn: str, outputs: PropertyMap) -> None:
        """Outputs of a component. The root stack's are kept back until everything else went well."""
        with self._lock:
            state = self._states.get(urn)
            step = self._components.get(urn)
        if state is None or step is None:
            raise self.fail(None, "", f"cannot complete a resource '{urn}' whose registration isn't pending")
        if urn == self.root_urn:
            self._root_outputs = outputs
            return
        self._finish_component(step, state, outputs)

    def _finish_component(self, step: Step, state: ResourceState, outputs: PropertyMap) -> None:
        if state.outputs != outputs:
            state.outputs = outputs
            if step.op == "same" and step.old is not None and step.old.outputs != outputs:
                state.modified = now()
            self.journal.changed()
        self._tell(StepDone, step)

    def finish_root(self) -> None:
        """Show the root stack as done: with its new outputs, or the old ones when the run failed."""
        step = self._components.get(self.root_urn)
        state = self._states.get(self.root_urn)
        if step is None or state is None:
            return
        stopped = self.failed or self.cancellation.is_cancelled or self._root_outputs is None
        self._finish_component(step, state, state.outputs if stopped else self._root_outputs or {})

    # -- providers -----------------------------------------------------------------------------------------------

    def default_provider(self, package: str, version: str) -> str:
        """Reference of a package's default provider, registered on first use from the settings ``<package>:*``."""
        with self._default_lock:
            known = self._defaults.get((package, version))
            if known is not None:
                return known
            prefix = f"{package}:"
            inputs: PropertyMap = {
                key.removeprefix(prefix): value for key, value in self._settings.items() if key.startswith(prefix)
            }
            if version:
                inputs["version"] = version
            name = f"default_{version.replace('.', '_').replace('-', '_').replace('+', '_')}" if version else "default"
            state = self.register(
                Goal(PROVIDER_TYPE_PREFIX + package, name, True, {"__internal": {}, **inputs} if inputs else inputs)
            )
            reference = f"{state.urn}::{state.id or UNKNOWN_STRING}"
            self._defaults[package, version] = reference
            return reference

    def _register_provider(self, new: ResourceState, old: ResourceState | None) -> ResourceState:
        package = package_of(new.type)
        if package == "pulumi":
            return self._finish_provider(new, old, "create" if old is None else "same", None)
        provider = self.registry.make(package)
        configuration = {key: value for key, value in new.inputs.items() if key != "__internal"}
        previous = {key: value for key, value in old.inputs.items() if key != "__internal"} if old else {}
        checked = provider.check_config(previous, configuration)
        self._refuse_failures(new, checked.failures)
        new.inputs = {"__internal": {}, **checked.inputs}
        diff = provider.diff_config(previous, checked.inputs) if old else None
        provider.configure(dict(checked.inputs))
        self.registry.put(new.urn, provider)
        changed = diff is not None and (diff.changes or old is None or old.inputs != new.inputs)
        return self._finish_provider(new, old, "create" if old is None else "update" if changed else "same", diff)

    def _finish_provider(
        self, new: ResourceState, old: ResourceState | None, op: str, diff: DiffResult | None
    ) -> ResourceState:
        diffs, detailed = (diff.diffs, dict(diff.detailed_diff)) if diff else ((), None)
        step = Step(op, new.urn, new.type, old, new, diffs=diffs, detailed_diff=detailed)
        self.start(step)
        new.id = old.id if old else (UNKNOWN_STRING if self.preview else str(uuid.uuid4()))
        new.outputs = {key: value for key, value in new.inputs.items() if key != "__internal"}
        if op != "same":
            new.modified = now()
            new.created = new.created or new.modified
        self.journal.add(new, old, changed=op != "same")
        self.done(step)
        return new

    def provider_for(self, state: ResourceState) -> Provider:
        """The provider of a registered or recorded resource."""
        provider = self.registry.get(state.provider)
        if provider is not None:
            return provider
        recorded = self._olds.get(provider_urn(state.provider))
        return self.registry.recall(state.provider, package_of(state.type), recorded.inputs if recorded else {})

    # -- custom resources ----------------------------------------------------------------------------------------

    def _register_custom(self, new: ResourceState, old: ResourceState | None, goal: Goal) -> ResourceState:
        provider = self.provider_for(new)
        if not provider.supports(new.type):
            raise NotSupported(f"resource type '{new.type}'")
        with self.slot():
            self._check(provider, new, old, goal)
            early = self._deleted_early.get(new.urn)
            if old is None or old.external:
                return self._create(Step("create", new.urn, new.type, None, new), old, provider)
            if early is not None:
                return self._create_replacement(new, old, provider, DiffResult(True, early), deleted=True)
            diff = self._diff(provider, new, old, goal)
            if old.pending_replacement and diff.replaces:
                return self._create_replacement(new, old, provider, diff, deleted=True)
            if old.pending_replacement:
                return self._finish_replacement(new, old, provider)
            if diff.replaces:
                return self._replace(new, old, provider, diff, goal)
            if diff.changes or old.init_errors:
                return self._update(new, old, provider, diff)
            return self._same(new, old)

    def _check(self, provider: Provider, new: ResourceState, old: ResourceState | None, goal: Goal) -> None:
        olds = old.inputs if old is not None and not old.external else None
        wanted = keep_ignored(new.inputs, old.inputs, goal.ignore_changes) if olds is not None and old else new.inputs
        seed = uuid.uuid5(uuid.NAMESPACE_URL, f"{new.urn}{uuid.uuid4()}").bytes
        try:
            checked = provider.check(new.urn, new.type, olds, wanted, autoname_seed=seed)
        except ProviderError as error:
            raise self.fail(None, new.urn, error) from error
        self._refuse_failures(new, checked.failures)
        new.inputs = checked.inputs

    def _refuse_failures(self, new: ResourceState, failures: Sequence[CheckFailure]) -> None:
        if not failures:
            return
        name = name_of(new.urn)
        for failure in failures:
            subject = f"property {failure.property} " if failure.property else ""
            self._emit(
                Diagnostic(
                    new.urn,
                    f"{new.type} resource '{name}': {subject}has a problem: {failure.reason}\n"
                    if subject
                    else f"{new.type} resource '{name}' has a problem: {failure.reason}\n",
                    "error",
                    "error: ",
                )
            )
        self.failed = True
        raise Stopped(failures[0].reason)

    def _diff(self, provider: Provider, new: ResourceState, old: ResourceState, goal: Goal) -> DiffResult:
        try:
            diff = provider.diff(
                new.urn, new.type, old.id, old.inputs, old.outputs, new.inputs, tuple(goal.ignore_changes)
            )
        except ProviderError as error:
            raise self.fail(None, new.urn, error) from error
        return _with_forced_replaces(diff, goal.replace_on_changes)

    def _same(self, new: ResourceState, old: ResourceState) -> ResourceState:
        step = Step("same", new.urn, new.type, old, new)
        self.start(step)
        new.id = old.id
        new.outputs = old.outputs
        new.extra = old.extra
        self.journal.add(new, old, changed=new != old)
        self.done(step)
        return new

    def _create(self, step: Step, old: ResourceState | None, provider: Provider) -> ResourceState:
        new = _new_of(step)
        self.start(step)
        new.created = new.modified = "" if self.preview else now()
        with self._operation(step, new, old, "creating"):
            result = provider.create(
                new.urn, new.type, dict(new.inputs), preview=self.preview, timeout=new.custom_timeouts.get("create", 0)
            )
            new.id = result.id
            new.outputs = _with_secrets(result.outputs, new.additional_secret_outputs)
        self.journal.add(new, old)
        self.done(step)
        return new

    def _update(self, new: ResourceState, old: ResourceState, provider: Provider, diff: DiffResult) -> ResourceState:
        detailed = dict(diff.detailed_diff) or None
        step = Step("update", new.urn, new.type, old, new, diffs=diff.diffs, detailed_diff=detailed)
        self.start(step)
        new.id = old.id
        with self._operation(step, new, old, "updating"):
            result = provider.update(
                new.urn,
                new.type,
                old.id,
                old.inputs,
                old.outputs,
                dict(new.inputs),
                ignore_changes=tuple(new.ignore_changes),
                preview=self.preview,
                timeout=new.custom_timeouts.get("update", 0),
            )
            new.outputs = _with_secrets(result.outputs, new.additional_secret_outputs)
        new.modified = now()
        self.journal.add(new, old)
        self.done(step)
        return new

    @contextmanager
    def _operation(self, step: Step, state: ResourceState, old: ResourceState | None, kind: str) -> Iterator[None]:
        """Around a provider call: pending operation, and what a failure leaves."""
        try:
            if self.preview:
                yield
            else:
                with self.journal.under_way(state, kind):
                    yield
        except PartialFailure as error:
            self._record_partial(state, old, error)
            raise self.fail(step, step.urn, error) from error
        except (ProviderError, Cancelled) as error:
            raise self.fail(step, step.urn, str(error) or "the operation was cancelled") from error

    def _record_partial(self, state: ResourceState, old: ResourceState | None, error: PartialFailure) -> None:
        state.id = error.id or state.id
        state.outputs = _with_secrets(error.outputs, state.additional_secret_outputs)
        state.inputs = error.inputs if error.inputs is not None else state.inputs
        state.init_errors = list(error.reasons)
        state.modified = now()
        state.created = state.created or state.modified
        self.journal.add(state, old)

    # -- replacing -----------------------------------------------------------------------------------------------

    def _replace(
        self, new: ResourceState, old: ResourceState, provider: Provider, diff: DiffResult, goal: Goal
    ) -> ResourceState:
        first_delete = diff.delete_before_replace
        if goal.delete_before_replace is not None:
            first_delete = goal.delete_before_replace
        if not first_delete:
            return self._create_replacement(new, old, provider, diff, deleted=False)
        for dependent, keys in self._dependents_to_replace(old):
            self._delete_for_replace(dependent)
            self._deleted_early[dependent.urn] = keys
        self._delete_for_replace(old)
        return self._create_replacement(new, old, provider, diff, deleted=True)

    def _delete_for_replace(self, old: ResourceState) -> None:
        step = Step("delete-replaced", old.urn, old.type, old, None, logical=False)
        if old.protect:
            raise self.fail(step, old.urn, protected_text(old.urn, "replaced"))
        self.start(step)
        self.delete_object(step, old)
        old.pending_replacement = True
        if not self.preview:
            self.journal.changed()
        self.done(step)

    def delete_object(self, step: Step, old: ResourceState) -> None:
        """Have the provider delete, unless the resource is to be kept or was only read."""
        if not old.custom or old.external or old.retain_on_delete or self.preview or is_provider(old.type):
            return
        with self._operation(step, old, None, "deleting"):
            self.provider_for(old).delete(
                old.urn, old.type, old.id, old.inputs, old.outputs, timeout=old.custom_timeouts.get("delete", 0)
            )

    def _dependents_to_replace(self, old: ResourceState) -> list[tuple[ResourceState, tuple[str, ...]]]:
        """Recorded resources, last first, that cannot live through the deletion of ``old``.

        Those are the dependents whose own difference, with what comes from a replaced resource unknown, is a replace.
        """
        replaced = {old.urn}
        found: list[tuple[ResourceState, tuple[str, ...]]] = []
        for state in Graph(self.journal.base.resources).dependents_of(old):
            touched = [key for key, urns in state.property_dependencies.items() if replaced & set(urns)]
            if state.delete or state.external or not state.custom or is_provider(state.type) or not touched:
                continue
            inputs = {**state.inputs, **{key: UNKNOWN for key in touched if key in state.inputs}}
            diff = self.provider_for(state).diff(
                state.urn, state.type, state.id, state.inputs, state.outputs, inputs, tuple(state.ignore_changes)
            )
            if diff.replaces:
                replaced.add(state.urn)
                found.append((state, diff.replaces))
        return found[::-1]

    def _create_replacement(
        self, new: ResourceState, old: ResourceState, provider: Provider, diff: DiffResult, *, deleted: bool
    ) -> ResourceState:
        """Create the new one. When the old one is still there it is marked, to be deleted at the end of the run."""
        detailed = dict(diff.detailed_diff) or None

        def step(op: str, logical: bool) -> Step:
            return Step(op, new.urn, new.type, old, new, diff.replaces, diff.diffs, detailed, logical)

        replace, create = step("replace", True), step("create-replacement", False)
        if deleted:
            self.start(replace)
            self.done(replace)
        self._create_in_place(create, old if deleted else None, provider)
        if not deleted:
            old.delete = True
            self.journal.changed()
            self.start(replace)
            self.done(replace)
        return new

    def _finish_replacement(self, new: ResourceState, old: ResourceState, provider: Provider) -> ResourceState:
        """An earlier run deleted the old one and did not get to the new one."""
        self._create_in_place(Step("create-replacement", new.urn, new.type, old, new, logical=False), old, provider)
        for step in (
            Step("replace", new.urn, new.type, old, new),
            Step("delete-replaced", old.urn, old.type, old, None, logical=False),
        ):
            self.start(step)
            self.done(step)
        return new

    def _create_in_place(self, step: Step, superseded: ResourceState | None, provider: Provider) -> None:
        new = _new_of(step)
        shown = (step.old.created, step.old.modified) if step.old else ("", "")
        self._create(step, superseded, provider)
        if self.preview:
            new.created, new.modified = shown

    # -- reads ---------------------------------------------------------------------------------------------------

    def read(self, goal: Goal, id: str) -> ResourceState:
        """``Resource.get`` and stack references: look at something that this stack does not manage."""
        self.check_open()
        urn = make_urn(self.stack, self.project, goal.parent, goal.type, goal.name)
        self._claim(urn, goal)
        old = self._find_old(urn, goal)
        new = self._state_of(urn, goal, old)
        new.external = True
        new.id = id
        step = Step("read", urn, goal.type, old, new)
        self.start(step)
        try:
            with self.slot():
                self._read_into(new)
        except (ProviderError, CommandFailed) as error:
            raise self.fail(step, urn, error) from error
        new.modified = new.modified or now()
        new.created = new.created or new.modified
        self.journal.add(new, old, changed=old is None or old.outputs != new.outputs)
        self.done(step)
        with self._lock:
            self._states[urn] = new
        return new

    def _read_into(self, new: ResourceState) -> None:
        if new.type == STACK_REFERENCE_TYPE:
            name = str(new.inputs.get("name", new.id))
            found = self._read_stack(name)
            if found is None:
                raise ProviderError(f'unknown stack "{name}"')
            outputs, secret_names = found
            new.outputs = {"name": name, "outputs": outputs, "secretOutputNames": list(secret_names)}
            return
        provider = self.provider_for(new)
        if not provider.supports(new.type):
            raise NotSupported(f"resource type '{new.type}'")
        result = provider.read(new.urn, new.type, new.id, None, new.inputs)
        if result.id is None:
            raise ProviderError(f"resource '{new.id}' does not exist")
        new.id = result.id
        new.outputs = _with_secrets(result.outputs, new.additional_secret_outputs)


def protected_text(urn: str, verb: str) -> str:
    return (
        f'resource "{urn}" cannot be {verb}\n'
        "because it is protected. To unprotect the resource, either remove the `protect` flag from the resource in "
        f"your Pulumi program and run `pulumi up`, or use the command:\n`pulumi state unprotect '{urn}'`"
    )


def _new_of(step: Step) -> ResourceState:
    if step.new is None:
        raise ValueError(f"step {step.op} of {step.urn} has no new state")
    return step.new


def _with_secrets(outputs: PropertyMap, names: Sequence[str]) -> PropertyMap:
    return {key: secret(value) if key in names else value for key, value in outputs.items()}


def _with_forced_replaces(diff: DiffResult, patterns: Sequence[str]) -> DiffResult:
    """``replace_on_changes``: a difference at one of the patterns is a replace."""
    if not patterns or not diff.changes:
        return diff
    wanted = [read_path(pattern) for pattern in patterns]
    forced = [path for path in diff.detailed_diff if any(covers(pattern, read_path(path)) for pattern in wanted)]
    if not forced:
        return diff
    detailed = {
        path: PropertyDiff(_REPLACING.get(entry.kind, entry.kind), entry.input_diff) if path in forced else entry
        for path, entry in diff.detailed_diff.items()
    }
    replaces = tuple(dict.fromkeys([*diff.replaces, *forced]))
    return DiffResult(True, replaces, detailed, diff.delete_before_replace, diff.diffs)


_REPLACING: dict[DiffKind, DiffKind] = {
    "add": "add-replace",
    "delete": "delete-replace",
    "update": "update-replace",
}
