"""A stack's outputs with their secrets, for checks that log in: kept in memory, and known to the masker first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbooks.lib import pulumi
from runbooks.lib.failures import explain
from runbooks.lib.secret_values import texts_in
from runbooks.lib.stacks import Stack
from runbooks.preparation import in_confidence
from runbooks.session import Session


def clear_outputs(session: Session, stack: Stack) -> Mapping[str, Any]:
    """Output → value, nothing hidden. Every secret one is registered with the masker before this returns.

    Raises what pulumi's failure means.
    """
    shown = session.runner.run(pulumi.stack_output(stack))
    if not shown.ok:
        raise explain(shown, stack)
    masked = pulumi.read_outputs(shown.stdout)
    if pulumi.SECRET not in str(masked):
        return masked
    asked = session.runner.run(pulumi.stack_output(stack, show_secrets=True))
    if not asked.ok:
        raise in_confidence(session, asked, stack)
    clear = pulumi.read_outputs(asked.stdout)
    for name, value in clear.items():
        if masked.get(name) != value:
            session.masker.register_all(texts_in(value))
    return clear
