"""Shell completion: the scripts for bash, zsh and fish, and what they offer for the words typed so far."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from invoke import Collection
from invoke.parser import Argument
from invoke.parser.context import to_flag

from runbooks.core.errors import OpsError, Usage
from runbooks.core.files import ROOT
from runbooks.services import SERVICES
from runbooks.stacks.target import load_targets
from runbooks.tools.definitions import defined_names
from runbooks.tools.modal import app_names

# bash splits words at a colon too: the words come from the line, and what stands before a colon stays there.
BASH = """\
_inv_of_homelab_ops() {
    local line=${COMP_LINE:0:COMP_POINT} words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local IFS=$'\\n' last=${words[${#words[@]}-1]}
    local candidates=$(INV --complete -- "${words[@]}" 2>/dev/null)
    COMPREPLY=($(compgen -W "$candidates" -- "$last"))
    [[ $last == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${last%:*}:"}")
}
complete -o default -F _inv_of_homelab_ops inv ./inv
"""
ZSH = """\
_inv_of_homelab_ops() {
    local -a found
    found=(${(f)"$(INV --complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _inv_of_homelab_ops inv
"""
FISH = """\
function __inv_of_homelab_ops
    INV --complete -- (commandline -opc) (commandline -ct) 2>/dev/null
end
complete --command inv --no-files --arguments '(__inv_of_homelab_ops)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion_script(shell: str) -> str:
    """The shell's script. It calls this repository's `inv` by its path, which need not be on PATH."""
    if shell not in SCRIPTS:
        raise Usage(f"there is no completion for the shell {shell!r}", expected=f"one of {', '.join(SCRIPTS)}")
    return SCRIPTS[shell].replace("INV", shlex.quote(str(ROOT / "inv")))


def candidates(words: Sequence[str], namespace: Collection, of_every_task: Sequence[Argument]) -> list[str]:
    """What may stand in place of the last word, which may be empty; nothing where a file or free text belongs.

    The first word is the program.
    """
    *typed, last = words[1:] or [""]
    names = list(namespace.task_names)
    begins = max((at for at, word in enumerate(typed) if word in names), default=None)
    task_line = typed[begins:] if begins is not None else []
    arguments = namespace[task_line[0]].get_arguments() if task_line else []
    options = {to_flag(name): each for each in (*of_every_task, *arguments) for name in each.names}
    takes_value = {option for option, argument in options.items() if argument.takes_value}
    if "--" in typed:
        return []
    missing = [argument for argument in arguments if argument.positional]
    given = {"task": task_line[0]} if task_line else {}
    for before, word in pairwise(task_line):
        if before in takes_value:
            given[options[before].name] = word
        elif missing and not word.startswith("-"):
            given[missing.pop(0).name] = word
    if typed and typed[-1] in takes_value:
        return values_of(options[typed[-1]], given, namespace)
    if last.startswith("-"):
        return sorted(option for option in options if option.startswith("--"))
    return values_of(missing[0], given, namespace) if missing else names


def values_of(argument: Argument, given: Mapping[str, str], namespace: Collection) -> list[str]:
    """The values that an option or argument can have, by its name; empty where any text will do.

    `given`: the task, and its arguments that stand on the command line, by name.
    """
    values: Iterable[str] = ()
    match argument.name:
        case "target":
            with contextlib.suppress(OpsError):  # the run itself explains what is wrong with targets.yaml
                values = load_targets(ROOT).names
        case "service":
            sets_secret = given.get("task") == "secrets.set"
            values = (service.name for service in SERVICES if not sets_secret or service.secrets)
        case "key":
            values = (key.key for each in SERVICES if each.name == given.get("service") for key in each.secrets)
        case "path":
            bound = (each for each in SERVICES if each.environment == given.get("env"))
            values = (f"pulumiConfig.{key.key}" for each in bound for key in each.environment_keys if key.is_secret)
        case "env":
            values = defined_names(ROOT)
        case "app":
            values = app_names(ROOT)
        case "help":
            values = namespace.task_names
        case "list":
            values = namespace.collections
        case "print-completion-script":
            values = SCRIPTS
    # Files and targets may have any name, and bash runs a candidate such as `$(…)` (`compgen -W`).
    return [value for value in values if re.fullmatch(r"[\w./@:+-]+", value)]
