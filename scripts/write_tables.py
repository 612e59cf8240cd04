"""Generate what stands in the code: tables of the docs, the JSON schema of targets.yaml, and versions.

The docs: services in README.md, tasks in docs/tasks.md, layers in docs/architecture.md, exit codes and the keys of
targets.yaml in docs/reference.md, settings in the README of each project. The versions: uv and Python in mise.toml and
the dev container.

usage: python scripts/write_tables.py            writes all of them
       python scripts/write_tables.py --check    exits 1 and names each file that is out of date
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "pulumi"))

from lib.settings import setting_rows  # noqa: E402

import tasks  # noqa: E402
from runbooks.cli import CLOSED_OUTPUT  # noqa: E402
from runbooks.collection import task_rows  # noqa: E402
from runbooks.core.errors import BUG, OpsError  # noqa: E402
from runbooks.services import SERVICES  # noqa: E402
from runbooks.stacks.service import Service  # noqa: E402
from runbooks.stacks.target import DIY_ORGANIZATION, DIY_SCHEMES, KEYS, REQUIRED_KEYS  # noqa: E402

README = ROOT / "README.md"
TASKS = ROOT / "docs" / "tasks.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
REFERENCE = ROOT / "docs" / "reference.md"
TARGETS_SCHEMA = ROOT / "docs" / "targets.schema.json"
MISE = ROOT / "mise.toml"
DEV_CONTAINER = ROOT / ".devcontainer" / "devcontainer.json"
MARKS = ("<!-- {}: written by scripts/write_tables.py -->", "<!-- end of {} -->")


def service_rows(services: tuple[Service, ...]) -> Iterator[str]:
    yield "| service | what it is | needs |"
    yield "|---|---|---|"
    for service in services:
        needs = ", ".join(service.needs) or "–"
        yield f"| [`{service.name}`](pulumi/{service.folder}) | {service.about} | {needs} |"


def between_marks(text: str, name: str, lines: Iterable[str]) -> str:
    """Replace the lines between the marks of `name`."""
    begin, end = (mark.format(name) for mark in MARKS)
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return "\n".join([f"{head}{begin}", *lines, f"{end}{tail}"])


def layer_lines() -> Iterator[str]:
    """Generate a picture of the import contract's layers, and a table with the first lines of their docstrings."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [[name.strip().removeprefix("runbooks.") for name in layer.split("|")] for layer in layers]
    yield "```mermaid"
    yield "flowchart TD"
    for row in rows:
        yield f'  {row[0]}["{" · ".join(row)}"]'
    for above, below in pairwise(rows):
        yield f"  {above[0]} --> {below[0]}"
    yield '  lab["lab/"]'
    yield "  tasks -.-> lab"
    yield "  run -.-> lab"
    yield "  lab -.-> tools"
    yield "```"
    yield ""
    yield "| folder or file | what belongs there |"
    yield "|---|---|"
    for name in (name for row in rows for name in row):
        package = ROOT / "runbooks" / name
        path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
        shown = f"runbooks/{name}/" if package.is_dir() else f"runbooks/{name}.py"
        about = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")[0]
        yield f"| `{shown}` | {' '.join(about.split())} |"


def tasks_page() -> str:
    listed = sorted(task_rows(tasks.ns), key=lambda row: (*row.members, row.name)[0])
    return "\n".join(
        [
            "# Tasks",
            "",
            "Written by `scripts/write_tables.py` from the tasks themselves; `./inv --help TASK` has their options.",
            "",
            "| task | what it does |",
            "|---|---|",
            *(f"| `{row.name}` | {row.about} |" for row in listed),
            "",
        ]
    )


