"""Commands that a person runs with an environment's variables: reading ones only, masked, their exit code told."""

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
from runbooks.stacks import environments
from runbooks.stacks.preparation import prepare
from runbooks.stacks.session import Session
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
"""What each tool may do here. A word with a dash is two words of the command line."""
PRINTING_SECRETS: Mapping[str, frozenset[str]] = {
    "pulumi": words("env-open esc-open"),
    "helm": words("get-all get-hooks get-manifest get-values"),
    "esc": words("open env-open"),
}
"""They read, and print secrets in plaintext that nobody here knows of, so that nothing could mask them."""
OF_SECRETS = re.compile(r"(?:^|[,/])secrets?(?:\.[^,/]*)?(?:[,/?]|$)", re.IGNORECASE)
"""Secrets among what kubectl is asked for: `secret/x`, `pods,secrets`, `/api/v1/namespaces/x/secrets`."""
WITHOUT_VALUES = frozenset({"", "name", "wide"})
"""Outputs of kubectl in which a Secret shows its name and size alone."""
OUTPUT = re.compile(r"(?:-o|--output)=?(?P<form>.*)")
WITHOUT_PROJECT = words("about stack-ls version whoami")
"""Commands of pulumi that look at no project."""
SHELLS = words("ash bash csh dash fish ksh sh tcsh zsh")
STARTERS = words("command doas eval exec nice nohup parallel setsid stdbuf sudo time timeout watch xargs")
TAKE_A_VALUE = words("-n --namespace --context --kube-context --kubeconfig -C --cwd -s --stack --config-file -l -o -f")
IN_CLEAR = ("--show-secrets", "--reveal")


def words_after_dashes(argv: Sequence[str], remainder: str) -> list[str]:
    """The command behind `--`, word by word as the shell gave it. Raises `Usage` when there is none."""
    command = list(argv[argv.index("--") + 1 :]) if "--" in argv else remainder.split()
    if not command:
        raise Usage("no command was given", expected="a command behind --", next_step=EXAMPLE)
    return command


def refuse_changing(command: Sequence[str]) -> None:
    """Raise `Refused` for a command that changes something, shows secrets in plaintext, or starts another unseen.

    It keeps a slip of the hand from changing the platform; it is no cage for somebody who wants out.
    """
    tool = Path(command[0]).name
    if tool in SHELLS or tool in STARTERS:
        raise _refused(f"{tool} starts other commands, which cannot be looked at", "the command itself")
    clear = [word for word in command if word.split("=")[0] in IN_CLEAR]
    if clear:
        raise _refused(f"{clear[0]} asks for secrets in plaintext", "the command without it")
    if tool == "env" and any("=" not in word for word in command[1:]):
        raise _refused("env starts another command", "env alone, or the command itself")
    if tool not in READING:
        return
    verbs = _without_options(command[1:])
    printing = [verb for verb in _verbs(verbs) if verb in PRINTING_SECRETS.get(tool, ())]
    if printing or (tool == "kubectl" and _prints_secrets(command[1:], verbs)):
        told = " ".join([tool, *verbs[:2]])
        raise _refused(f"{told} prints secrets in plaintext", "./inv esc.open, or `kubectl describe` of a Secret")
    if not any(verb in READING[tool] for verb in _verbs(verbs)):
        told = " ".join([tool, *verbs[:2]])
        raise _refused(f"{told} may change something", f"one of: {', '.join(sorted(READING[tool]))}")
    if tool == "pulumi" and any(word.startswith("-c") or word.split("=")[0] == "--config" for word in command):
        raise _refused("--config is written into the stack file, even by a preview", "a preview without it")
    if tool == "pulumi" and verbs[:1] == ["config"] and len(verbs) > 1:
        raise _refused(
            f"pulumi config {verbs[1]} changes settings or shows a value in plaintext", "pulumi config alone"
        )


def _prints_secrets(line: Sequence[str], verbs: Sequence[str]) -> bool:
    """Whether `kubectl get` is asked for Secrets in a form that holds their values."""
    if verbs[:1] != ["get"] or _form(line) in WITHOUT_VALUES:
        return False
    asked = [*verbs[1:], *(word for word in line if word.startswith("--raw="))]
    return any(OF_SECRETS.search(word) for word in asked)


def _form(line: Sequence[str]) -> str:
    """The form of output that kubectl is asked for; empty for its own table."""
    for word, following in itertools.pairwise([*line, ""]):
        if word.startswith(("--template", "--raw")):
            return word
        if found := OUTPUT.fullmatch(word):
            return found["form"] or following
    return ""


def _without_options(line: Sequence[str]) -> list[str]:
    """The words that are no options and no values of options."""
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


def _refused(found: str, expected: str) -> Refused:
    return Refused(f"esc.run runs what reads: {found}", expected=expected, next_step=EXAMPLE)


def stack_of(session: Session, name: EnvironmentName, service: str, line: Sequence[str]) -> Stack | None:
    """The stack that a pulumi command without a folder of its own is for: of the service that the environment is for.

    `None` for other commands, and where the person stands in a project. Raises `NotFound` for an unknown service.
    """
    if Path(line[0]).name != "pulumi" or not (service or _wants_project(line[1:])):
        return None
    try:
        return prepare(session, environments.consumer_of(session, name, service, task="esc.run"))
    except NotFound:
        if service or name.short in {each.environment for each in session.services}:
            raise
        return None


def _wants_project(line: Sequence[str]) -> bool:
    """Whether the words of a pulumi command name no project, it needs one, and the person does not stand in one."""
    own = list(itertools.takewhile(lambda word: word != "--", line))
    has_folder = any(word.startswith("-C") or word.split("=")[0] == "--cwd" for word in own)
    needs_none = any(verb in WITHOUT_PROJECT for verb in _verbs(_without_options(own)))
    return not (has_folder or needs_none or Path("Pulumi.yaml").exists())


def run_with(
    session: Session, name: EnvironmentName, opened: Opened, line: Sequence[str], stack: Stack | None = None
) -> None:
    """Run the command with the environment's variables and files, in the folder and on the stack where one is given.

    Raises `ToolFailed` with its exit code.

    Started from here instead of through the CLI's own `run`, which masks line by line, loses the exit code and ends
    with 0 when it started nothing.
    """
    with files_of(session, opened) as files:
        env = {**session.env, **opened.variables, **files, **({"PULUMI_STACK": stack.reference} if stack else {})}
        folder = stack.folder if stack else Path.cwd()
        command = Command(argv=tuple(line), env=env, title=f"{line[0]} with {name.short}", cwd=folder)
        outcome = session.runner.run(command)
    for said in (*outcome.shown_stdout.splitlines(), *outcome.shown_stderr.splitlines()):
        session.reporter.quote(said)
    if not outcome.ok:
        raise ToolFailed(
            f"{line[0]} ended with exit {outcome.exit_code}",
            expected="exit 0",
            next_step=f"read what it said above; ./inv esc.open {name.short} shows the variables it got",
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
