"""The type `Service`: one Pulumi project of the platform with what the runbooks need; and the order of services."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from runbooks.core.errors import Usage
from runbooks.core.names import check_name

PROGRAMS = Path(__file__).resolve().parents[2] / "pulumi"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting that a program requires, as its `settings.py` declares it."""

    key: str
    """The key, without the project's own namespace or as `namespace:key`."""
    about: str
    is_secret: bool = False
    generated: bool = False
    """Whether a random value is enough (`--generate`); if not, the user provides it. The lab generates all of them."""


@functools.cache
def required_settings(program: Path) -> tuple[Setting, ...]:
    """The settings without a default of the class `Settings` in a program's folder; none without such a file or class.

    Read from the source: importing it would load Pulumi's SDK. Why not from the `config:` block: docs/decisions/0017.
    """
    path = program / "settings.py"
    return tuple(_read_class(path, "Settings")) if path.is_file() else ()


def _read_class(path: Path, name: str) -> Iterator[Setting]:
    """The fields of a class, base classes first, as in dataclasses. A base class comes from a module of `pulumi/`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise Usage(
            f"{path}{line} is not valid Python", expected="the settings of the program, which are read from there"
        ) from error
    # A base class may stand in `pulumi/lib`, as the settings that all consumers of the database share.
    modules = {
        alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        return
    for base in found.bases:
        if isinstance(base, ast.Name) and (module := modules.get(base.id)):
            yield from _read_class(PROGRAMS / f"{module.replace('.', '/')}.py", base.id)
    for statement in found.body:
        match statement:
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
    """The setting that holds the reference, in the consumer's own namespace; it has no default."""
    producer: str
    """The service whose outputs it names."""
    outputs: tuple[str, ...] = ("ts_hostname|host", "port", "username", "password", "k8s_namespace")
    """The outputs that the program reads, by default those of `pulumi/lib/database.py`; `a|b` is either."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One Pulumi project of the platform and what the runbooks need to know of it."""

    name: str
    folder: str
    """Below `pulumi/`."""
    project: str = ""
    """Pulumi's project name; when empty, the folder's name."""
    about: str
    namespace: str = ""
    """Its default Kubernetes namespace; when empty, the project's name."""
    needs: tuple[str, ...] = ()
    reads_outputs_of: tuple[str, ...] = ()
    """Those of `needs` whose stack outputs it reads: the producer of its reference, or what its environment reads.
    Until they have outputs its preview would show made-up values, so it waits."""
    reference: Reference | None = None
    """How it reads those outputs: by stack reference, or"""
    environment: str = ""
    """by this ESC environment, `<project>/<env>`, which its stack files bind and which provides what it requires."""
    stateful: bool = False
    checks: tuple[str, ...] = ()
    """Its checks, by their names in `runbooks/checks/of_service.py`; the generic ones when empty."""
    exposed: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What it puts on the tailnet, as `svc/<name>` or `ingress/<name>` in its namespace → the output of its stack with
    the tailnet name, as a name, an address or a URL."""

    def __post_init__(self) -> None:
        # What a reference names is declared once.
        if self.reference and not self.reads_outputs_of:
            object.__setattr__(self, "reads_outputs_of", (self.reference.producer,))
        if not self.namespace:
            object.__setattr__(self, "namespace", self.project_name)

    @property
    def project_name(self) -> str:
        return self.project or self.folder.rsplit("/", 1)[-1]

    @property
    def environment_keys(self) -> tuple[Setting, ...]:
        """The keys that its environment must provide: every setting that its program requires."""
        return required_settings(PROGRAMS / self.folder) if self.environment else ()

    @property
    def secrets(self) -> tuple[Setting, ...]:
        """The secrets its stack config must have before a preview, set with `./inv secrets.set SERVICE KEY`."""
        return tuple(setting for setting in self._in_stack_config if setting.is_secret)

    @property
    def required(self) -> tuple[str, ...]:
        """Required keys that its stack configs hold in plaintext, besides the reference."""
        reference = self.reference.setting if self.reference else ""
        plain = (setting.key for setting in self._in_stack_config if not setting.is_secret)
        return tuple(key for key in plain if key != reference)

    @property
    def _in_stack_config(self) -> tuple[Setting, ...]:
        return () if self.environment else required_settings(PROGRAMS / self.folder)


def find(services: Iterable[Service], name: str) -> Service:
    """The service called `name`. Raises `NotFound` with the three nearest names."""
    by_name = {service.name: service for service in services}
    return by_name[check_name("service", name, by_name)]


def find_setting(service: Service, key: str) -> Setting:
    """The declared secret called `key`, with or without its namespace. Raises `NotFound` with the nearest names.

    Raises `Usage` where the service's secrets are in its ESC environment: in the stack config they would win over it.
    """
    bare = key.removeprefix(f"{service.project_name}:")
    if service.environment and not service.secrets:
        own = [entry.key for entry in service.environment_keys if entry.is_secret and ":" not in entry.key]
        set_it = f"./inv esc.set {service.environment} pulumiConfig."
        list_with = f"./inv esc.open {service.environment}; {set_it}<name> sets one"
        check_name(f"secret of {service.name}", bare, own, list_with=list_with)
        raise Usage(
            f"{service.name} takes its secrets from the environment {service.environment}, and not from its stack "
            "config",
            expected="the value set there",
            next_step=f"{set_it}{bare}",
        )
    by_key = {setting.key: setting for setting in service.secrets}
    list_with = f"./inv secrets.set {service.name} {next(iter(by_key))}" if by_key else "./inv doctor"
    return by_key[check_name(f"secret setting of {service.name}", bare, by_key, list_with=list_with)]


# Their order: what needs what, in layers whose members are independent of each other


def closure(names: Iterable[str], services: Iterable[Service]) -> set[str]:
    """The named services and everything they need, directly or not. Raises `Usage` for a need that is not a service."""
    known = {service.name: service for service in services}
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in known:
            needing = next((service.name for service in known.values() if name in service.needs), "the command")
            raise Usage(
                f"{needing} needs {name!r}, which is not a service",
                expected=f"one of {', '.join(sorted(known))}",
                next_step="correct `needs` in runbooks/services.py",
            )
        found.add(name)
        waiting.extend(known[name].needs)
    return found


def layers(names: Iterable[str], services: Sequence[Service]) -> list[tuple[Service, ...]]:
    """The named services in order: each layer needs only earlier ones, and keeps the order of `services`.

    A need that is not among `names` does not count: it is taken to be there. Raises `Usage` for a circle.
    """
    wanted = set(names)
    chosen = [service for service in services if service.name in wanted]
    sorter = TopologicalSorter({each.name: [need for need in each.needs if need in wanted] for each in chosen})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise Usage(
            f"these services need each other in a cycle: {circle}",
            expected="an order in which each can be deployed after what it needs",
            next_step="take one of them out of `needs` in runbooks/services.py, or split the shared part off",
        ) from error
    found: list[tuple[Service, ...]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(tuple(each for each in chosen if each.name in ready))
        sorter.done(*ready)
    return found


def consumers(name: str, services: Iterable[Service]) -> list[Service]:
    """Everything that needs the service, directly or not, in the order of `services`."""
    known = list(services)
    return [service for service in known if service.name != name and name in closure([service.name], known)]
