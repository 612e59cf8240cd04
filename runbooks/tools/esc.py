"""esc: command lines of `esc`, or of `pulumi env` where there is no esc, and readers of their answers.

Names always have three parts: with two the CLI probes both readings. The exit code alone proves nothing: `open`, `set`
and `edit --file` exit with 0 although the environment has errors, so any line on standard error is a failure (esc 0.26,
recorded in tests/contract/recorded/cloud; newer ones exit with 1).
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import LoginMissing, NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.core.runner import Runner
from runbooks.tools.failures import UNREACHABLE, KnownFailure, login_command
from runbooks.tools.pulumi import as_text

READ_TIMEOUT = 120.0
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
UPDATED = re.compile(r"Environment updated\.(?: \(revision (?P<revision>\d+)\))?")


@dataclass(frozen=True, kw_only=True)
class EnvironmentName:
    """An ESC environment, `<organization>/<project>/<name>`."""

    organization: str
    project: str
    name: str
    version: str = ""
    """Empty for the latest."""

    @property
    def full(self) -> str:
        return f"{self.organization}/{self.project}/{self.name}" + (f"@{self.version}" if self.version else "")

    @property
    def shown(self) -> str:
        """`project/name`, with the version where it is not the latest."""
        return self.short + (f"@{self.version}" if self.version else "")

    @property
    def short(self) -> str:
        """The name as stack configs and commands have it."""
        return f"{self.project}/{self.name}"


def read_name(text: str, organization: str) -> EnvironmentName:
    """`project/env` or `organization/project/env`. Raises `Usage` for anything else, or another organization."""
    parts = text.split("/")
    if len(parts) == 2:
        parts = [organization, *parts]
    if len(parts) != 3 or not all(PART.fullmatch(part) for part in parts):
        raise Usage(
            f"{text!r} is not a valid name of an environment",
            expected="<project>/<env> such as stitch/prod, without a version",
            next_step="./inv esc.list",
        )
    if parts[0] != organization:
        raise Usage(
            f"{text!r} is of the organization {parts[0]}",
            expected=f"an environment of {organization}, the organization of this target",
            next_step="./inv target.show",
        )
    return EnvironmentName(organization=parts[0], project=parts[1], name=parts[2])


def read_entry(text: str, organization: str) -> EnvironmentName:
    """Read an entry of a stack config, which may have a version. With one part only, its project is `default`."""
    bare, _, version = text.partition("@")
    name = read_name(bare if "/" in bare else f"default/{bare}", organization)
    return replace(name, version=version)


# Builders


@dataclass(frozen=True, kw_only=True)
class Esc:
    """Builds commands for the one program that a run uses."""

    program: str
    is_pulumi: bool
    """`pulumi env …` instead of `esc …`, which is retired upstream."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ls(self, organization: str) -> Command:
        return self._env("ls", "--organization", organization, title=f"list the environments of {organization}")

    def open(self, name: EnvironmentName) -> Command:
        """Prints every value in plaintext, so it is confidential in every format."""
        words = ("env", "open") if self.is_pulumi else ("open",)
        argv = (self.program, *words, name.full, "--format", "detailed")
        title = f"open the environment {name.short}"
        return Command(argv=argv, env=self.env, title=title, confidential=True, timeout=READ_TIMEOUT)

    def definition(self, name: EnvironmentName) -> Command:
        """Prints the definition with encrypted secrets. Confidential, as not every server may encrypt them."""
        title = f"read the definition of {name.short}"
        return self._env("get", name.full, "--definition", title=title, confidential=True)

    def init(self, name: EnvironmentName) -> Command:
        """Creates an empty environment: `init --file` with a wrong definition would fail and leave one behind."""
        return self._changing("init", name.full, title=f"create the environment {name.short}")

    def edit(self, name: EnvironmentName, definition: str) -> Command:
        """Replaces the whole definition without an ETag: compare first."""
        title = f"replace the definition of {name.short}"
        return self._changing("edit", name.full, "--file", "-", title=title, stdin=definition.encode())

    def set_secret(self, name: EnvironmentName, path: str, value: str) -> Command:
        """Sets a secret from standard input, always as text: a number would crash the CLI."""
        words = ("set", name.full, path, "--secret", "--string", "--file", "-")
        return self._changing(*words, title=f"set {path} of {name.short}", stdin=value.encode())

    def remove(self, name: EnvironmentName) -> Command:
        return self._changing("rm", name.full, "--yes", title=f"remove the environment {name.short}")

    def _env(self, *words: str, title: str, confidential: bool = False) -> Command:
        argv = (self.program, "env", *words)
        return Command(argv=argv, env=self.env, title=title, confidential=confidential, timeout=READ_TIMEOUT)

    def _changing(self, *words: str, title: str, stdin: bytes | None = None) -> Command:
        argv = (self.program, "env", *words)
        return Command(argv=argv, env=self.env, title=title, mutates=True, confidential=True, stdin=stdin)


