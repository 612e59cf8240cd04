"""esc: argv builders for `esc` and for `pulumi env`, whichever there is, and readers of what they answer.

Names are always three parts: with two the CLI probes both readings. The exit code alone proves nothing: `open`, `set`
and `edit -f` end with 0 although the environment has errors, so whatever is left on standard error is a failure
(esc 0.26, recorded in tests/contract/recorded/cloud; newer ones end with 1).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import LoginMissing, NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.tools.failures import UNREACHABLE, login_command

READ_TIMEOUT = 120.0
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
EVERY = "*"
"""In place of a name, where a whole organization is asked for."""
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
    def short(self) -> str:
        """As stack files and people write it."""
        return f"{self.project}/{self.name}"


def read_name(text: str, organization: str) -> EnvironmentName:
    """`project/env` or `organization/project/env`. Raises `Usage` for anything else, or another organization."""
    parts = text.split("/")
    if len(parts) == 2:
        parts = [organization, *parts]
    if len(parts) != 3 or not all(PART.fullmatch(part) for part in parts):
        raise Usage(
            f"{text!r} is no name of an environment",
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
    """An entry of a stack file: also with a version, or of the project `default` when it is one part."""
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
        """Prints every value in plaintext, in whatever format: confidential."""
        words = ("env", "open") if self.is_pulumi else ("open",)
        argv = (self.program, *words, name.full, "--format", "detailed")
        title = f"open the environment {name.short}"
        return Command(argv=argv, env=self.env, title=title, confidential=True, timeout=READ_TIMEOUT)

    def definition(self, name: EnvironmentName) -> Command:
        """Prints the definition with its secrets as ciphertext; confidential all the same, as servers differ."""
        title = f"read the definition of {name.short}"
        return self._env("get", name.full, "--definition", title=title, confidential=True)

    def init(self, name: EnvironmentName) -> Command:
        """Makes an empty environment: `init -f` with a bad definition would fail and leave one behind."""
        return self._changing("init", name.full, title=f"make the environment {name.short}")

    def edit(self, name: EnvironmentName, definition: str) -> Command:
        """Replaces the whole definition, whoever wrote the last one: look first."""
        title = f"replace the definition of {name.short}"
        return self._changing("edit", name.full, "--file", "-", title=title, stdin=definition.encode())

    def set_secret(self, name: EnvironmentName, path: str, value: str) -> Command:
        """The value travels on standard input, as text whatever it looks like: a number would crash the CLI."""
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


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of an opened environment that is no map with anything in it."""

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
        return kind_of(self.value)

    @property
    def loses_secretness(self) -> bool:
        """As `pulumiConfig` only texts stay secret; numbers and booleans become plain (pkg/workspace/config.go)."""
        return self.secret and self.kind in {"number", "true or false"}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An environment as it evaluates now."""

    values: tuple[Value, ...] = field(repr=False)

    def under(self, section: str) -> dict[str, Value]:
        """Values directly below `pulumiConfig`, `environmentVariables` or `files`, by their keys."""
        return {str(value.path[1]): value for value in self.values if len(value.path) == 2 and value.path[0] == section}

    @property
    def settings(self) -> dict[str, Value]:
        return self.under("pulumiConfig")

    @property
    def variables(self) -> dict[str, str]:
        """`environmentVariables` as a process gets them."""
        return {key: as_text(value.value) for key, value in self.under("environmentVariables").items()}

    def secret_texts(self) -> Iterator[str]:
        for value in self.values:
            if value.secret and value.value not in (None, ""):
                yield as_text(value.value)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, dict):
        return "map"
    if isinstance(value, list):
        return "list"
    return "nothing" if value is None else "text"


SIMPLE = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


def property_path(path: tuple[str | int, ...]) -> str:
    """`pulumiConfig["postgresql:host"]`, `list[0]`: as the CLIs take paths, to which only a quote is escaped."""
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
    """The keys of a path as people type it. Raises `Usage` for what is none."""
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
        raise Usage(
            f"{text!r} is no path of a value",
            expected="keys below `values`, such as pulumiConfig.token or 'pulumiConfig[\"a:b\"]' in the shell's quotes",
        )
    return tuple(parts)


def refuse_reference(value: str, path: tuple[str | int, ...], name: EnvironmentName) -> None:
    """Raise `Usage` for a secret that ESC takes for a reference: one with `${`, unless `$$` comes right before it.

    `$$` does not help: the evaluator reads `$${` as text, but stores and opens it with both `$` (pkg `eval` of
    github.com/pulumi/esc, EncryptSecrets and evaluateBuiltinSecret).
    """
    if "${" not in value.replace("$$", "  "):
        return
    place = shlex.quote(property_path((*path, "fn::fromBase64")))
    raise Usage(
        f"the value for {property_path(path)} has `${{` in it, which ESC takes for a reference",
        expected="a secret without `${`, or one in Base64; a `$$` before it would be stored too. Nothing was set",
        next_step=f'in environments/{name.short}.yaml write `fn::fromBase64: {{fn::secret: ""}}` there, '
        f"./inv esc.apply {name.short}, then pipe the value through base64 into ./inv esc.set {name.short} {place}",
    )


def read_opened(text: str) -> Opened:
    """Read `--format detailed`. Raises `ToolFailed` without the text, which holds clear secrets."""
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
    """The lines of `ls`; the CLI leaves the organization out where it is the person's own."""
    names = []
    for line in text.splitlines():
        parts = line.strip().split("/")
        if len(parts) == 2:
            parts = [organization, *parts]
        if len(parts) == 3 and parts[0] == organization:
            names.append(EnvironmentName(organization=parts[0], project=parts[1], name=parts[2]))
    return tuple(names)