def with_settings(readme: str, service: Service) -> str:
    """Replace the table of settings by what the project's settings object declares."""
    # As modules all of them would be called `settings`.
    path = ROOT / "pulumi" / service.folder / "settings.py"
    spec = importlib.util.spec_from_file_location(f"settings of {service.name}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    head = "| setting | default | what |\n|---|---|---|\n"
    table = head + "".join(
        f"| `{key}` | {default} | {meaning} |\n"
        for key, default, meaning in setting_rows(module.Settings, service.project_name)
    )
    return re.sub(re.escape(head) + r"(?:\|.*\n)*", lambda _: table, readme)


def exit_code_rows() -> Iterator[str]:
    own = {error.exit_code: (error.__doc__ or "") for error in OpsError.__subclasses__() if "exit_code" in vars(error)}
    meanings = {
        0: "Done.",
        OpsError.exit_code: "A tool failed, or a file cannot be written.",
        **own,
        BUG: "A bug of this toolkit; the message names a log file.",
        CLOSED_OUTPUT: "The reader of the output closed it, as `head` does.",
    }
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in sorted(meanings.items()):
        yield f"| {code} | {meaning} |"


KEYS_OF_A_TARGET = {
    "stack": "Name of the stack of every project: `mx` for `Pulumi.mx.yaml`.",
    "backend": "Where the states are: `https://api.pulumi.com`, or a URL of a folder or bucket; `~` is expanded.",
    "organization": f"Your organization on the Pulumi Cloud; `{DIY_ORGANIZATION}` on file and bucket backends.",
    "kubeconfig": "Path of a kubeconfig, or several with `:` between them; relative paths start at the repository.",
    "context": "The context in it; the current context is never used.",
    "cluster_uid": "Identity of the cluster, which `target.pin` writes.",
    "passphrase_file": "File with the passphrase of a file or bucket backend; else PULUMI_CONFIG_PASSPHRASE.",
}


def target_rows() -> Iterator[str]:
    yield "| key | needed | what |"
    yield "|---|---|---|"
    for key in KEYS:
        yield f"| `{key}` | {'yes' if key in REQUIRED_KEYS else ''} | {KEYS_OF_A_TARGET[key]} |"


def targets_schema() -> str:
    """Return what editors check targets.yaml by: its keys, and which of them are needed."""
    properties: dict[str, object] = {
        key: {"type": "string", "minLength": 1, "description": KEYS_OF_A_TARGET[key].replace("`", "")} for key in KEYS
    }
    has_diy_backend = {"properties": {"backend": {"pattern": f"^({'|'.join(DIY_SCHEMES)})://"}}}
    target = {
        "type": "object",
        "properties": properties,
        "required": list(REQUIRED_KEYS),
        "additionalProperties": False,
        "if": has_diy_backend,
        "then": {"properties": {"organization": {"const": DIY_ORGANIZATION}}},
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "targets.yaml: where homelab-ops may deploy",
        "type": "object",
        "properties": {
            "default": {"type": "string", "description": "The target of a run that names none; lab always exists."},
            "targets": {"type": "object", "additionalProperties": target},
        },
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def with_versions(text: str) -> str:
    """Replace the versions of uv and Python by those of `inv`: its pin of uv, and the Python that it tries first."""
    inv = (ROOT / "inv").read_text("utf-8")
    versions = {
        "uv": re.findall(r"^uv_version=(\S+)", inv, re.MULTILINE)[0],
        "python": re.findall(r"for name in python(\S+)", inv)[0],
    }
    return re.sub(
        r'\b(?P<tool>uv|python)(?P<between> = "|:)[0-9.]+',
        lambda found: f"{found['tool']}{found['between']}{versions[found['tool']]}",
        text,
    )


def main() -> int:
    readmes = [(service, ROOT / "pulumi" / service.folder / "README.md") for service in SERVICES]
    wanted = {
        README: between_marks(README.read_text("utf-8"), "services", service_rows(SERVICES)),
        TASKS: tasks_page(),
        ARCHITECTURE: between_marks(ARCHITECTURE.read_text("utf-8"), "layers", layer_lines()),
        REFERENCE: between_marks(
            between_marks(REFERENCE.read_text("utf-8"), "exit codes", exit_code_rows()), "targets", target_rows()
        ),
        TARGETS_SCHEMA: targets_schema(),
        MISE: with_versions(MISE.read_text("utf-8")),
        DEV_CONTAINER: with_versions(DEV_CONTAINER.read_text("utf-8")),
        **{path: with_settings(path.read_text("utf-8"), service) for service, path in readmes},
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python scripts/write_tables.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
