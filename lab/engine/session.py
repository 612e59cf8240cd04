"""What a command works on: back end, project, stack, its settings and its secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.engine.backend import Backend, FileBackend, StackName
from lab.engine.failures import CommandFailed, StackNotFound, UsageError
from lab.engine.guard import lab_backend
from lab.engine.passphrase import PassphraseManager
from lab.engine.project import Project, StackSettings, find_project, read_stack_settings, write_salt
from lab.engine.secrets_manager import Crypter, SecretsManager

if TYPE_CHECKING:
    from lab.engine.environments import Environment
    from lab.esc.client import EscClient

NO_STACK = "no stack selected; please use `pulumi stack select` or `pulumi stack init` to choose one"
NO_ENVIRONMENTS = (
    "backend {host} does not support environments; Pulumi ESC environments require the Pulumi Cloud backend, use "
    "`pulumi login` without arguments to log into the Pulumi Cloud backend"
)


@dataclass(frozen=True)
class Session:
    """``config_file`` is the path given with ``--config-file``, absolute."""

    environment: Mapping[str, str]
    folder: Path
    backend: Backend
    config_file: Path | None = None
    _opened: dict[str, Environment] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, *, cwd: str = "", config_file: str = "") -> Session:
        """Refuses any back end but the lab's."""
        folder = Path(cwd).absolute() if cwd else Path.cwd()
        if not folder.is_dir():
            raise UsageError(f"chdir {folder}: no such file or directory")
        settings = Path(config_file).absolute() if config_file else None
        return cls(dict(os.environ), folder, open_backend(os.environ), settings)

    def project(self) -> Project:
        return find_project(self.folder)

    # -- the selected stack --------------------------------------------------------------------------------------

    def _selection_file(self, project: Project) -> Path:
        home = self.environment.get("PULUMI_HOME") or str(Path(self.environment.get("HOME", "/")) / ".pulumi")
        digest = hash_of(str(project.folder))
        return Path(home) / "workspaces" / f"{project.name}-{digest}-workspace.json"

    def selected(self, project: Project) -> str:
        """The stack's full name, "" when none is selected."""
        try:
            document = json.loads(self._selection_file(project).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(document.get("stack", ""))

    def select(self, project: Project, name: StackName) -> None:
        file = self._selection_file(project)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps({"stack": name.qualified}), encoding="utf-8")

    def stack_name(self, project: Project, given: str) -> StackName:
        """Of an existing stack: the one given, else the selected one."""
        text = given or self.selected(project)
        if not text:
            raise CommandFailed(NO_STACK)
        name = self.backend.read_name(text, project.name)
        if not self.backend.has_stack(name):
            raise StackNotFound(given or name.stack)
        return name

    # -- settings and secrets ------------------------------------------------------------------------------------

    def settings_file(self, project: Project, name: StackName) -> Path:
        return self.config_file or project.stack_file(name.stack)

    def settings(self, project: Project, name: StackName) -> StackSettings:
        return read_stack_settings(self.settings_file(project, name), project.name)

    def secrets_of_settings(
        self, settings: StackSettings, deployment: Mapping[str, Any], name: StackName
    ) -> SecretsManager | None:
        """By the settings' salt, else as the state says, else the cloud's; ``None`` for a file back end without any."""
        if settings.salt:
            return PassphraseManager(settings.salt, self.environment)
        return self.secrets_of_state(deployment) or self._service(name)

    def secrets_for_writing(self, settings: StackSettings, name: StackName) -> SecretsManager:
        """With a file back end it makes a salt, and writes it to the settings file, when there is none."""
        if settings.salt:
            return PassphraseManager(settings.salt, self.environment)
        service = self._service(name)
        if service is not None:
            return service
        manager = PassphraseManager.create(self.environment)
        write_salt(settings.path, manager.salt)
        return manager

    def secrets_of_state(self, deployment: Mapping[str, Any]) -> SecretsManager | None:
        """``None`` for a state that has never had secrets."""
        document = deployment.get("secrets_providers") or {}
        kind, state = document.get("type"), document.get("state") or {}
        if not kind:
            return None
        if kind == "passphrase":
            return PassphraseManager(str(state.get("salt", "")), self.environment)
        name = StackName(str(state.get("project")), str(state.get("stack")), str(state.get("owner")))
        service = self._service(name) if kind == "service" else None
        if service is None:
            raise CommandFailed(
                f"the state's secrets were encrypted by '{kind}', which {self.backend.url} does not have; export the "
                "stack with `--show-secrets` where it was made and import that"
            )
        return service

    def _service(self, name: StackName) -> SecretsManager | None:
        from lab.engine.cloud_backend import CloudBackend

        return self.backend.secrets(name) if isinstance(self.backend, CloudBackend) else None

    def crypter_of_state(self, deployment: Mapping[str, Any]) -> Crypter | None:
        manager = self.secrets_of_state(deployment)
        return manager.crypter if manager is not None else None

    # -- ESC environments ----------------------------------------------------------------------------------------

    def esc(self) -> EscClient:
        """Raises ``CommandFailed`` with a file back end."""
        from lab.engine.cloud_backend import CloudBackend
        from lab.esc.client import EscClient

        if not isinstance(self.backend, CloudBackend):
            raise CommandFailed(NO_ENVIRONMENTS.format(host=os.uname().nodename))
        return EscClient(self.backend.client, self.backend.organization)

    def opened(self, settings: StackSettings) -> Environment:
        """The settings' environments, opened once a command; an empty one when there are none."""
        from lab.engine.environments import FAILED, Environment, open_environments

        if not settings.environments:
            return Environment()
        key = json.dumps(settings.environments, sort_keys=True)
        if key not in self._opened:
            self._opened[key] = self._asking(FAILED, lambda esc: open_environments(esc, settings.environments))
        return self._opened[key]

    def checked(self, settings: StackSettings) -> Environment:
        """The same without opening."""
        from lab.engine.environments import Environment, check_environments

        if not settings.environments:
            return Environment()
        return self._asking("", lambda esc: check_environments(esc, settings.environments))

    def _asking(self, before: str, ask: Callable[[EscClient], Environment]) -> Environment:
        try:
            esc = self.esc()
        except CommandFailed as error:
            if not before or error.exit_code != 1:
                raise
            raise CommandFailed(f"{before}{error}") from error
        return ask(esc)

    def with_variables(self, variables: Mapping[str, str]) -> Session:
        """What an environment sets reaches this process and the program, as with the real CLI."""
        os.environ.update(variables)
        return replace(self, environment={**self.environment, **variables})


def open_backend(environment: Mapping[str, str]) -> Backend:
    """The lab's, as ``PULUMI_BACKEND_URL`` says it: files or cloud."""
    found = lab_backend(environment)
    if not found.is_cloud:
        return FileBackend(found.url)
    from lab.engine.cloud_backend import CloudBackend

    return CloudBackend(found.url, found.organization, environment)


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
