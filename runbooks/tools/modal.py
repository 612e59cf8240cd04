"""modal: command lines and readers of its answers, and what an app's source refers to by name."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import LoginMissing, NotFound, OpsError, ToolFailed
from runbooks.core.names import check_name
from runbooks.core.search_path import find_beside_python, find_program

ANSWER_TIMEOUT = 60.0
KINDS = ("Secret", "Dict", "Volume", "Queue")


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something an app refers to by name."""

    kind: str
    name: str
    keys: tuple[str, ...] = ()
    """Variables a Secret must have."""
    made_by_deploy: bool = False
    """`create_if_missing=True`: the deploy creates it."""


def app_names(root: Path) -> list[str]:
    """The apps below `modal/`, each a file in a folder of the same name."""
    return sorted(path.stem for path in (root / "modal").glob("*/*.py") if path.stem == path.parent.name)


def app_file(root: Path, app: str) -> Path:
    """The file of an app. Raises `NotFound` with the nearest names."""
    name = check_name("Modal app", app, app_names(root), list_with="ls modal")
    return root / "modal" / name / f"{name}.py"


def needs_of(source: str) -> tuple[Need, ...]:
    """Every `modal.<Kind>.from_name(…)` of a source, each once; names may be constants of the module.

    Raises `ToolFailed` for a source that is not valid Python, or a name that is known only when it runs.
    """
    try:
        # Read, not imported: the app's packages may be in its image alone.
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ToolFailed(
            f"the app is not valid Python: {error.msg} (line {error.lineno})", expected="a module Modal can load"
        ) from error
    constants: dict[str, object] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Constant(value=value)):
                constants[variable] = value

    def value_of(node: ast.expr | None) -> object:
        if isinstance(node, ast.List):
            return tuple(str(value_of(element)) for element in node.elts)
        return node.value if isinstance(node, ast.Constant) else constants.get(getattr(node, "id", ""))

    needs = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="from_name", value=ast.Attribute(attr=kind) | ast.Name(id=kind))) if (
                kind in KINDS
            ):
                options = {keyword.arg: value_of(keyword.value) for keyword in node.keywords}
                name = value_of(node.args[0]) if node.args else options.get("name")
                if not isinstance(name, str) or not name:
                    raise ToolFailed(
                        f"line {node.lineno}: the name of a {kind} is neither a text nor a constant of the module",
                        expected="a name that can be looked for before the app is deployed",
                    )
                keys = options.get("required_keys")
                made = options.get("create_if_missing") is True
                required = keys if isinstance(keys, tuple) else ()
                needs.append(Need(kind=kind, name=name, keys=required, made_by_deploy=made))
    return tuple(dict.fromkeys(needs))


@dataclass(frozen=True, kw_only=True)
class Modal:
    """Builds commands for one modal program."""

    program: str
    env: Mapping[str, str]

    def token(self) -> Command:
        return self._read("token", "info", title="ask Modal for its login")

    def list(self, kind: str) -> Command:
        return self._read(kind.lower(), "list", "--json", title=f"list Modal's {kind}s")

    def deploy(self, file: Path, root: Path) -> Command:
        argv = (self.program, "deploy", str(file.relative_to(root)))
        return Command(argv=argv, cwd=root, env=self.env, title=f"deploy {file.stem} to Modal", mutates=True)

    def _read(self, *words: str, title: str) -> Command:
        return Command(argv=(self.program, *words), env=self.env, title=title, timeout=ANSWER_TIMEOUT)


def find_modal(environ: Mapping[str, str]) -> Modal:
    """The modal of this environment, else the one on PATH. Raises `ToolFailed` with the install command."""
    program = find_beside_python("modal") or find_program("modal")
    if not program:
        raise ToolFailed(
            "modal is not installed", expected="the group `modal` of this environment", next_step="uv sync"
        )
    env = {name: value for name, value in environ.items() if name.startswith("MODAL_")}
    return Modal(program=str(program), env=env)


def tokens(environ: Mapping[str, str], home: Path) -> list[str]:
    """The secrets of Modal's logins, from the environment and from Modal's config file, if that can be read."""
    found = [environ["MODAL_TOKEN_SECRET"]] if environ.get("MODAL_TOKEN_SECRET") else []
    path = Path(environ.get("MODAL_CONFIG_PATH") or home / ".modal.toml")
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8")).values()
    except (OSError, ValueError):
        return found
    stored = (profile.get("token_secret") for profile in profiles if isinstance(profile, dict))
    return [*found, *(str(value) for value in stored if value)]


def read_names(outcome: Outcome) -> frozenset[str]:
    """Read the names in a list. Raises the error for the failure."""
    if not outcome.ok:
        raise failure(outcome)
    try:
        # Whatever the case of the key: `Name` in some of its lists.
        rows = json.loads(outcome.stdout or "[]")
        return frozenset(str({key.lower(): value for key, value in row.items()}["name"]) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ToolFailed(f"{outcome.command.title}: the answer is not a list", next_step="modal --version") from error


def failure(outcome: Outcome) -> OpsError:
    """The error for a failing answer, whose usual cause is a missing login."""
    text = outcome.shown_stderr.strip() or outcome.shown_stdout.strip()
    if re.search("Token missing|Could not authenticate|Token validation failed", text):
        return LoginMissing(
            "not logged in to Modal",
            expected="a token: MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or ~/.modal.toml",
            next_step="modal token new",
        )
    if re.search("No such environment|not found", text, re.IGNORECASE):
        return NotFound(f"{outcome.command.title}: {text.splitlines()[-1][:200]}", next_step="modal environment list")
    last_lines = "".join(f"\n  {line}" for line in text.splitlines()[-6:]) or " no output"
    return ToolFailed(
        f"could not {outcome.command.title} (exit {outcome.exit_code}):{last_lines}",
        expected="an answer from Modal",
        next_step="check that api.modal.com can be reached, then run the same command again",
    )
