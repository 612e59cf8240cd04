"""modal: argv builders and readers, and what an app's source says must exist before it is deployed."""

from __future__ import annotations

import ast
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import LoginMissing, NotFound, OpsError, ToolFailed
from runbooks.core.names import known
from runbooks.core.search_path import find_program

ANSWER_TIMEOUT = 60.0
KINDS = ("Secret", "Dict", "Volume", "Queue")
LISTED = {"Secret": "secret", "Dict": "dict", "Volume": "volume", "Queue": "queue"}
"""The command group that lists each."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something an app refers to by name."""

    kind: str
    name: str
    keys: tuple[str, ...] = ()
    """Variables a Secret must have."""
    made_by_deploy: bool = False
    """`create_if_missing=True`: nobody has to make it first."""


def app_names(root: Path) -> list[str]:
    """Folders below `modal/` with a file of the same name."""
    return sorted(path.parent.name for path in (root / "modal").glob("*/*.py") if path.stem == path.parent.name)


def app_file(root: Path, app: str) -> Path:
    """Raises `NotFound` with the nearest names."""
    name = known("Modal app", app, app_names(root), list_with="ls modal")
    return root / "modal" / name / f"{name}.py"


def needs_of(source: str) -> tuple[Need, ...]:
    """Every `modal.<Kind>.from_name(…)` of a source, each once; names may be constants of the module.

    Raises `ToolFailed` for a source that is no Python, or a name that only running it would tell.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ToolFailed(
            f"the app is no Python: {error.msg} (line {error.lineno})", expected="a module Modal can load"
        ) from error
    constants = dict(_constants(tree))
    found = [_need(node, constants) for node in ast.walk(tree) if isinstance(node, ast.Call) and _kind(node)]
    return tuple(dict.fromkeys(found))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value.value


def _kind(call: ast.Call) -> str:
    """`Secret` of `modal.Secret.from_name(…)` or of `Secret.from_name(…)`; empty for any other call."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "from_name":
        return ""
    owner = call.func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name if name in KINDS else ""


def _need(call: ast.Call, constants: Mapping[str, str]) -> Need:
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    name = _text(call.args[0] if call.args else options.get("name"), constants)
    if not name:
        raise ToolFailed(
            f"line {call.lineno}: the name of a {_kind(call)} is neither a text nor a constant of the module",
            expected="a name that can be looked for before the app is deployed",
        )
    keys = options.get("required_keys")
    made = options.get("create_if_missing")
    return Need(
        kind=_kind(call),
        name=name,
        keys=tuple(_text(key, constants) for key in keys.elts) if isinstance(keys, ast.List) else (),
        made_by_deploy=isinstance(made, ast.Constant) and made.value is True,
    )


def _text(node: ast.expr | None, constants: Mapping[str, str]) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return constants.get(node.id, "") if isinstance(node, ast.Name) else ""


# Commands


@dataclass(frozen=True, kw_only=True)
class Modal:
    """Builds commands for one modal."""

    program: str
    env: Mapping[str, str]

    def token(self) -> Command:
        return self._read("token", "info", title="ask Modal who is logged in")

    def listed(self, kind: str) -> Command:
        return self._read(LISTED[kind], "list", "--json", title=f"list Modal's {kind}s")

    def deploy(self, file: Path, root: Path) -> Command:
        argv = (self.program, "deploy", str(file.relative_to(root)))
        return Command(argv=argv, cwd=root, env=self.env, title=f"deploy {file.stem} to Modal", mutates=True)

    def _read(self, *words: str, title: str) -> Command:
        return Command(argv=(self.program, *words), env=self.env, title=title, timeout=ANSWER_TIMEOUT)


def find_modal(environ: Mapping[str, str]) -> Modal:
    """The modal of this environment, else the one on PATH. Raises `ToolFailed` with the install command."""
    beside_python = Path(sys.executable).with_name("modal")
    program = beside_python if beside_python.exists() else find_program("modal")
    if not program:
        raise ToolFailed("there is no modal", expected="the group `modal` of this environment", next_step="uv sync")
    env = {name: value for name, value in environ.items() if name.startswith("MODAL_")}
    return Modal(program=str(program), env=env)


def tokens(environ: Mapping[str, str], home: Path) -> list[str]:
    """Secrets of Modal's logins: of the environment, and of its file; none where that cannot be read."""
    found = [environ["MODAL_TOKEN_SECRET"]] if environ.get("MODAL_TOKEN_SECRET") else []
    path = Path(environ.get("MODAL_CONFIG_PATH") or home / ".modal.toml")
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8")).values()
    except (OSError, ValueError):
        return found
    kept = (profile.get("token_secret") for profile in profiles if isinstance(profile, dict))
    return [*found, *(str(value) for value in kept if value)]


def read_names(outcome: Outcome) -> frozenset[str]:
    """Names in a list. Raises what the failure means."""
    if not outcome.ok:
        raise failure(outcome)
    try:
        rows = json.loads(outcome.stdout or "[]")
        return frozenset(str({key.lower(): value for key, value in row.items()}["name"]) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ToolFailed(f"{outcome.command.title}: the answer is no list", next_step="modal --version") from error


def failure(outcome: Outcome) -> OpsError:
    """What a failing answer means: most often that nobody is logged in."""
    said = outcome.shown_stderr.strip() or outcome.shown_stdout.strip()
    if "Token missing" in said or "Could not authenticate" in said or "Token validation failed" in said:
        return LoginMissing(
            "nobody is logged in to Modal",
            expected="a token: MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or ~/.modal.toml",
            next_step="modal token new",
        )
    if "No such environment" in said or "not found" in said.lower():
        return NotFound(f"{outcome.command.title}: {said.splitlines()[-1][:200]}", next_step="modal environment list")
    told = ":\n  " + "\n  ".join(said.splitlines()[-6:]) if said else ", and said nothing"
    return ToolFailed(
        f"could not {outcome.command.title} (exit {outcome.exit_code}){told}",
        expected="an answer from Modal",
        next_step="look whether api.modal.com can be reached, then run the same command again",
    )
