"""Builds the namespace from task modules: a task for each service, its typed name, one way to report errors."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from invoke import Collection, Context, Task

from runbooks.services import SERVICES
from runbooks.stacks.service import Service

Body = Callable[..., Any]
Marked = TypeVar("Marked", bound=Body)

ALL, CHANGED = "all", "changed"
"""Names of the tasks for every service, e.g. `preview.all`, and for the services that changed."""


def each_service(
    *, everything: bool = False, changed: bool = False, services: Sequence[Service] = SERVICES
) -> Callable[[Marked], Marked]:
    """Make a task of the decorated function for each service, `all` with `everything`, and `changed` with that.

    The function takes `(c, names: tuple[str, ...], …options)`. For `changed` it gets no names, as they are found during
    the run, and the option `since`, which no other task has. The rest of its signature and its docstring become the
    tasks' options and help; `{service}` in the first line of the docstring is replaced by the service's name.
    """

    def mark(body: Marked) -> Marked:
        targets: list[tuple[str, tuple[str, ...]]] = [(service.name, (service.name,)) for service in services]
        if everything:
            targets.append((ALL, tuple(service.name for service in services)))
        if changed:
            targets.append((CHANGED, ()))
        body.__dict__["tasks"] = [_task_for(body, name, names) for name, names in targets]
        return body

    return mark


def _task_for(body: Body, name: str, names: tuple[str, ...]) -> Task[Any]:
    @functools.wraps(body)
    def run(c: Context, **options: Any) -> Any:
        return body(c, names, **options)

    # invoke reads a task's options from the signature of its function.
    signature = inspect.signature(body)
    hidden = {"names"} if name == CHANGED else {"names", "since"}
    options = [parameter for parameter in signature.parameters.values() if parameter.name not in hidden]
    run.__dict__["__signature__"] = signature.replace(parameters=options)
    about = {ALL: "every service", CHANGED: "every service that changed"}.get(name, name)
    run.__doc__ = (inspect.getdoc(body) or "").replace("{service}", about)
    run.__name__ = name
    return Task(run, name=name)


def task_name(verb: str, names: Sequence[str]) -> str:
    """The task's typed name: `deploy.postgres`, `deploy.all`, or `deploy.changed`, which finds the services itself."""
    return f"{verb}.{names[0] if len(names) == 1 else ALL if names else CHANGED}"


def command_again(c: Context, task: str, *options: str) -> str:
    """The command line that runs the task again on the same target."""
    target = ("--target", str(c.config.ops.target)) if c.config.ops.target else ()
    return " ".join(word for word in ("./inv", *target, task, *options) if word)


def tasks_of(module: ModuleType) -> Iterator[Task[Any]]:
    """The module's own tasks, in the order they were written: `@task` functions and what `each_service` made."""
    for value in vars(module).values():
        if isinstance(value, Task):
            if value.body.__module__ == module.__name__:
                yield value
        elif inspect.isfunction(value) and value.__module__ == module.__name__:
            yield from value.__dict__.get("tasks", ())


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
        _add(group, module, wrap)
        root.add_collection(group)
    root.configure({"ops": options})
    return root


def _add(collection: Collection, module: ModuleType, wrap: Callable[[Body], Body]) -> None:
    for task in tasks_of(module):
        # A copy, so that the module's own task still raises: callers in Python need the error itself.
        shown = copy.copy(task)
        shown.body = wrap(task.body)
        collection.add_task(shown)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the list of tasks: one task, or one that exists for each service."""

    name: str
    """The task's name, or `deploy.<service>` for a row that stands for several tasks."""
    about: str
    members: tuple[str, ...] = ()
    """The tasks it stands for, by their full names; empty for a single task."""


def rows(namespace: Collection, services: Sequence[Service] = SERVICES) -> list[Row]:
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
