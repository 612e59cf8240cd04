"""What a Pod's status says about why it is not ready."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.engine.providers import Severity
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import name_of, namespace_of, pluck, text


@dataclass(frozen=True)
class Step:
    """One thing that must hold: ``waiting`` names it, ``message`` says what is wrong ("" when nothing is known)."""

    is_ok: bool
    waiting: str
    message: str = ""
    severity: Severity = "info"


def display_name(obj: Object) -> str:
    """``namespace/name``; the default namespace is left out."""
    namespace = namespace_of(obj)
    return f"{namespace}/{name_of(obj)}" if namespace not in ("", "default") else name_of(obj)


def find_condition(obj: Object, type: str) -> dict[str, Any] | None:
    for condition in pluck(obj, "status", "conditions") or []:
        if isinstance(condition, dict) and condition.get("type") == type:
            return condition
    return None


def pod_steps(pod: Object) -> list[Step]:
    """Scheduled, initialized, ready: up to the first that does not hold."""
    steps: list[Step] = []
    for step in (
        _scheduled(pod),
        _condition_step(pod, "Initialized", "initialized"),
        _condition_step(pod, "Ready", "ready"),
    ):
        steps.append(step)
        if not step.is_ok:
            break
    return steps


def pod_warnings(pods: Iterable[Object]) -> list[str]:
    """Warnings of Pods, as errors list them."""
    return [step.message for pod in pods for step in pod_steps(pod) if step.message and step.severity == "warning"]


def _scheduled(pod: Object) -> Step:
    waiting = f'Waiting for Pod "{display_name(pod)}" to be scheduled'
    condition = find_condition(pod, "PodScheduled")
    if condition is None:
        return Step(False, waiting)
    message = text(condition.get("message")) if condition.get("reason") else ""
    return Step(True, waiting) if condition.get("status") == "True" else Step(False, waiting, message)


def _condition_step(pod: Object, type: str, word: str) -> Step:
    waiting = f'Waiting for Pod "{display_name(pod)}" to be {word}'
    condition = find_condition(pod, type)
    if condition is None:
        return Step(False, waiting)
    if condition.get("status") == "True" or (type == "Ready" and pluck(pod, "status", "phase") == "Succeeded"):
        return Step(True, waiting)
    errors = [
        error for status in pluck(pod, "status", "containerStatuses") or [] for error in _container_errors(status)
    ]
    message = text(condition.get("message"))
    if not errors and not message:
        return Step(False, waiting)
    told = message if condition.get("reason") else ""
    return Step(False, waiting, f"[Pod {display_name(pod)}]: {told}" + "\n".join(errors), "warning")


def _container_errors(status: dict[str, Any]) -> list[str]:
    if status.get("ready"):
        return []
    errors: list[str] = []
    waiting = pluck(status, "state", "waiting")
    if waiting and waiting.get("reason") != "ContainerCreating":
        errors.append(f"[{waiting.get('reason', '')}] {_trimmed(text(waiting.get('message')))}")
    ended = pluck(status, "state", "terminated")
    if ended and ended.get("reason"):
        message = _trimmed(text(ended.get("message")))
        errors.append(
            f"[{ended['reason']}] {message}"
            if message
            else f'container "{status.get("name")}" completed with exit code {ended.get("exitCode", 0)}'
        )
    last = pluck(status, "lastState", "terminated")
    if last:
        errors.append(
            f'container "{status.get("name")}" terminated at {last.get("finishedAt", "")}'
            f" ({last.get('reason', '')}: exit code {last.get('exitCode', 0)})"
        )
        if last.get("message"):
            errors.append(text(last["message"]))
    return errors


def _trimmed(message: str) -> str:
    return message.removeprefix("rpc error: code = Unknown desc = Error response from daemon: ").removesuffix(
        ": manifest unknown"
    )
