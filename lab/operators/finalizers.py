"""Finalizers: put on before something is made outside the object, taken off when that is undone."""

from __future__ import annotations

from lab.operators.api import Api, Object


def has_finalizer(thing: Object, finalizer: str) -> bool:
    return finalizer in (thing["metadata"].get("finalizers") or [])


def add_finalizer(api: Api, thing: Object, finalizer: str, manager: str) -> Object:
    """The object as it is with the finalizer; unchanged when it has it."""
    if has_finalizer(thing, finalizer):
        return thing
    present = thing["metadata"].get("finalizers") or []
    change = {"metadata": {"finalizers": [*present, finalizer]}}
    return api.patch(thing, change, manager) or thing


def remove_finalizer(api: Api, thing: Object, finalizer: str, manager: str) -> None:
    if has_finalizer(thing, finalizer):
        kept = [entry for entry in thing["metadata"]["finalizers"] if entry != finalizer]
        api.patch(thing, {"metadata": {"finalizers": kept}}, manager)
