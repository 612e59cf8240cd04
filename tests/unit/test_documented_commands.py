"""Every `./inv` command on the pages is run by a test on the lab, or stands in `ELSEWHERE` with its reason."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import tasks
from runbooks.services import SERVICES

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("README.md", "docs/*.md", "docs/runbooks/*.md")
PAGES = sorted(path for place in PLACES for path in ROOT.glob(place))
CODE = re.compile(r"^```.*?^```|(?<!`)`[^`\n]+`", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
"""Commands and answers of the tutorial, which tests/lab/test_tutorial.py runs."""
END_OF_COMMAND = re.compile(r"[`\n|;&)#]| > | >> | -- ")
OF_EVERY_TASK = {"--target": 2, "--report": 2, "--json": 1}
"""Options of every task, and how many words each takes: a task that is run with them is run."""
NAMES = {service.name for service in SERVICES}
ANY = "<service>"
PLACEHOLDERS = (ANY, "<consumer>", "podinfo")
"""What pages write for any service; podinfo is the one that docs/add-a-service.md adds."""
RUNNERS = {"inv", "typed", "start", "run", "at_home", "first_run"}
"""What starts `./inv` in tests/lab with the words that it is given."""
ELSEWHERE = {
    "--list": "tests/unit/test_cli.py",
    "--help": "tests/unit/test_cli.py",
    "--print-completion-script": "tests/unit/test_completion.py",
    "charts.check": "it asks the charts' repositories; tests/unit/tasks/test_charts.py answers for them",
    "check": "it checks the whole checkout; .ci/run starts it",
    "modal.check": "it needs Modal; tests/unit/tasks/test_modal.py answers for it",
    "modal.deploy": "it needs Modal; tests/unit/tasks/test_modal.py answers for it",
    "new.service": "it needs no lab: tests/programs/test_new_service.py runs the page's command",
    "test": "it starts the tests themselves; .ci/run starts it",
}
"""Commands that no test runs on the lab: what else runs them, and why."""


@dataclass(frozen=True, order=True)
class Ran:
    """A command without its values: `preview.postgres` with the names of its options."""

    task: str
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: list[str]) -> Ran:
        """Leave out what every task takes. Without a task, the first option is the command."""
        while words and words[0] in OF_EVERY_TASK:
            words = words[OF_EVERY_TASK[words[0]] :]
        if not words:
            return cls("")
        options = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        return cls(words[0], tuple(sorted(options - set(OF_EVERY_TASK)) if not words[0].startswith("-") else ()))

    @property
    def of_any_service(self) -> Ran:
        group, dot, name = self.task.rpartition(".")
        return Ran(f"{group}.{ANY}", self.options) if dot and (name == "probe" or name in NAMES) else self


def commands_of(page: Path) -> Iterator[Ran]:
    """The commands in the page's code, but for those of the tutorial's console."""
    for code in CODE.findall(CONSOLE.sub("", page.read_text(encoding="utf-8"))):
        yield from commands_in(code)


def commands_in(code: str) -> Iterator[Ran]:
    for text in code.split("./inv ")[1:]:
        for placeholder in PLACEHOLDERS:
            text = text.replace(f".{placeholder}", f".{ANY}")
        yield Ran.of(shlex.split(END_OF_COMMAND.split(text, maxsplit=1)[0]))


def commands_of_tutorial() -> set[Ran]:
    found = (block for page in PAGES for block in CONSOLE.findall(page.read_text(encoding="utf-8")))
    lines = (line for block in found for line in block.splitlines() if line.startswith("$ "))
    return {ran for line in lines for ran in commands_in(line)}


def commands_of_lab_tests() -> set[Ran]:
    """Literal words that a test gives to what starts `./inv`, or keeps in a tuple for it.

    A task whose name is made, such as `f"destroy.{service.name}"`, counts as run for each service if the test is run
    for each of them.
    """
    found: set[Ran] = set()
    for path in sorted((ROOT / "tests" / "lab").glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
            for_each = "SERVICES" in ast.dump(function) and imports_services(module)
            for node in ast.walk(function):
                if words := literal_words(node):
                    ran = Ran.of(words)
                    found |= {ran, ran.of_any_service}
                    group, dot, name = ran.task.rpartition(".")
                    if dot and name == ANY and for_each:
                        found |= {Ran(f"{group}.{each}", ran.options) for each in NAMES}
    return {ran for ran in found if ran.task in tasks.ns.task_names or ran.task.endswith(f".{ANY}")}


def imports_services(module: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ImportFrom) and node.module == "runbooks.services" and "SERVICES" in ast.dump(node)
        for node in module.body
    )


def literal_words(node: ast.AST) -> list[str]:
    """The words of a command line, if the node is one."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return list(texts(node.args)) if name in RUNNERS else []
    return list(texts(node.elts)) if isinstance(node, ast.Tuple) else []


def texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        inner = node.value if isinstance(node, ast.Starred) else node
        match inner:
            case ast.Constant(value=str(text)):
                yield text
            case ast.Tuple(elts=elements):
                yield from texts(elements)
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if text.endswith("."):
                yield f"{text}{ANY}"
            case _:
                yield "?"


RUN = commands_of_lab_tests() | commands_of_tutorial()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_run_by_a_test_or_listed(page: Path) -> None:
    missing = [ran for ran in commands_of(page) if ran not in RUN and ran.task not in ELSEWHERE]
    assert missing == []


def test_the_list_names_only_what_needs_it() -> None:
    shown = {ran.task for page in PAGES for ran in commands_of(page)}
    assert set(ELSEWHERE) - shown == set()
    assert {ran.task for ran in RUN} & set(ELSEWHERE) == set()
    assert [page.name for page in PAGES if CONSOLE.search(page.read_text(encoding="utf-8"))] in ([], ["tutorial.md"])
    files = [word.rstrip(",;") for reason in ELSEWHERE.values() for word in reason.split() if word.startswith("tests/")]
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("line", "ran"),
    [
        ("`./inv --target home preview.postgres --diff`", Ran("preview.postgres", ("--diff",))),
        ('`eval "$(./inv lab.env)"`', Ran("lab.env")),
        ("`./inv pr.body > body.md`", Ran("pr.body")),
        ("```\n./inv deploy.postgres    # on the lab\n```", Ran("deploy.postgres")),
        ("`./inv verify.<consumer>`", Ran(f"verify.{ANY}")),
        ("`./inv deploy.all --report run.html`", Ran("deploy.all")),
        ("`./inv esc.run stitch/prod -- pulumi preview --diff`", Ran("esc.run")),
        ("`./inv rollback.immich --to=REF`", Ran("rollback.immich", ("--to",))),
        ("`./inv --help TASK`", Ran("--help")),
    ],
)
def test_a_command_is_read_from_code(tmp_path: Path, line: str, ran: Ran) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"./inv not.code\n{line}\n")
    assert list(commands_of(page)) == [ran]
