"""A new project's folder: what was asked for, checked; the files, from their templates; written as a whole or not."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from runbooks.collection import ALL
from runbooks.core.errors import Refused, ToolFailed, Usage
from runbooks.core.names import refuse_option_like
from runbooks.stacks.service import Service

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "service"
SUFFIX = ".tmpl"
"""Of each template: a `.py` file that is none yet is nothing for linters."""
PULUMI = "pulumi"
HELPERS = "lib"

LABEL = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_LABEL = 63
"""Of a DNS label; the Kubernetes namespace, the Service and the name on the tailnet are called like the project."""
PART = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_FOLDER = 100
IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?:v?[0-9][A-Za-z0-9._-]*(@sha256:[0-9a-f]{64})?", re.ASCII
)
"""What `VERSIONED_IMAGE` of `pulumi/lib/settings.py` takes, and nothing that needs quoting."""
LONGEST_IMAGE = 110
ANY_IMAGE = "nginxinc/nginx-unprivileged:1.29.4-alpine"
"""A web server that runs as any user and answers on 8080: the project works before its own image is named."""
ANY_PORT = "8080"
LOWEST_PORT, HIGHEST_PORT = 1024, 65535
"""Below them is what only root may listen on."""
LONGEST_ABOUT = 90
NOT_IN_ABOUT = frozenset('"\\`|<>')
"""They would end a Python string, a table's cell or a line of the docs."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A new project, complete and checked."""

    name: str
    folder: str
    """Below `pulumi/`, with slashes."""
    image: str
    port: int
    about: str

    @property
    def shown_folder(self) -> str:
        return f"{PULUMI}/{self.folder}"

    @property
    def depth(self) -> int:
        return len(self.folder.split("/"))


def asked_for(
    root: Path, services: Sequence[Service], name: str, folder: str, *, image: str, port: str, about: str
) -> Project:
    """What the command line asked for.

    Raises `Usage` for a name, folder, image, port or description that will not do, `Refused` for a folder in use.
    """
    check_name(name, services)
    return Project(
        name=name,
        folder=checked_folder(root, name, folder),
        image=checked_image(image or ANY_IMAGE),
        port=checked_port(port or ANY_PORT),
        about=checked_about(about or f"{name}, on the tailnet"),
    )


def check_name(name: str, services: Sequence[Service]) -> None:
    """Raise `Usage` unless nobody has the name and everything that is called by it can be."""
    refuse_option_like("service", name)
    if len(name) > LONGEST_LABEL:
        raise Usage(
            f"the name {name!r} has {len(name)} characters",
            expected=f"at most {LONGEST_LABEL}, as in DNS: the namespace and the name on the tailnet are called so",
        )
    if not LABEL.fullmatch(name):
        raise Usage(
            f"{name!r} cannot be the name of a service",
            expected="a DNS label: a-z and 0-9, a letter first, single dashes between them",
        )
    if name in {ALL, HELPERS, "default"} or name.startswith("kube-"):
        raise Usage(f"the name {name!r} is taken, by the tasks or by Kubernetes itself", expected="another name")
    for service in services:
        if name in {service.name, service.project_name, service.namespace}:
            raise Usage(
                f"{name!r} is the name, the project or the namespace of the service {service.name}",
                expected="a name of its own",
                next_step="./inv graph shows which there are",
            )


def checked_folder(root: Path, name: str, folder: str) -> str:
    """The folder below `pulumi/`. Raises `Usage` for a wrong place, `Refused` for one where something is."""
    programs = root / PULUMI
    rooms = sorted(room.name for room in programs.iterdir() if room.is_dir() and is_room(room))
    sides = {
        "expected": f"{PULUMI}/<room>/…/{name}, where the room is one of {', '.join(rooms)}",
        "next_step": f"./inv new.service {name} --folder {PULUMI}/apps/{name}",
    }
    if not folder:
        raise Usage("no folder was named", **sides)
    try:
        parts = (root / folder).relative_to(programs).parts
    except ValueError as error:
        raise Usage(f"the folder {folder!r} is not below {PULUMI}/", **sides) from error
    if len(parts) < 2 or parts[0] not in rooms or not all(PART.fullmatch(part) for part in parts):
        raise Usage(f"{folder!r} is no place for a project", **sides)
    if parts[-1] != name:
        raise Usage(f"the folder {folder!r} is not called like the service", **sides)
    below = "/".join(parts)
    if len(below) > LONGEST_FOLDER:
        raise Usage(f"the folder {folder!r} is {len(below)} characters deep", expected=f"at most {LONGEST_FOLDER}")
    _refuse_if_in_use(programs, below)
    return below