def read_revision(text: str) -> int | None:
    """The revision that `edit` made, 0 where the CLI does not tell it; `None` when nothing was updated."""
    found = UPDATED.search(text)
    return int(found["revision"] or 0) if found else None


# What a failure means

HARMLESS = re.compile(
    r"^\s*$|^[┌│└]|^Logging in using access token|^warning: |^A new version of|^To upgrade from version|^Visit http"
)
"""Standard error that is no diagnostic: the notice that esc is retired, a login by token, news of a version, what the
service warns of (its header X-Pulumi-Warning). Diagnostics begin with the environment's name."""


def complaints(stderr: str) -> list[str]:
    """What is left of standard error: diagnostics and errors. Anything at all means that the command failed."""
    return [line.rstrip() for line in stderr.splitlines() if not HARMLESS.search(line)]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A failure we can explain; the texts may use the pattern's groups, `{name}` and `{login}`."""

    pattern: re.Pattern[str]
    error: type[OpsError]
    cause: str
    expected: str
    next_step: str


KNOWN = (
    Known(
        pattern=re.compile(r"does not support (?:Pulumi ESC|environments)"),
        error=Usage,
        cause="this backend does not support Pulumi ESC",
        expected="a Pulumi Cloud backend",
        next_step="`esc env ls` and `esc open` with a cloud login, or a target on the cloud (`pulumi login --cloud`)",
    ),
    Known(
        pattern=re.compile(r"PULUMI_ACCESS_TOKEN must be set|no credentials|\[401\]|invalid access token"),
        error=LoginMissing,
        cause="nobody is logged in to the backend that holds {name}",
        expected="a login, or PULUMI_ACCESS_TOKEN in the environment",
        next_step="{login}, then ./inv doctor",
    ),
    Known(
        # Where a definition names it: in its `imports:`.
        pattern=re.compile(
            r"(?m)(?P<at>^[^\s:]+:\d+:\d+: )?environment \"(?P<imported>[^\"]+)\" not found(?(at)|\s+on )"
        ),
        error=Usage,
        cause="{name} imports the environment {imported}, which is not there",
        expected="imports that this backend has",
        next_step="./inv esc.apply {imported} makes it from its file; or take it out of `imports:` in "
        "environments/{name}.yaml, then ./inv esc.apply {name}",
    ),
    Known(
        # What follows the number is each server's own.
        pattern=re.compile(r"(?im)^error: [^\n]*\[404\]|environment \"(?P<other>[^\"]+)\" not"),
        error=NotFound,
        cause="there is no environment {name} on this backend",
        expected="an environment that was applied",
        next_step="./inv esc.apply {name} makes it from environments/{name}.yaml; ./inv esc.list shows what there is",
    ),
    Known(
        pattern=re.compile(r"stack \"(?P<stack>[^\"]+)\" not found"),
        error=ToolFailed,
        cause="{name} reads the outputs of the stack {stack}, which is not there",
        expected="the producer's stack, deployed to this backend under that name",
        next_step="deploy the producer, or correct `stack:` in environments/{name}.yaml and ./inv esc.apply {name}",
    ),
    Known(
        pattern=re.compile(r"secret values must be string literals"),
        error=Usage,
        cause="{name} has a secret that is no text, or a text with `${{` in it",
        expected='`fn::secret: ""` in the file, and texts without `${{` set there',
        next_step="correct environments/{name}.yaml, then ./inv esc.apply {name}",
    ),
    Known(
        pattern=re.compile(r"\[409\]"),
        error=Refused,
        cause="somebody else changed {name} meanwhile",
        expected="the definition that was compared",
        next_step="./inv esc.apply {name} compares again",
    ),
    Known(
        pattern=re.compile(r"invalid path: (?P<why>[^\n]*)"),
        error=Usage,
        cause="that is no path of a value: {why}",
        expected="keys below `values`, such as pulumiConfig.token or 'pulumiConfig[\"a:b\"]' in the shell's quotes",
        next_step="./inv esc.open {name} shows the paths there are",
    ),
    Known(
        pattern=re.compile(UNREACHABLE),
        error=ToolFailed,
        cause="the backend did not answer: {url}: {why}",
        expected="the backend to be up, and a network that leads to it",
        next_step="./inv doctor, then the same command again",
    ),
    Known(
        pattern=re.compile(r"(?P<said>\[5\d\d\][^\n]*)"),
        error=ToolFailed,
        cause="the backend failed: {said}",
        expected="an answer",
        next_step="the same command again, later; ./inv doctor looks at login and backend",
    ),
)
DIAGNOSTIC = re.compile(r"^[^\s:]+/[^\s:]+:\d+:\d+: ", re.MULTILINE)
"""Where in a definition something is wrong: `stitch/prod:8:39: unknown property "nope"`."""


