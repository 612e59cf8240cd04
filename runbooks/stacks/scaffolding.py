"""Writes a new project's folder: validates the command line, fills templates, and writes all files or none."""

from __future__ import annotations

import errno
import json
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from runbooks.core.errors import Refused, ToolFailed, Usage
from runbooks.core.names import refuse_option_like
from runbooks.stacks.service import Service

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "service"
SUFFIX = ".tmpl"
"""Of each template: linters would take a `.py` file with placeholders for a broken program."""
PULUMI = "pulumi"
HELPERS = "lib"
TAKEN = frozenset({"all", "default", HELPERS})
"""Names of tasks, of a namespace and of a folder."""

LABEL = re.compile(r"(?=.{1,63}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""A DNS label, since Kubernetes namespace, Service and tailnet name all take the project's name."""
PART = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_FOLDER = 100
IMAGE = re.compile(
    r"(?=.{1,110}\Z)"
    r"[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?:v?[0-9][A-Za-z0-9._-]*(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
"""Accepts what `VERSIONED_IMAGE` of `pulumi/lib/settings.py` accepts, except what needs quoting."""
ANY_IMAGE = "nginxinc/nginx-unprivileged:1.29.4-alpine"
"""A web server that runs as any user and answers on 8080: the project works before its own image is named."""
ANY_PORT = "8080"
PORTS = range(1024, 65536)
"""Only root may listen on lower ports."""
LONGEST_ABOUT = 90
NOT_IN_ABOUT = '"\\`|<>'
"""They would end a Python string, a table's cell or a line of the docs."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A new project, complete and valid."""

    name: str
    folder: str
    """Below `pulumi/`, with slashes."""
    image: str
    port: int
    about: str

    @property
    def shown_folder(self) -> str:
        return f"{PULUMI}/{self.folder}"


def read_project(
    root: Path, services: Sequence[Service], name: str, folder: str, *, image: str, port: str, about: str
) -> Project:
    """The project that the command line asks for.

    Raises `Usage` for a name, folder, image, port or description that is not valid, `Refused` for a folder in use.
    """
    check_new_name(name, services)
    below = read_folder(root, name, folder)
    image, port = image or ANY_IMAGE, port or ANY_PORT
    about = (about or f"{name}, on the tailnet").strip().removesuffix(".")
    if not IMAGE.fullmatch(image):
        raise Usage(
            f"{image!r} is not a valid image: it needs a version, and `latest` is not one",
            expected=f"such as {ANY_IMAGE}, at most 110 characters",
        )
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) not in PORTS:
        raise Usage(
            f"{port!r} is not a valid port for a pod without root",
            expected=f"a whole number from {PORTS[0]} to {PORTS[-1]}",
        )
    if not about or not about.isprintable() or len(about) > LONGEST_ABOUT or set(NOT_IN_ABOUT) & set(about):
        raise Usage(
            f"the description {about!r} is not valid",
            expected=f"one line of at most {LONGEST_ABOUT} characters without {' '.join(NOT_IN_ABOUT)}",
        )
    return Project(name=name, folder=below, image=image, port=int(port), about=about)


def check_new_name(name: str, services: Sequence[Service]) -> None:
    """Raise `Usage` unless the name is free and valid for everything that takes it."""
    refuse_option_like("service", name)
    if not LABEL.fullmatch(name):
        raise Usage(
            f"{name!r} is not a valid name for a service",
            expected="a DNS label of at most 63 characters: a-z and 0-9, a letter first, single dashes between them",
        )
    if name in TAKEN or name.startswith("kube-"):
        raise Usage(f"the name {name!r} is taken, by the tasks or by Kubernetes itself", expected="another name")
    for service in services:
        if name in {service.name, service.project_name, service.namespace}:
            raise Usage(
                f"{name!r} is the name, the project or the namespace of the service {service.name}",
                expected="a name that no service uses",
                next_step="./inv graph shows all services",
            )


def read_folder(root: Path, name: str, folder: str) -> str:
    """The folder below `pulumi/`. Raises `Usage` for a wrong place, `Refused` for one that is in use."""
    programs = root / PULUMI
    folders = sorted(path.name for path in programs.iterdir() if path.is_dir() and PART.fullmatch(path.name))
    areas = [area for area in folders if area != HELPERS]
    place = root / folder
    parts = place.relative_to(programs).parts if place.is_relative_to(programs) else ()
    valid = len(parts) > 1 and parts[0] in areas and parts[-1] == name and all(map(PART.fullmatch, parts))
    if not valid or len("/".join(parts)) > LONGEST_FOLDER:
        raise Usage(
            f"{folder!r} is not a valid folder for {name}" if folder else "no folder was named",
            expected=f"{PULUMI}/<area>/…/{name} of at most {LONGEST_FOLDER} characters; areas: {', '.join(areas)}",
            next_step=f"./inv new.service {name} --folder {PULUMI}/apps/{name}",
        )
    shown = "/".join((PULUMI, *parts))
    sides = {"expected": "a folder that is new, or empty", "next_step": f"ls -lA {shown}"}
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        raise Refused(f"{shown} exists and is not an empty folder", **sides)
    for parent in place.parents[: len(parts) - 1]:
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            raise Refused(f"{parent.name}, a parent of {shown}, is not a plain folder", **sides)
        if (parent / "Pulumi.yaml").exists():
            raise Refused(f"{shown} would be inside the project {parent.name}", **sides)
    return "/".join(parts)


def files_of(project: Project) -> dict[str, str]:
    """Name → content of each file of the project, in the order of their names."""
    depth = len(project.folder.split("/"))
    values = {
        "name": project.name,
        "image": project.image,
        "port": str(project.port),
        "about": project.about,
        "depth": str(depth),
        "virtualenv": "../" * (depth + 1) + ".venv",
        "yaml_name": as_yaml(project.name),
        "yaml_about": as_yaml(project.about),
    }
    return {
        path.name.removesuffix(SUFFIX): Template(path.read_text(encoding="utf-8")).substitute(values)
        for path in sorted(TEMPLATES.glob(f"*{SUFFIX}"))
    }


def as_yaml(text: str) -> str:
    """The text as a YAML scalar, in quotes where it would be read as something else: `on`, `a: b`."""
    try:
        plain = yaml.safe_load(f"key: {text}") == {"key": text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def write(project: Project, root: Path) -> list[str]:
    """Write the project's folder, complete or not at all, and give the names of its files.

    Raises `Refused` when something came into its place meanwhile, `ToolFailed` when it cannot be written.
    """
    place = root / PULUMI / project.folder
    # One rename puts everything in place, with the parents that are missing; it never replaces what is there.
    top = next(path for path in (place, *place.parents) if path.parent.exists())
    draft = top.with_name(f".{top.name[:40]}.{secrets.token_hex(4)}")
    folder = draft / place.relative_to(top)
    try:
        files = files_of(project)
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        draft.rename(top)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            summary = f"{top.name!r} was created by another process while the project was written"
            raise Refused(summary, expected="an empty folder") from error
        raise ToolFailed(
            f"{project.shown_folder} cannot be written: {error.strerror}",
            expected="a checkout that this user may write to, on a disk with free space",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return list(files)


def entry(project: Project) -> str:
    """The text of the project's entry in the list of services."""
    return f"""\
    Service(
        name="{project.name}",
        folder="{project.folder}",
        about="{project.about}",
        needs=("tailscale",),
        exposed={{"ingress/{project.name}": "url"}},
    ),
"""


def next_commands(project: Project) -> list[str]:
    return [
        ".venv/bin/python scripts/write_tables.py && .venv/bin/python scripts/draw_platform.py",
        "./inv check",
        "./inv test -p tests/programs/test_projects.py",
        f"./inv deploy.{project.name}",
    ]
