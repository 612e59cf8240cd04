"""The annotation ``pulumi.com/waitFor``: conditions and JSONPath expressions instead of a built-in wait."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from lab.engine.providers import ProviderError
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import WAIT_FOR, annotation, name_of, namespace_of, pluck, text
from lab.engine.providers.kubernetes.waiting import StatusLog, WaitFailed
from lab.engine.providers.kubernetes.watching import Event
from lab.engine.providers.kubernetes.workloads import count

Test = Callable[[Object, StatusLog], bool]

NOT_IN_TIME = "timed out waiting for the condition"


class ExpectationFailed(Exception):
    """The expression can never be decided on such an object."""


def read_expectations(obj: Object) -> list[Test]:
    """Tests of the annotation; empty without one. Raises ``ProviderError`` naming what is wrong with it."""
    written = annotation(obj, WAIT_FOR)
    if not written:
        return []
    try:
        listed = json.loads(written)
    except ValueError:
        listed = written
    expressions = listed if isinstance(listed, list) and all(isinstance(one, str) for one in listed) else [written]
    if not expressions:
        raise ProviderError("at least one condition must be specified")
    return [_read(expression) for expression in expressions]


def _read(expression: str) -> Test:
    if expression.startswith("jsonpath="):
        return _read_json_path(expression.removeprefix("jsonpath="))
    if expression.startswith("condition="):
        name, equals, status = expression.removeprefix("condition=").partition("=")
        return _condition_test(name, status if equals else "True")
    raise ProviderError(f'expected a "jsonpath=" or "condition=" prefix, got "{expression}"')


def _condition_test(type: str, wanted: str) -> Test:
    def test(obj: Object, log: StatusLog) -> bool:
        conditions = pluck(obj, "status", "conditions")
        if not isinstance(conditions, list):
            log("warning", "Has no .status.conditions")
            return False
        for condition in conditions:
            if text(pluck(condition, "type")).lower() == type.lower() and pluck(condition, "status") is not None:
                return _condition_holds(obj, condition, type, wanted, log)
        return False

    return test


def _condition_holds(obj: Object, condition: dict[str, Any], type: str, wanted: str, log: StatusLog) -> bool:
    generation = count(obj, "metadata", "generation")
    observed = condition.get("observedGeneration", pluck(obj, "status", "observedGeneration"))
    if isinstance(observed, int) and observed < generation:
        log("info", f"Generation {observed} is less than expected {generation}")
        return False
    status = text(condition.get("status"))
    if status.lower() != wanted.lower():
        log("info", f"Resource has condition {type}={status} (want {wanted})")
        return False
    return True


_BRACES = re.compile(r"\{\s*(.*?)\s*\}")


def _read_json_path(written: str) -> Test:
    # "==" belongs to filters; a single "=" separates the value.
    path, equals, value = re.sub("==", "\0", written).partition("=")
    path, value = path.replace("\0", "=="), value.replace("\0", "==")
    if "=" in value.replace("==", ""):
        raise ProviderError(f'format should be {{.path}}=value or {{.path}}, got "{written}"')
    if equals and not value:
        raise ProviderError(f"{path}= requires a value")
    if path.startswith("'") and path.endswith("'"):
        raise ProviderError(f"{path} should omit shell quotes")
    inside = _BRACES.search(path)
    if inside is None:
        raise ProviderError(f"{path} should be wrapped in brackets {{ ... }}")
    return _json_path_test(path, _select(path, inside[1]), value)


def _select(path: str, inside: str) -> Callable[[Object], list[Any]]:
    import jsonpath  # costs a sixth of a second, and few objects have such an annotation

    try:
        compiled = jsonpath.JSONPathEnvironment(strict=True).compile(inside if inside.startswith("$") else "$" + inside)
    except jsonpath.JSONPathError as error:
        raise ProviderError(f'parsing "{path}": {str(error).splitlines()[0]}') from error
    return lambda obj: [match.obj for match in compiled.finditer(obj)]


def _json_path_test(path: str, select: Callable[[Object], list[Any]], value: str) -> Test:
    shown = f"{path}={value}" if value else path

    def test(obj: Object, log: StatusLog) -> bool:
        observed = pluck(obj, "status", "observedGeneration")
        if isinstance(observed, int) and observed < count(obj, "metadata", "generation"):
            return False
        found = select(obj)
        if not found:
            log("info", f"{path} selected nothing")
            return False
        if isinstance(found[0], dict | list):
            if value:
                raise ExpectationFailed(f'"{path}" has a non-primitive value ({json.dumps(found[0])})')
            log("info", f"Found {shown}")
            return True
        seen = go_text(found[0])
        is_match = not value or seen == value
        log("info", f"Found {shown}" if is_match else f'Waiting for {shown} (found "{seen}")')
        return is_match

    return test


def go_text(value: Any) -> str:
    """A primitive as Go prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)


class ExpectedWait:
    """Ready when all tests hold for the same state of the object."""

    def __init__(self, live: Object, tests: list[Test], log: StatusLog, path: str) -> None:
        self.live = live
        self.log = log
        self._tests = tests
        self._path = path
        self._undecidable = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self._path,)

    def observe(self, event: Event) -> None:
        obj = event.object
        is_own = name_of(obj) == name_of(self.live) and namespace_of(obj) == namespace_of(self.live)
        is_stale = count(obj, "metadata", "generation") < count(self.live, "metadata", "generation")
        if is_own and not is_stale:
            self.live = obj

    def is_ready(self) -> bool:
        try:
            self._undecidable = ""
            results = [test(self.live, self.log) for test in self._tests]  # each test reports where it stands
            return all(results)
        except ExpectationFailed as failure:
            self._undecidable = str(failure)
            return False

    def problems(self) -> list[str]:
        return []

    def report(self) -> None:
        return

    def ending(self, *, is_cancelled: bool) -> WaitFailed | None:
        del is_cancelled  # one sentence for both, as the real provider has it
        return WaitFailed(self._undecidable or NOT_IN_TIME, self.live)
