"""What a service is: one Pulumi project of the platform and what the runbooks need to know of it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.errors import Usage
from runbooks.core.names import known

PROGRAMS = Path(__file__).resolve().parents[2] / "pulumi"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting that a program requires, as its `settings.py` declares it."""

    key: str
    """As in the project's own namespace, or `namespace:key`."""
    about: str
    is_secret: bool = False
    generated: bool = False
    """A random value will do (`--generate`); otherwise the user has to bring it. The lab generates every one."""


@functools.cache
def required_settings(program: Path) -> tuple[Setting, ...]:
    """The settings without a default of the class `Settings` in a program's folder; none without such a file or class.

    Read from the source: importing it would load Pulumi's SDK. Why not from the `config:` block: docs/decisions/0017.
    """
    path = program / "settings.py"
    return tuple(_read_class(path, "Settings")) if path.is_file() else ()


def _read_class(path: Path, name: str) -> Iterator[Setting]:
    """Those of the base classes first, as dataclasses have them; a base is imported from a module of `pulumi/`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise Usage(
            f"{path}{line} is not valid Python", expected="the settings of the program, which are read from there"
        ) from error
    modules = {
        alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        return
    for base in found.bases:
        module = modules.get(base.id) if isinstance(base, ast.Name) else None
        if isinstance(base, ast.Name) and module:
            yield from _read_class(PROGRAMS / f"{module.replace('.', '/')}.py", base.id)
    for field in found.body:
        match field:
            case ast.AnnAssign(
                target=ast.Name(id=attribute),
                value=ast.Call(
                    func=ast.Name(id="setting" | "secret" as kind),
                    args=[ast.Constant(value=about), *_],
                    keywords=keywords,
                ),
            ):
                options = {word.arg: getattr(word.value, "value", None) for word in keywords}
                if "default" not in options and not options.get("optional"):
                    yield Setting(
                        key=str(options.get("key") or attribute),
                        about=str(about),
                        is_secret=kind == "secret",
                        generated=options.get("generated") is True,
                    )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A stack reference that a program requires: `<organization>/<project of the producer>/<stack>`."""

    setting: str
    """Of the consumer's own namespace; it has no default."""
    producer: str
    """The service whose outputs it names."""
    outputs: tuple[str, ...] = ("ts_hostname|host", "port", "username", "password", "k8s_namespace")
    """What the program reads of them; `a|b` is either. As `pulumi/lib/database.py` asks for them."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One Pulumi project of the platform and what the runbooks need to know of it."""

    name: str
    folder: str
    """Below `pulumi/`."""
    project: str = ""
    """Pulumi's name for it; the folder's name when empty."""
    about: str
    namespace: str = ""
    """The Kubernetes namespace it lives in by default; called like the project when empty."""
    needs: tuple[str, ...] = ()
    reads_outputs_of: tuple[str, ...] = ()
    """Those of `needs` whose stack outputs it reads, by stack reference or environment: until they have outputs, its
    preview would show made-up values, so it waits."""
    reference: Reference | None = None
    """How it reads those outputs: by stack reference, or"""
    environment: str = ""
    """by this ESC environment, `<project>/<env>`, which its stack files bind and which provides what it requires."""
    stateful: bool = False
    checks: tuple[str, ...] = ()
    """Its checks, by their names in `runbooks/checks/of_service.py`; the generic ones when empty."""
    exposed: tuple[str, ...] = ()
    """Services and Ingresses it puts on the tailnet, as `svc/<name>` or `ingress/<name>` in its namespace."""

    def __post_init__(self) -> None:
        if not self.namespace:
            object.__setattr__(self, "namespace", self.project_name)

    @property
    def project_name(self) -> str:
        return self.project or self.folder.rsplit("/", 1)[-1]

    @property
    def environment_keys(self) -> tuple[Setting, ...]:
        """What its environment must provide: every setting that its program requires."""
        return required_settings(PROGRAMS / self.folder) if self.environment else ()

    @property
    def secrets(self) -> tuple[Setting, ...]:
        """The secrets its stack config must have before a preview, set with `./inv secrets.set SERVICE KEY`."""
        return tuple(setting for setting in self._in_stack_config if setting.is_secret)

    @property
    def required(self) -> tuple[str, ...]:
        """Keys without a default that its stack files hold in plaintext, besides the reference."""
        reference = self.reference.setting if self.reference else ""
        plain = (setting.key for setting in self._in_stack_config if not setting.is_secret)
        return tuple(key for key in plain if key != reference)

    @property
    def _in_stack_config(self) -> tuple[Setting, ...]:
        return () if self.environment else required_settings(PROGRAMS / self.folder)


def find(services: Iterable[Service], name: str) -> Service:
    """The service called `name`. Raises `NotFound` with the three nearest names."""
    by_name = {service.name: service for service in services}
    return by_name[known("service", name, by_name)]
