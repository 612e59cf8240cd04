"""Completion: what is offered for the words typed so far, and the scripts in the shells themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from runbooks import completion
from runbooks.cli import OpsProgram
from runbooks.completion import candidates, completion_script
from runbooks.services import SERVICES

ROOT = Path(__file__).resolve().parents[2]
NAMES = {service.name for service in SERVICES}
TARGETS = """\
targets:
  home: {stack: mx, backend: "file:///srv", organization: organization, kubeconfig: k, context: home}
"""


def offered(line: str) -> set[str]:
    """For a command line, whose last word may be empty."""
    return set(candidates(["./inv", *line.split(" ")], tasks.ns, OpsProgram(namespace=tasks.ns).core_args()))


@pytest.mark.parametrize(
    ("line", "some", "not_there"),
    [
        ("", {"deploy.postgres", "esc.open", "status"}, {"postgres"}),
        ("deploy.po", {"deploy.postgres"}, {"postgres"}),
        ("deploy.postgres -", {"--only", "--fresh", "--target", "--json"}, {"--since", "deploy.postgres"}),
        ("deploy.changed --", {"--since"}, set()),
        ("deploy.postgres ", {"verify.postgres"}, {"--only"}),
        ("secrets.set ", {"postgres"}, {"deploy.postgres", "cnpg"}),
        ("secrets.set --service ", {"postgres"}, {"deploy.postgres", "cnpg"}),
        ("secrets.set postgres ", {"superuser_password"}, NAMES),
        ("secrets.set --service postgres --key ", {"superuser_password"}, NAMES),
        ("esc.set stitch/prod ", {"pulumiConfig.eventsub_secret"}, NAMES),
        ("stack.init --target home ", NAMES, {"home"}),
        ("esc.open ", {"stitch/prod"}, NAMES),
        ("esc.bind stitch/prod --service ", NAMES, {"stitch/prod"}),
        ("esc.open stitch/prod ", {"deploy.postgres"}, {"stitch/prod"}),
        ("modal.deploy ", {"golink"}, NAMES),
        ("--help ", {"deploy.postgres"}, set()),
        ("--list ", {"deploy", "esc"}, {"deploy.postgres"}),
        ("--print-completion-script ", {"bash", "zsh", "fish"}, set()),
        ("--target ", {"lab", "home"}, {"deploy.postgres"}),
        ("--target home dep", {"deploy.postgres"}, {"home"}),
    ],
)
def test_what_is_offered(
    line: str, some: set[str], not_there: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--target " in line:
        (tmp_path / "targets.yaml").write_text(TARGETS)
        monkeypatch.setattr(completion, "ROOT", tmp_path)
    found = offered(line)
    assert some <= found and not not_there & found


@pytest.mark.parametrize("line", ["test --path ", "--report ", "secrets.set nosuch ", "esc.run stitch/prod -- pul"])
def test_the_shell_completes_files_and_other_text_itself(line: str) -> None:
    assert offered(line) == set()


def test_no_target_is_offered_from_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "targets.yaml").write_text("targets: [\n")
    monkeypatch.setattr(completion, "ROOT", tmp_path)
    assert offered("--target ") == set()


@pytest.mark.parametrize("line", ["--target ", "esc.open ", "modal.deploy "])
def test_no_name_is_offered_that_a_shell_would_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "$(touch${IFS}here)"
    for file in (f"environments/{code}/prod.yaml", f"environments/stitch/{code}.yaml", f"modal/{code}/{code}.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "targets.yaml").write_text(TARGETS.replace("home:", f'"{code}":'))
    monkeypatch.setattr(completion, "ROOT", tmp_path)
    assert not [name for name in offered(line) if "$" in name]


SHELLS = {
    "bash": (
        "COMP_LINE='./inv {line}' COMP_POINT=${{#COMP_LINE}} COMP_WORDBREAKS=' :'; "
        "_inv_of_homelab_ops; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    ),
    "zsh": "compadd() {{ shift; print -l -- $@; }}; words=(./inv {words}) CURRENT={last}+1; _inv_of_homelab_ops",
    "fish": "complete --do-complete './inv {line}'",
}
"""How each shell is asked for its completions without a key pressed."""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("deploy.pos", "deploy.postgres"),
        ("deploy.postgres --on", "--only"),
        ("secrets.set ", "postgres"),
        ("--target lab esc.open ", "stitch/prod"),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_in_the_shell_itself(tmp_path: Path, shell: str, line: str, offered: str) -> None:
    assert offered in completed(tmp_path, shell, line)


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("esc.set stitch/prod pulumiConfig.postgresql:u", "username"),
        ("esc.set stitch/prod pulumiConfig.postgresql:", "password"),
    ],
)
def test_bash_gets_only_what_follows_a_colon(tmp_path: Path, line: str, rest: str) -> None:
    """It keeps what stands before the colon, so a whole name would repeat that."""
    assert rest in completed(tmp_path, "bash", line)


def completed(tmp_path: Path, shell: str, line: str) -> list[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on PATH")
    # `inv` would first set up the environment of a checkout that has none yet.
    inv = tmp_path / "in v"
    inv.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tasks.py "$@"\n')
    inv.chmod(0o700)
    script = completion_script(shell).replace(shlex.quote(str(ROOT / "inv")), shlex.quote(str(inv)))
    words = line.split(" ")
    asked = SHELLS[shell].format(line=line, words=shlex.join(words), last=len(words))
    options = {"zsh": ["-f"], "bash": ["--norc"], "fish": ["--no-config"]}[shell]
    env = {**os.environ, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    done = subprocess.run(
        [program, *options, "-c", f"{script}\n{asked}"], capture_output=True, text=True, env=env, check=False
    )
    assert done.stderr == ""
    return [text.partition("\t")[0] for text in done.stdout.splitlines()]


def test_a_script_calls_this_repository_by_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    program = OpsProgram(namespace=tasks.ns, binary="./inv", binary_names=["inv", "./inv"])
    for shell in completion.SCRIPTS:
        program.run(["inv", f"--print-completion-script={shell}"])
        assert f"{ROOT}/inv --complete" in capsys.readouterr().out
    program.run(["inv", "--complete", "--", "inv", "deploy."])
    assert "deploy.postgres" in capsys.readouterr().out.split()
    with pytest.raises(SystemExit) as ended:
        program.run(["inv", "--print-completion-script=nosuch"])
    assert ended.value.code == 2 and "fish" in capsys.readouterr().err
