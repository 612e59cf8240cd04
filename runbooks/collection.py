"""Builds the namespace from task modules: a task for each service, its typed name, one way to report errors."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, ItemsView, Iterable, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from invoke import Collection, Context, Task
from invoke.util import Lexicon

from runbooks.services import SERVICES
from runbooks.stacks.service import Service

Body = Callable[..., Any]
Marked = TypeVar("Marked", bound=Body)

ALL, CHANGED = "all", "changed"
"""Names of the tasks for every service, e.g. `preview.all`, and for the services that changed."""
YES = "Approve changes that are not destructive, where there is no terminal."


def each_service(
    *,
    everything: bool = False,
    changed: bool = False,
    services: Sequence[Service] = SERVICES,
    options: Mapping[str, str] | None = None,
) -> Callable[[Marked], Marked]:
    """Make a task of the decorated function for each service, `all` with `everything`, and `changed` with that.

    The function takes `(c, names: tuple[str, ...], …options)`. For `changed` it gets no names, as they are found during
    the run, and the option `since`, which no other task has. The rest of its signature and its docstring become the
    tasks' options and help, with the texts of `options`; `{service}` in the docstring is what the task works on,
    `{name}` is its name after the dot.
    """

    names = tuple(service.name for service in services)

    def mark(body: Marked) -> Marked:
        body.__dict__["options"] = options or {}
        body.__dict__["targets"] = (*names, *([ALL] if everything else []), *([CHANGED] if changed else []))
        return body

    return mark


class TasksByName(Lexicon):
    """The tasks of a group. One that exists for a service is made when it is looked up: of each service there are ten.

    Until then its value is the function that makes it.
    """

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)  # type: ignore[no-untyped-call]
        if not isinstance(found, Task):
            self[name] = found = found(name)
        return found

    def values(self) -> Any:
        return ValuesView(self)

    def items(self) -> Any:
        return ItemsView(self)


def task_for(body: Body, name: str) -> Task[Any]:
    """The task of that name of a function that `each_service` marked."""
    targets: tuple[str, ...] = body.__dict__["targets"]
    services = tuple(each for each in targets if each not in {ALL, CHANGED})
    names = {ALL: services, CHANGED: ()}.get(name, (name,))

    @functools.wraps(body)
    def run(c: Context, **options: Any) -> Any:
        return body(c, names, **options)

    # invoke reads a task's options from the signature of its function.
    signature = inspect.signature(body)
    hidden = {"names"} if name == CHANGED else {"names", "since"}
    options = {option: parameter for option, parameter in signature.parameters.items() if option not in hidden}
    run.__dict__["__signature__"] = signature.replace(parameters=list(options.values()))
    about = {ALL: "every service", CHANGED: "every changed service"}.get(name, name)
    run.__doc__ = (inspect.getdoc(body) or "").replace("{service}", about).replace("{name}", name)
    run.__name__ = name
    texts = {option: text for option, text in body.__dict__["options"].items() if option in options}
    return Task(run, name=name, help=texts)


def task_name(verb: str, names: Sequence[str]) -> str:
    """The task's typed name: `deploy.postgres`, `deploy.all`, or `deploy.changed`, which finds the services itself."""
    return f"{verb}.{names[0] if len(names) == 1 else ALL if names else CHANGED}"


def command_again(c: Context, task: str, *options: str) -> str:
    """The command line that runs the task again on the same target."""
    target = ("--target", str(c.config.ops.target)) if c.config.ops.target else ()
    return " ".join(word for word in ("./inv", *target, task, *options) if word)


def build(
    *, alone: Iterable[ModuleType], groups: Iterable[ModuleType], wrap: Callable[[Body], Body], options: dict[str, Any]
) -> Collection:
    """The namespace: tasks of `alone` stand at the top, those of `groups` under their module's name.

    `wrap` turns what a task's body raises into a message and an exit code.
    """
    root = Collection()
    for module in alone:
        _add(root, module, wrap)
    for module in groups:
        group = Collection(module.__name__.rpartition(".")[2])
        group.tasks = TasksByName()  # type: ignore[no-untyped-call]
        _add(group, module, wrap)
        root.add_collection(group)
    root.configure({"ops": options})
    return root


def _add(collection: Collection, module: ModuleType, wrap: Callable[[Body], Body]) -> None:
    """Add the module's own tasks, in the order they were written: `@task` functions and marked ones."""

    def wrapped(task: Task[Any]) -> Task[Any]:
        # A copy, so that the module's own task still raises: callers in Python need the error itself.
        shown = copy.copy(task)
        shown.body = wrap(task.body)
        return shown

    for value in vars(module).values():
        if isinstance(value, Task):
            if value.body.__module__ == module.__name__:
                collection.add_task(wrapped(value))
        elif inspect.isfunction(value) and value.__module__ == module.__name__ and "targets" in value.__dict__:
            make = functools.partial(lambda body, name: wrapped(task_for(body, name)), value)
            for name in value.__dict__["targets"]:
                collection.tasks[name] = make


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the list of tasks: one task, or one that exists for each service."""

    name: str
    """The task's name, or `deploy.<service>` for a row that stands for several tasks."""
    about: str
    members: tuple[str, ...] = ()
    """The tasks it stands for, by their full names; empty for a single task."""


def task_rows(namespace: Collection, services: Sequence[Service] = SERVICES) -> list[Row]:
    """The tasks by name, top-level ones first; a task that exists for each service is one row."""
    names = {service.name for service in services}
    found: dict[str, Row] = {}
    for full in sorted(namespace.task_names, key=lambda text: ("." in text, text)):
        about = (namespace[full].__doc__ or "").strip().partition("\n")[0]
        group, _, last = full.rpartition(".")
        if not group or last not in names:
            found[full] = Row(name=full, about=about)
            continue
        name = f"{group}.<service>"
        before = found[name].members if name in found else ()
        found[name] = Row(name=name, about=about.replace(last, "the service"), members=(*before, full))
    return list(found.values())