def is_room(folder: Path) -> bool:
    return folder.name != HELPERS and PART.fullmatch(folder.name) is not None


def _refuse_if_in_use(programs: Path, below: str) -> None:
    """Nothing may be at the place, and its parents are plain folders of no project."""
    place, shown = programs / below, f"{PULUMI}/{below}"
    sides = {"expected": "a folder that is new, or empty", "next_step": f"ls -lA {shown}"}
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        raise Refused(f"{shown} exists and is not an empty folder", **sides)
    for parent in place.parents:
        if parent == programs:
            return
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            raise Refused(f"{shown} goes through {parent.name}, which is no plain folder", **sides)
        if (parent / "Pulumi.yaml").exists():
            raise Refused(f"{shown} would be inside the project {parent.name}", **sides)


def checked_image(image: str) -> str:
    if len(image) > LONGEST_IMAGE or not IMAGE.fullmatch(image):
        raise Usage(
            f"{image!r} is no image with a version",
            expected=f"such as {ANY_IMAGE}, at most {LONGEST_IMAGE} characters; `latest` is no version",
        )
    return image


def checked_port(port: str) -> int:
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) else 0
    if not LOWEST_PORT <= number <= HIGHEST_PORT:
        raise Usage(
            f"{port!r} is no port that a pod without root can listen on",
            expected=f"a whole number from {LOWEST_PORT} to {HIGHEST_PORT}",
        )
    return number


def checked_about(about: str) -> str:
    """One sentence without its full stop."""
    text = about.strip().removesuffix(".")
    wrong = sorted(NOT_IN_ABOUT.intersection(text))
    if wrong or not text or not text.isprintable() or len(text) > LONGEST_ABOUT:
        holds = f" holds {' '.join(wrong)}" if wrong else " will not do"
        raise Usage(
            f"the description {text!r}{holds}",
            expected=f"one line of at most {LONGEST_ABOUT} characters without {' '.join(sorted(NOT_IN_ABOUT))}",
        )
    return text


# The files


def files_of(project: Project) -> dict[str, str]:
    """Name → content of each file of the project, in the order of their names."""
    values = {
        "name": project.name,
        "image": project.image,
        "port": str(project.port),
        "about": project.about,
        "depth": str(project.depth),
        "virtualenv": "../" * (project.depth + 1) + ".venv",
        "yaml_name": as_yaml(project.name),
        "yaml_about": as_yaml(project.about),
    }
    templates = sorted(TEMPLATES.glob(f"*{SUFFIX}"))
    return {
        path.name.removesuffix(SUFFIX): Template(path.read_text(encoding="utf-8")).substitute(values)
        for path in templates
    }


def as_yaml(text: str) -> str:
    """The text as a YAML scalar, in quotes where it would be read as something else: `on`, `a: b`."""
    import yaml

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
    files = files_of(project)
    try:
        with _parents_of(place), _beside(place) as draft:
            for name, text in files.items():
                (draft / name).write_text(text, encoding="utf-8")
            _put(draft, place)
    except OSError as error:
        raise ToolFailed(
            f"{project.shown_folder} cannot be written: {error.strerror}",
            expected="a checkout that this user may write to, on a disk with free space",
        ) from error
    return list(files)


def _put(draft: Path, place: Path) -> None:
    """Rename: a folder with something in it is not replaced, and neither is a file."""
    try:
        draft.rename(place)
    except OSError as error:
        if not place.exists():
            raise
        raise Refused(
            f"something came into {place.name!r} while the project was written", expected="an empty folder"
        ) from error


@contextlib.contextmanager
def _parents_of(place: Path) -> Iterator[None]:
    """Make the folders above `place` that are missing; they go again when what follows fails."""
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with contextlib.suppress(OSError):  # somebody uses it by now
                parent.rmdir()
        raise


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """An empty folder on the same disk as `place`; nothing is left of it unless it was renamed."""
    draft = place.with_name(f".{place.name[:40]}.{secrets.token_hex(4)}")
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# What is left to do by hand


def entry(project: Project) -> str:
    """The project's entry in the list of services, as it stands there."""
    return f"""\
    Service(
        name="{project.name}",
        folder="{project.folder}",
        about="{project.about}",
        namespace="{project.name}",
        needs=("tailscale",),
        exposed=("ingress/{project.name}",),
    ),
"""


def next_commands(project: Project) -> list[str]:
    return [
        ".venv/bin/python scripts/write_tables.py && .venv/bin/python scripts/draw_platform.py",
        "./inv check",
        "./inv test -p tests/programs/test_projects.py",
        f"./inv deploy.{project.name}",
    ]
