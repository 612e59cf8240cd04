"""Each row of the troubleshooting list, provoked: what a tool said, and what we make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import FieldConflict, OperatorMissing, OpsError, ToolFailed, Usage
from runbooks.tools.failures import explain
from runbooks.tools.stack import Stack

STACK = Stack(service="stitch", project="stitch", name="mx", organization="organization", folder=Path("/p"))

ROWS: list[tuple[str, str, type[OpsError], str, str]] = [
    (
        "backend without ESC",
        "error: file:///home/me does not support Pulumi ESC.",
        Usage,
        "does not support Pulumi ESC",
        "pulumi login --cloud",
    ),
    (
        "CRDs not found",
        'error: no matches for kind "Cluster" in version "postgresql.cnpg.io/v1"',
        OperatorMissing,
        "the operator that brings it is not applied",
        "--diff",
    ),
    (
        "CRDs not found, in a chart",
        "error: kubernetes:helm.sh/v4:Chart resource 'cnpg' has a problem: failed to determine if the following GVK is "
        "namespaced: monitoring.coreos.com/v1, Kind=PodMonitor",
        OperatorMissing,
        "the cluster does not know the kind PodMonitor (monitoring.coreos.com/v1)",
        "--diff",
    ),
    (
        "another field manager",
        '* the Kubernetes API server reported that "postgresql/pg" failed to fully initialize or become live: '
        "Server-Side Apply field conflict detected. See https://x.example for troubleshooting help.\nThe resource "
        'managed by field manager "pulumi-kubernetes-1a2b3c4d" had an apply conflict: Apply failed with 2 conflicts: '
        'conflicts with "kubectl-annotate" using v1:\n- .metadata.annotations.a\n- .metadata.annotations.b\n\n\n',
        FieldConflict,
        'changed postgresql/pg of stitch and holds what the program sets: conflicts with "kubectl-annotate" using v1: '
        "- .metadata.annotations.a - .metadata.annotations.b",
        "./inv repair.stitch",
    ),
    ("time-outs", "error: timed out waiting for the condition", ToolFailed, "did not become ready", "--diff"),
    (
        "an update that was cancelled from elsewhere",
        "error: failed to complete update: [403] Forbidden: The update was cancelled.",
        ToolFailed,
        "was cancelled from elsewhere",
        "./inv cancel.stitch",
    ),
    (
        "an update whose lease ran out",
        "error: failed to save snapshot: [403] The provided update token has expired.",
        ToolFailed,
        "silent for minutes",
        "./inv cancel.stitch",
    ),
    (
        "Postgres refuses a login",
        'error: pq: password authentication failed for user "postgres"',
        ToolFailed,
        "refused the password",
        "verify",
    ),
    (
        "Postgres is not reached",
        "error connecting to PostgreSQL server postgresql (scheme: postgres): dial tcp 1.2.3.4:5432: connect: "
        "connection refused: provider=postgresql@3.18.2",
        ToolFailed,
        "cannot reach postgresql",
        "verify",
    ),
]


@pytest.mark.parametrize(("said", "error", "cause", "fix"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_row_is_answered_with_cause_and_fix(said: str, error: type[OpsError], cause: str, fix: str) -> None:
    command = Command(argv=("pulumi",))
    outcome = Outcome(command=command, exit_code=1, seconds=0, stdout="", stderr=said, shown_stderr=said)
    explained = explain(outcome, STACK)
    assert type(explained) is error and cause in explained.summary
    assert fix in f"{explained.expected} {explained.next_step}"
