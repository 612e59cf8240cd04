"""What a command works on: back end, project, stack, its settings and its secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.engine.backend import FileBackend, StackName, read_stack_name
from lab.engine.failures import CommandFailed, LoginMissing, StackNotFound, UsageError
from lab.engine.guard import lab_backend
from lab.engine.passphrase import Crypter, PassphraseManager
from lab.engine.project import Project, StackSettings, find_project, read_stack_settings, write_salt
from lab.engine.state import salt_of

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
    backend: FileBackend
    config_file: Path | None = None

    @classmethod
    def open(cls, *, cwd: str = "", config_file: str = "") -> Session:
        """Refuses any back end but the lab's."""
        folder = Path(cwd).absolute() if cwd else Path.cwd()
        if not folder.is_dir():
            raise UsageError(f"chdir {folder}: no such file or directory")
        settings = Path(config_file).absolute() if config_file else None
        return cls(dict(os.environ), folder, FileBackend(lab_backend(os.environ)), settings)

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
        name = read_stack_name(text, project.name)
        if not self.backend.has_stack(name):
            raise StackNotFound(given or name.stack)
        return name

    # -- settings and secrets ------------------------------------------------------------------------------------

    def settings_file(self, project: Project, name: StackName) -> Path:
        return self.config_file or project.stack_file(name.stack)

    def settings(self, project: Project, name: StackName) -> StackSettings:
        return read_stack_settings(self.settings_file(project, name), project.name)

    def refuse_environments(self, settings: StackSettings) -> None:
        if settings.environments:
            raise CommandFailed(
                "getting stack configuration: opening environment: " + NO_ENVIRONMENTS.format(host=os.uname().nodename)
            )

    def secrets_of_settings(self, settings: StackSettings, deployment: Mapping[str, Any]) -> PassphraseManager | None:
        """By the settings' salt, else by the state's; ``None`` when neither has one."""
        salt = settings.salt or salt_of(dict(deployment))
        return PassphraseManager(salt, self.environment) if salt else None

    def secrets_for_writing(self, settings: StackSettings) -> PassphraseManager:
        """Makes a salt, and writes it to the settings file, when there is none."""
        if settings.salt:
            return PassphraseManager(settings.salt, self.environment)
        manager = PassphraseManager.create(self.environment)
        write_salt(settings.path, manager.salt)
        return manager

    def crypter_of_state(self, deployment: Mapping[str, Any]) -> Crypter | None:
        salt = salt_of(dict(deployment))
        return PassphraseManager(salt, self.environment).crypter if salt else None


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def refuse_cloud(environment: Mapping[str, str]) -> None:
    """``pulumi env …`` needs the cloud, and there is no login here."""
    if not environment.get("PULUMI_ACCESS_TOKEN"):
        raise LoginMissing(
            "could not determine current cloud: PULUMI_ACCESS_TOKEN must be set for login during non-interactive "
            "CLI sessions"
        )
    backend = environment.get("PULUMI_BACKEND_URL", "")
    raise CommandFailed(f"{backend} does not support Pulumi ESC. The lab's stand-in has file back ends only")