# Answers

KIND_NAMES = {bool: "true or false", int: "number", float: "number", dict: "map", list: "list", type(None): "nothing"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of an opened environment; maps and lists only if they are empty."""

    path: tuple[str | int, ...]
    value: Any = field(repr=False)
    secret: bool = False
    unknown: bool = False
    origin: str = ""
    """Where it is defined, `stitch/prod:10:22`."""

    @property
    def shown_path(self) -> str:
        return property_path(self.path)

    @property
    def kind(self) -> str:
        return KIND_NAMES.get(type(self.value), "text")

    @property
    def becomes_plaintext(self) -> bool:
        """Whether it is secret here and plaintext in the config: only texts stay secret (pkg/workspace/config.go)."""
        return self.secret and self.kind in {"number", "true or false"}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The evaluated values of an environment."""

    values: tuple[Value, ...] = field(repr=False)

    def under(self, section: str) -> dict[str, Value]:
        """Values directly below `pulumiConfig`, `environmentVariables` or `files`, by their keys."""
        return {str(value.path[1]): value for value in self.values if len(value.path) == 2 and value.path[0] == section}

    @property
    def settings(self) -> dict[str, Value]:
        return self.under("pulumiConfig")

    @property
    def variables(self) -> dict[str, str]:
        """The `environmentVariables`, as a process receives them."""
        return {key: as_text(value.value) for key, value in self.under("environmentVariables").items()}

    def secret_texts(self) -> Iterator[str]:
        for value in self.values:
            if value.secret and value.value not in (None, ""):
                yield as_text(value.value)


SIMPLE = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


def property_path(path: tuple[str | int, ...]) -> str:
    """The path as the CLIs accept it: `pulumiConfig["postgresql:host"]`, `list[0]`. Only quotes are escaped."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif SIMPLE.fullmatch(part):
            text += f".{part}" if text else part
        else:
            quoted = part.replace('"', '\\"')
            text += f'["{quoted}"]'
    return text


PATH_PART = re.compile(
    r"""\.?(?P<bare>[^.\[\]"\s]+)|\["(?P<quoted>(?:[^"\\]|\\"|\\(?!"))*)"\]|\[(?P<number>\d+)\]""",
)


def read_path(text: str) -> tuple[str | int, ...]:
    """Read the keys of a typed path. Raises `Usage` for an invalid one."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        found = PATH_PART.match(text, at)
        if found is None or (not parts and text.startswith(".")):
            break
        bare, quoted, number = found["bare"], found["quoted"], found["number"]
        parts.append(int(number) if number else bare or quoted.replace('\\"', '"'))
        at = found.end()
    if at < len(text) or not parts:
        raise Usage(f"{text!r} is not a valid path of a value", expected=PATHS)
    return tuple(parts)


def refuse_reference(value: str, path: tuple[str | int, ...], name: EnvironmentName) -> None:
    """Raise `Usage` for a secret that ESC reads as a reference: one with `${`, unless `$$` comes right before it.

    `$$` does not help: the evaluator reads `$${` as text, but stores and opens it with both `$` (pkg `eval` of
    github.com/pulumi/esc, EncryptSecrets and evaluateBuiltinSecret).
    """
    if "${" not in value.replace("$$", "  "):
        return
    place = shlex.quote(property_path((*path, "fn::fromBase64")))
    raise Usage(
        f"the value for {property_path(path)} has `${{` in it, which ESC reads as a reference",
        expected="a secret without `${`, or one in Base64; a `$$` before it would be stored too. Nothing was set",
        next_step=f'in environments/{name.short}.yaml write `fn::fromBase64: {{fn::secret: ""}}` there, '
        f"./inv esc.apply {name.short}, then pipe the value through base64 into ./inv esc.set {name.short} {place}",
    )


def read_opened(text: str) -> Opened:
    """Read `--format detailed`. Raises `ToolFailed` without the text, which contains secrets in plaintext."""
    try:
        answer = json.loads(text)
        return Opened(values=tuple(_values(answer, (), inherited=False)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ToolFailed(
            f"the opened environment cannot be read ({len(text)} characters that are not the expected JSON)",
            expected="the JSON of `--format detailed`, as esc 0.26 and pulumi 3.260 print it",
            next_step="./inv doctor",
        ) from error


def _values(node: Mapping[str, Any], path: tuple[str | int, ...], *, inherited: bool) -> Iterator[Value]:
    value = node.get("value")
    secret = inherited or bool(node.get("secret"))
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _values(inner, (*path, key), inherited=secret)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _values(inner, (*path, number), inherited=secret)
    elif path:
        yield Value(path=path, value=value, secret=secret, unknown=bool(node.get("unknown")), origin=_origin(node))


def _origin(node: Mapping[str, Any]) -> str:
    where = (node.get("trace") or {}).get("def") or {}
    begin = where.get("begin") or {}
    name = where.get("environment") or ""
    return f"{name}:{begin.get('line', 0)}:{begin.get('column', 0)}" if name else ""


def read_list(text: str, organization: str) -> tuple[EnvironmentName, ...]:
    """Read the lines of `ls`; the CLI omits the organization if it is the user's own."""
    names = []
    for line in text.splitlines():
        with contextlib.suppress(Usage):  # an environment of another organization, or another line
            names.append(read_name(line.strip(), organization))
    return tuple(names)


def read_revision(text: str) -> int | None:
    """The revision that `edit` created, 0 if the CLI does not print it; `None` if nothing was updated."""
    found = UPDATED.search(text)
    return int(found["revision"] or 0) if found else None


# Failures

HARMLESS = re.compile(
    r"^\s*$|^[┌│└]|^Logging in using access token|^warning: |^A new version of|^To upgrade from version|^Visit http"
)
"""Standard error that is not a diagnostic: the notice that esc is retired, a login by token, news of a version,
warnings of the service (its header X-Pulumi-Warning)."""
DIAGNOSTIC = re.compile(r"^(?:[^\s:]+/[^\s:]+:\d+:\d+: |  on \S+/\S+ line \d+:)", re.MULTILINE)
"""A line that reports an error in a definition: `stitch/prod:8:39: unknown …`, or `  on stitch/prod line 8:`."""
PATHS = "keys below `values`, such as pulumiConfig.token or 'pulumiConfig[\"a:b\"]' in the shell's quotes"

KNOWN = (
    KnownFailure(
        r"does not support (?:Pulumi ESC|environments)",
        "this backend does not support Pulumi ESC",
        "a Pulumi Cloud backend",
        "`esc env ls` and `esc open` with a cloud login, or a target on the cloud (`pulumi login --cloud`)",
        error=Usage,
    ),
    KnownFailure(
        r"PULUMI_ACCESS_TOKEN must be set|no credentials|\[401\]|invalid access token",
        "not logged in to the backend of {name}",
        "a login, or PULUMI_ACCESS_TOKEN in the environment",
        "{login}, then ./inv doctor",
        error=LoginMissing,
    ),
    KnownFailure(
        # With a place in the definition: in its `imports:`.
        r"(?m)(?P<at>^[^\s:]+:\d+:\d+: )?environment \"(?P<imported>[^\"]+)\" not found(?(at)|\s+on )",
        "{name} imports the environment {imported}, which does not exist",
        "imports that this backend has",
        "./inv esc.apply {imported} creates it from its file; or remove it from `imports:` in "
        "environments/{name}.yaml, then ./inv esc.apply {name}",
        error=Usage,
    ),
    KnownFailure(
        # What follows the number differs between servers.
        r"(?im)^error: [^\n]*\[404\]|environment \"(?P<other>[^\"]+)\" not",
        "there is no environment {name} on this backend",
        "an environment that was applied",
        "./inv esc.apply {name} creates it from environments/{name}.yaml; ./inv esc.list shows which there are",
        error=NotFound,
    ),
    KnownFailure(
        r"stack \"(?P<stack>[^\"]+)\" not found",
        "{name} reads the outputs of the stack {stack}, which does not exist",
        "the producer's stack, deployed to this backend under that name",
        "deploy the producer, or correct `stack:` in environments/{name}.yaml and ./inv esc.apply {name}",
    ),
    KnownFailure(
        r"(?:on \S+ line \d+: |(?P<at>\S+:\d+:\d+)[^\n]*)?decrypting: internal error",
        "{name} holds a secret that was encrypted for another environment: a `ciphertext` that was copied",
        "secrets that were set in this environment",
        "./inv esc.set {name} PATH for each secret that was copied",
        error=Usage,
    ),
    KnownFailure(
        r"secret values must be string literals",
        "{name} has a secret that is not a text, or a text with `${{` in it",
        '`fn::secret: ""` in the file, and texts without `${{` set there',
        "correct environments/{name}.yaml, then ./inv esc.apply {name}",
        error=Usage,
    ),
    KnownFailure(
        r"\[409\]",
        "{name} changed on the backend in the meantime",
        "the definition that was compared",
        "./inv esc.apply {name} compares again",
        error=Refused,
    ),
    KnownFailure(
        r"invalid path: (?P<why>[^\n]*)",
        "not a valid path of a value: {why}",
        PATHS,
        "./inv esc.open {name} shows the paths there are",
        error=Usage,
    ),
    KnownFailure(
        UNREACHABLE,
        "the backend did not answer: {url}: {why}",
        "the backend to be up, and a network that leads to it",
        "./inv doctor, then the same command again",
    ),
    KnownFailure(
        r"(?P<line>\[5\d\d\][^\n]*)",
        "the backend failed: {line}",
        "an answer",
        "the same command again, later; ./inv doctor looks at login and backend",
    ),
)


def complaints(stderr: str) -> list[str]:
    """Diagnostics and errors on standard error, without notices. A single one means that the command failed."""
    return [line.rstrip() for line in stderr.splitlines() if not HARMLESS.search(line)]


def ask(
    runner: Runner,
    command: Command,
    name: EnvironmentName | None,
    mask: Callable[[str], str],
    *,
    diagnostics: type[OpsError] = ToolFailed,
    after_interrupt: bool = False,
) -> str:
    """The answer to a command on an environment, or on the whole organization. Raises the errors of `judge`."""
    outcome = runner.run(command, after_interrupt=after_interrupt)
    judge(outcome, name, mask, diagnostics=diagnostics)
    return outcome.stdout


def judge(
    outcome: Outcome,
    name: EnvironmentName | None,
    mask: Callable[[str], str],
    *,
    diagnostics: type[OpsError] = ToolFailed,
) -> None:
    """Raise the error for the command's failure, if it failed: by its exit code, or by its standard error.

    `name` is `None` for a command on a whole organization. `mask` removes secrets from what is quoted, as these
    commands are confidential. `diagnostics` is the class of an error about the definition itself.
    """
    lines = complaints(outcome.stderr)
    if outcome.ok and not lines:
        return
    text = mask("\n".join(lines))
    login = login_command(outcome.command.env.get("PULUMI_BACKEND_URL", ""))
    facts = {"name": name.short if name else "the organization", "login": login}
    for known in KNOWN:
        error = known.explain(text, facts)
        # On a whole organization a 404 is not about an environment.
        if error is not None and not (known.error is NotFound and name is None):
            raise error
    if name is not None and DIAGNOSTIC.search(text):
        kind, next_step = diagnostics, f"correct environments/{name.short}.yaml, then ./inv esc.apply {name.short}"
    else:
        kind = ToolFailed
        next_step = "correct the cause, then the same command again; ./inv doctor looks at login and backend"
    quoted = ":\n  " + text.replace("\n", "\n  ") if lines else " without a message"
    raise kind(
        f"could not {outcome.command.title or 'run esc'} (exit {outcome.exit_code}){quoted}",
        expected="an answer without diagnostics",
        next_step=next_step,
    )
