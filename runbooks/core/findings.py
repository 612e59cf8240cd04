"""Runs checks in order. Each reports what it saw; a failed one names the likely cause and the next safe command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum


class State(Enum):
    """The result of a check. Only `PASSED` counts as proof."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check saw. None of the texts may hold a secret."""

    check: str
    """The check as a sentence that is true when it passes."""
    state: State
    evidence: str = ""
    """What was seen; for `NOT_TRIED`, why it could not be tried."""
    cause: str = ""
    """The likely cause of a failure, from the handbook's troubleshooting list where it has one."""
    next_step: str = ""
    """The next safe command."""
    subject: str = ""
    """What the checks are about, e.g. `postgresql/postgresql-cluster-rw-ext`."""
    deciding: bool = True
    """Untried on a real target, a deciding check means that the service is not verified."""
    final: bool = False
    """Waiting will not change it, so the check is not repeated."""

    @property
    def ok(self) -> bool:
        return self.state is State.PASSED


def passed(check: str, evidence: str, *, deciding: bool = True) -> Finding:
    return Finding(check=check, state=State.PASSED, evidence=evidence, deciding=deciding)


def failed(check: str, evidence: str, *, cause: str = "", next_step: str = "", final: bool = False) -> Finding:
    return Finding(check=check, state=State.FAILED, evidence=evidence, cause=cause, next_step=next_step, final=final)


def not_tried(check: str, why: str, *, next_step: str = "", deciding: bool = True) -> Finding:
    return Finding(check=check, state=State.NOT_TRIED, evidence=why, next_step=next_step, deciding=deciding)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: a sentence and how to find out whether it is true."""

    name: str
    look: Callable[[], Finding]
    deciding: bool = True
    continue_on_failure: bool = False
    """Whether the checks after it are tried even if it fails."""
    patience: float = 0.0
    """Seconds for which a failed check is repeated, as controllers need time to act."""


LOOK_AGAIN = 2.0
"""Seconds between two attempts at a check that may still pass."""


def run_checks(checks: Iterable[Check], *, subject: str = "") -> list[Finding]:
    """Try the checks in order; those after the first failure are reported as not tried, with what they need."""
    findings: list[Finding] = []
    stopped_at = ""
    for check in checks:
        if stopped_at:
            # After a failed check it would fail for the same cause, with a less clear message.
            found = not_tried(check.name, f'needs "{stopped_at}"')
        else:
            found = look_until(check)
            if found.state is State.FAILED and not check.continue_on_failure:
                stopped_at = check.name
        findings.append(replace(found, subject=found.subject or subject, deciding=check.deciding and found.deciding))
    return findings


def look_until(check: Check) -> Finding:
    """Repeat the check until it passes or its patience is used up; the last finding counts, with the time waited."""
    began = time.monotonic()
    while True:
        found = check.look()
        waited = time.monotonic() - began
        if found.state is not State.FAILED or found.final or waited >= check.patience:
            break
        time.sleep(min(LOOK_AGAIN, check.patience - waited))
    # The time shows the user that waiting longer is unlikely to help.
    if found.state is State.FAILED and waited >= 1:
        return replace(found, evidence=f"{found.evidence} (after {waited:.0f} s)")
    return found


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The findings of a service's checks, counted."""

    findings: tuple[Finding, ...]
    may_stay_untried: frozenset[str] = frozenset()
    """Checks that this target cannot try, and that therefore do not decide (the lab's explicit list)."""

    def count(self, state: State) -> int:
        return sum(1 for finding in self.findings if finding.state is state)

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.state is State.FAILED)

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """Deciding checks that were not tried although this target can try them."""
        return tuple(
            finding
            for finding in self.findings
            if finding.state is State.NOT_TRIED and finding.deciding and finding.check not in self.may_stay_untried
        )

    @property
    def ok(self) -> bool:
        return not self.failures and not self.undecided and bool(self.findings)

    @property
    def problem(self) -> Finding | None:
        """The finding to look at first: a failure, else a deciding check that was not tried."""
        return next(iter((*self.failures, *self.undecided)), None)

    def checks(self, state: State) -> list[str]:
        """Names of the checks with that result, each once."""
        return sorted({finding.check for finding in self.findings if finding.state is state})

    def summary(self) -> str:
        """`9 passed, 0 failed, 3 not tried`."""
        return ", ".join(f"{self.count(state)} {state.value}" for state in State)


def summarize_verdicts(verdicts: Mapping[str, Verdict]) -> str:
    """One line for several services: names those that are not verified, and counts all checks."""
    broken = [name for name, verdict in verdicts.items() if not verdict.ok]
    findings = tuple(finding for verdict in verdicts.values() for finding in verdict.findings)
    state = f"NOT verified: {', '.join(broken)}" if broken else f"all {len(verdicts)} verified"
    return f"{state}: {Verdict(findings=findings).summary()}"
