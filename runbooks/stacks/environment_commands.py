"""Runs commands with an environment's variables: only commands that read, masked, with their own exit code."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from runbooks.core.command import Command
from runbooks.core.errors import NotFound, Refused, ToolFailed, Usage
from runbooks.core.files import make_folder, write_new
from runbooks.stacks.preparation import prepare
from runbooks.stacks.session import Session
from runbooks.stacks.wiring import consumer_of
from runbooks.tools.esc import EnvironmentName, Opened
from runbooks.tools.pulumi_home import ENVIRONMENT_FILES
from runbooks.tools.stack import Stack

EXAMPLE = "./inv esc.run stitch/prod -- pulumi preview"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


READING: Mapping[str, frozenset[str]] = {
    "pulumi": words(
        "about config logs preview stack-export stack-graph stack-history stack-ls stack-output version whoami"
    ),
    "kubectl": words(
        "api-resources api-versions auth-can-i auth-whoami cluster-info config-current-context config-get-contexts "
        "describe diff events explain get logs rollout-history rollout-status top version wait"
    ),
    "helm": words(
        "dependency-list get-metadata get-notes history lint list ls search show status template verify version"
    ),
    "esc": words("env-diff env-get env-ls version"),
}
"""Tool → its allowed commands. A dash joins two words of the command line."""
PRINTING_SECRETS: Mapping[str, frozenset[str]] = {
    "pulumi": words("env-open esc-open"),
    "helm": words("get-all get-hooks get-manifest get-values"),
    "esc": words("open env-open"),
}
"""Tool → commands that print plaintext secrets that the masker does not know."""
OF_SECRETS = re.compile(r"(?:^|[,/])secrets?(?:\.[^,/]*)?(?:[,/?]|$)", re.IGNORECASE)
"""Secrets among the resources of a kubectl command: `secret/x`, `pods,secrets`, `/api/v1/namespaces/x/secrets`."""
WITHOUT_VALUES = frozenset({"", "name", "wide"})
"""Outputs of kubectl in which a Secret shows its name and size alone."""
OUTPUT = re.compile(r"(?:-o|--output)=?(?P<form>.*)")
WITHOUT_PROJECT = words("about stack-ls version whoami")
"""Commands of pulumi that need no project."""
SHELLS = words("ash bash csh dash fish ksh sh tcsh zsh")
STARTERS = words("command doas eval exec nice nohup parallel setsid stdbuf sudo time timeout watch xargs")
TAKE_A_VALUE = words("-n --namespace --context --kube-context --kubeconfig -C --cwd -s --stack --config-file -l -o -f")
PLAINTEXT = ("--show-secrets", "--reveal")


def words_after_dashes(argv: Sequence[str], remainder: str) -> list[str]:
    """The words of the command behind `--`, as the shell passed them. Raises `Usage` if there is none."""
    command = list(argv[argv.index("--") + 1 :]) if "--" in argv else remainder.split()
    if not command:
        raise Usage("no command was given", expected="a command behind --", next_step=EXAMPLE)
    return command


def refuse_changing(command: Sequence[str]) -> None:
    """Raise `Refused` for a command that changes something, shows secrets in plaintext, or starts another unseen.

    This prevents changes by mistake; it does not stop a user who intends them.
    """

    def refuse(found: str, expected: str) -> Refused:
        return Refused(f"esc.run runs only commands that read: {found}", expected=expected, next_step=EXAMPLE)

    tool = Path(command[0]).name
    if tool in SHELLS or tool in STARTERS:
        raise refuse(f"{tool} starts other commands, which cannot be checked", "the command itself")
    # These secrets were never registered, so the masker would not find them.
    plaintext = [word for word in command if word.split("=")[0] in PLAINTEXT]
    if plaintext:
        raise refuse(f"{plaintext[0]} asks for secrets in plaintext", "the command without it")
    if tool == "env" and any("=" not in word for word in command[1:]):
        raise refuse("env starts another command", "env alone, or the command itself")
    if tool not in READING:
        return
    verbs = _without_options(command[1:])
    name = " ".join([tool, *verbs[:2]])
    printing = any(verb in PRINTING_SECRETS.get(tool, ()) for verb in _verbs(verbs))
    if printing or (tool == "kubectl" and _prints_secrets(command[1:], verbs)):
        raise refuse(f"{name} prints secrets in plaintext", "./inv esc.open, or `kubectl describe` of a Secret")
    if not any(verb in READING[tool] for verb in _verbs(verbs)):
        raise refuse(f"{name} may change something", f"one of: {', '.join(sorted(READING[tool]))}")
    if tool == "pulumi" and any(word.startswith("-c") or word.split("=")[0] == "--config" for word in command):
        raise refuse("--config is written into the stack file, even by a preview", "a preview without it")
    if tool == "pulumi" and verbs[:1] == ["config"] and len(verbs) > 1:
        raise refuse(f"{name} changes settings or shows a value in plaintext", "pulumi config alone")


def _prints_secrets(line: Sequence[str], verbs: Sequence[str]) -> bool:
    """Whether `kubectl get` prints Secrets in an output that holds their values."""
    outputs = {word for word in line if word.startswith(("--template", "--raw"))}
    for word, following in itertools.pairwise([*line, ""]):
        if found := OUTPUT.fullmatch(word):
            outputs.add(found["form"] or following)
    asked = [*verbs[1:], *(word for word in line if word.startswith("--raw="))]
    return verbs[:1] == ["get"] and bool(outputs - WITHOUT_VALUES) and any(OF_SECRETS.search(word) for word in asked)


def _without_options(line: Sequence[str]) -> list[str]:
    """The words that are neither options nor values of options."""
    return [
        word
        for number, word in enumerate(line)
        if not word.startswith("-") and (number == 0 or line[number - 1] not in TAKE_A_VALUE)
    ]


def _verbs(line: Sequence[str]) -> Iterator[str]:
    """The first word, and the first two as one: `stack-output` of `stack output`."""
    yield from line[:1]
    if len(line) > 1:
        yield f"{line[0]}-{line[1]}"


def stack_of(session: Session, name: EnvironmentName, service: str, line: Sequence[str]) -> Stack | None:
    """The stack for a pulumi command that names no project: the stack of the environment's service.

    `None` for other commands, and in a project's own folder. Raises `NotFound` for an unknown service.
    """
    own = list(itertools.takewhile(lambda word: word != "--", line[1:]))
    has_folder = any(word.startswith("-C") or word.split("=")[0] == "--cwd" for word in own)
    needs_none = any(verb in WITHOUT_PROJECT for verb in _verbs(_without_options(own)))
    needs_project = not (has_folder or needs_none or Path("Pulumi.yaml").exists())
    if Path(line[0]).name != "pulumi" or not (service or needs_project):
        return None
    try:
        return prepare(session, consumer_of(session, name, service, task="esc.run"))
    except NotFound:
        if service or name.short in {each.environment for each in session.services}:
            raise
        return None


def run_with(
    session: Session, name: EnvironmentName, opened: Opened, line: Sequence[str], stack: Stack | None = None
) -> None:
    """Run the command with the environment's variables and files, in the folder and on the stack of the project.

    Raises `ToolFailed` with its exit code.

    It does not use the CLI's own `run`, which masks line by line, loses the exit code and ends with 0 when it started
    nothing.
    """
    with files_of(session, opened) as files:
        env = {**session.env, **opened.variables, **files, **({"PULUMI_STACK": stack.reference} if stack else {})}
        folder = stack.folder if stack else Path.cwd()
        command = Command(argv=tuple(line), env=env, title=f"{line[0]} with {name.short}", cwd=folder)
        outcome = session.runner.run(command)
    for shown in (*outcome.shown_stdout.splitlines(), *outcome.shown_stderr.splitlines()):
        session.reporter.quote(shown)
    if not outcome.ok:
        raise ToolFailed(
            f"{line[0]} ended with exit {outcome.exit_code}",
            expected="exit 0",
            next_step=f"read its output above; ./inv esc.open {name.short} shows the variables it got",
        )


@contextlib.contextmanager
def files_of(session: Session, opened: Opened) -> Iterator[dict[str, str]]:
    """The environment's `files` as private files of this run, by the variable that names each; removed afterwards."""
    folder = session.journal.folder / ENVIRONMENT_FILES
    made: dict[str, str] = {}
    try:
        for number, (variable, value) in enumerate(opened.under("files").items()):
            path = folder / str(number)
            make_folder(folder, "the environment's files")
            write_new(path, str(value.value), f"the environment's file {variable}")
            made[variable] = str(path)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