def judge(outcome: Outcome, name: EnvironmentName, mask: Callable[[str], str]) -> None:
    """Raise what the command's failure means, if it failed: by its exit code, or by what it said on standard error.

    `mask` takes secrets out of what is quoted: these commands are confidential, so nobody else has.
    """
    told = complaints(outcome.stderr)
    if outcome.ok and not told:
        return
    text = "\n".join(told)
    for known in KNOWN:
        found = known.pattern.search(text)
        if found is not None and not (known.error is NotFound and name.name == EVERY):
            facts = {key: mask(value or "?") for key, value in found.groupdict().items()}
            facts |= {"name": name.short, "login": login_command(outcome.command.env.get("PULUMI_BACKEND_URL", ""))}
            raise known.error(
                known.cause.format(**facts),
                expected=known.expected.format(**facts),
                next_step=known.next_step.format(**facts),
            )
    said = ":\n  " + "\n  ".join(mask(line) for line in told) if told else ", and said nothing"
    what = outcome.command.title or "that"
    next_step = "correct the cause, then the same command again; ./inv doctor looks at login and backend"
    if DIAGNOSTIC.search(text):
        next_step = f"correct environments/{name.short}.yaml where it says, then ./inv esc.apply {name.short}"
    raise ToolFailed(
        f"could not {what} (exit {outcome.exit_code}){said}",
        expected="an answer without diagnostics",
        next_step=next_step,
    )
