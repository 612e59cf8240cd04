"""A stack's outputs with their secrets, for checks that log in: kept in memory, and known to the masker first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbooks.lib import pulumi
from runbooks.lib.secret_values import outputs_in_export, secrets_in_export
from runbooks.lib.stacks import Stack
from runbooks.preparation import in_confidence
from runbooks.session import Session


def clear_outputs(session: Session, stack: Stack) -> Mapping[str, Any]:
    """Output → value, nothing hidden. Every secret of the state is registered with the masker before this returns.

    Raises what pulumi's failure means.
    """
    state = session.runner.run(pulumi.stack_export(stack, show_secrets=True))
    if not state.ok:
        raise in_confidence(session, state, stack)
    session.masker.register_all(secrets_in_export(state.stdout))
    return outputs_in_export(state.stdout)
