"""The data that a run works with. `runbooks/run.py` makes the run context, `runbooks/stacks/guard.py` the session."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from runbooks.core.environment import access_variables
from runbooks.core.journal import Journal
from runbooks.core.mask import Masker
from runbooks.core.reporter import LaterReporter, Reporter
from runbooks.core.runner import Runner
from runbooks.core.search_path import find_program
from runbooks.stacks.service import Service, find
from runbooks.stacks.target import Target
from runbooks.tools import pulumi
from runbooks.tools.esc import Esc, Opened
from runbooks.tools.kubeconfig import KubeContext
from runbooks.tools.kubectl import Kubectl
from runbooks.tools.secret_values import unwrap_secrets
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import secrets_provider_of

Answer = TypeVar("Answer")

MOST_STATES = 128
"""States that are kept in memory: a large platform has more of them than fit."""


class Once:
    """Reads what is asked for several times once, also where several threads ask."""

    def __init__(self) -> None:
        self.answers: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.RLock] = {}

    def lock(self, what: Hashable) -> threading.RLock:
        """The lock under which `what` is read."""
        return self._locks.setdefault(what, threading.RLock())

    def read(self, what: Hashable, how: Callable[[], Answer]) -> Answer:
        """Return what `how` returned when `what` was first read."""
        with self.lock(what):
            if what not in self.answers:
                self.answers[what] = how()
            return cast("Answer", self.answers[what])


@dataclass
class Known:
    """The answers that this run has read so far. Several threads read and write it."""

    states: dict[str, ClearState] = field(default_factory=dict, repr=False)
    """Stack's reference → its state."""
    opened: dict[tuple[Path | str, ...], list[Opened]] = field(default_factory=dict, repr=False)
    """Stack config and its bound environments → the opened environments, until the plan uses them."""
    once: Once = field(default_factory=Once, repr=False)
    """Everything else."""

    def remember(self, stack: Stack, state: ClearState) -> None:
        """Keep the state for this run, or until `MOST_STATES` others were read after it."""
        with self.once.lock("states"):
            self.states[stack.reference] = state
            while len(self.states) > MOST_STATES:
                self.states.pop(next(iter(self.states)))

    def forget(self, stack: Stack) -> None:
        """Forget the stack's state, which may have changed, so that it is read again."""
        with self.once.lock("states"):
            self.states.pop(stack.reference, None)


@dataclass(frozen=True, kw_only=True)
class ClearState:
    """The state with its secrets, as `stack export --show-secrets` prints it."""

    export: pulumi.Export
    digest: str

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Output → value, nothing hidden."""
        return {str(name): unwrap_secrets(value) for name, value in self.export.outputs.items()}


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Absolute paths of the tools of a run."""

    pulumi: str
    pulumi_version: str
    helm: str = ""
    """Empty when there is none; only some tasks need it."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything a task works with. Made by `build_session`; nothing in it is looked up a second time."""

    root: Path
    state_dir: Path
    target: Target
    services: tuple[Service, ...]
    """Every service of the platform, as `runbooks/services.py` lists them."""
    runner: Runner
    journal: Journal
    masker: Masker
    reporter: Reporter
    context: KubeContext
    kubectl: Kubectl
    """Its kubeconfig is the run's own, with the checked context alone (0600, gone when the run ends)."""
    tools: Tools
    env: Mapping[str, str] = field(repr=False)
    """Variables that a pulumi child gets besides the allow-listed environment."""
    prepared: dict[str, Stack] = field(default_factory=dict, repr=False)
    known: Known = field(default_factory=Known, repr=False)
    """What the backend reported of the stacks."""

    def stack(self, service: Service) -> Stack:
        """The service's stack on this target; prepares and checks nothing."""
        folder = self.root / "pulumi" / service.folder
        settings = self.target.settings_dir
        own = settings / service.project_name if settings else None
        return Stack(
            service=service.name,
            project=service.project_name,
            name=self.target.stack,
            organization=self.target.organization,
            folder=folder,
            config_file=own / f"Pulumi.{self.target.stack}.yaml" if own else None,
            init_folder=own,
            program=self.tools.pulumi,
            # The lab's stacks are encrypted with a passphrase or by its cloud, so it gets no login of the user.
            env=self.env if self.target.ephemeral else {**self.env, **self._key_services(service)},
        )

    @property
    def esc(self) -> Esc:
        """The CLI of this run for environments. It stores a token of PULUMI_ACCESS_TOKEN in the run's folder only.

        pulumi 3.255 and newer write an opened environment's `files` into temporary files and leave them there: these
        are below the run's folder too, which is removed.
        """
        env = {**self.env, "TMPDIR": self.env["PULUMI_HOME"]}
        if "PULUMI_ACCESS_TOKEN" in env:
            env["PULUMI_CREDENTIALS_PATH"] = env["PULUMI_HOME"]
        program = find_program("esc") or self.target.own_tool("esc")
        if program is None:
            return Esc(program=self.tools.pulumi, is_pulumi=True, env=env)
        return Esc(program=str(program), is_pulumi=False, env=env)

    def with_reporter(self, reporter: LaterReporter) -> Session:
        """The same session, for work in a thread whose reports are shown later."""
        return replace(self, reporter=cast("Reporter", reporter))

    def with_variables(self, **variables: str) -> Session:
        """The same session, with more variables for the pulumi children of stacks that are prepared with it."""
        return replace(self, env={**self.env, **variables})

    def service(self, name: str) -> Service:
        """The service called `name`. Raises `NotFound` with the three nearest names."""
        return find(self.services, name)

    def _key_services(self, service: Service) -> dict[str, str]:
        """The login variables for the key services of its stack and of the stacks whose outputs it reads."""
        # pulumi decrypts the outputs of a stack reference with the key of the producer's stack.
        found: dict[str, str] = {}
        for each in (service, *map(self.service, service.reads_outputs_of)):
            file = self.root / "pulumi" / each.folder / f"Pulumi.{self.target.stack}.yaml"
            found |= access_variables(secrets_provider_of(file), os.environ)
        return found


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run needs before, or without, a target."""

    state_dir: Path
    masker: Masker
    reporter: Reporter
    journal: Journal
    runner: Runner
