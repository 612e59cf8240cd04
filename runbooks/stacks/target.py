"""The target of a run: stack, backend and cluster, from `targets.yaml` or, for the lab, from the lab's own file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from runbooks.core.errors import NotFound, OpsError, Refused, Usage
from runbooks.core.names import check_name, nearest, refuse_option_like
from runbooks.core.yaml_file import YamlEditor, YamlFile
from runbooks.tools.kubeconfig import is_loopback, read_context

LAB = "lab"
LAB_UP = "./inv lab.up"
TARGETS_FILE = "targets.yaml"
DIY_SCHEMES = ("file", "s3", "gs", "azblob", "postgres")
DIY_ORGANIZATION = "organization"
"""The literal word that file and bucket backends use for every organization (pulumi pkg/backend/diy)."""


WAYS_OUT = (
    "choose a target whose backend is the Pulumi Cloud (`pulumi login --cloud`, backend: https://… in targets.yaml), "
    "or use `esc env ls` and `esc open` with a cloud login for the environment itself and put what the stack needs "
    "into its own config (./inv esc.unbind {name})"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target, resolved once a run and passed explicitly to every tool."""

    name: str
    stack: str
    backend: str
    """A URL; file paths in it are absolute."""
    organization: str
    kubeconfig: Path
    context: str
    cluster_uid: str = ""
    """UID of namespace `kube-system`; empty until it is pinned."""
    passphrase_file: Path | None = None
    token_file: Path | None = None
    """Where the access token of the lab's own cloud is; for any other cloud `pulumi login` knows it."""
    ephemeral: bool = False
    """True for the lab's target alone: no change there needs an approval."""
    settings_dir: Path | None = None
    """Stack settings outside the projects, `<settings_dir>/<project>/Pulumi.<stack>.yaml` (the lab)."""
    credentials_dir: Path | None = None
    tools: Mapping[str, Path] = field(default_factory=dict)
    """Tools the lab brings along, by name."""
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Per Pulumi project, the plain settings this target imposes."""

    @property
    def is_pinned(self) -> bool:
        return bool(self.cluster_uid)

    @property
    def has_diy_backend(self) -> bool:
        return urlsplit(self.backend).scheme in DIY_SCHEMES

    @property
    def shown_backend(self) -> str:
        """The backend without user name, password or query."""
        parts = urlsplit(self.backend)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def file_backend(self) -> Path | None:
        """Folder of a `file://` backend."""
        parts = urlsplit(self.backend)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def own_tool(self, name: str) -> Path | None:
        """The program that the lab chose at its start, if it still exists; none on any other target."""
        program = self.tools.get(name)
        return program if program is not None and program.exists() else None


def refuse_without_esc(target: Target, name: str, about: str = "") -> None:
    """Raise `Usage`, with both alternatives, if the backend does not support ESC: before anything runs."""
    if target.has_diy_backend:
        raise Usage(
            f"{about or 'this needs ESC'}, and {target.shown_backend} does not support Pulumi ESC",
            expected="a Pulumi Cloud backend, or a stack config without `environment:`",
            next_step=WAYS_OUT.format(name=name),
        )


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What `targets.yaml` holds."""

    default: str
    defined: Mapping[str, Target]

    @property
    def names(self) -> list[str]:
        return sorted({LAB, *self.defined})


def chosen_name(option: str | None, environ: Mapping[str, str], targets: Targets) -> str:
    """`--target`, else `OPS_TARGET`, else the file's default; an empty one of these is an error, never skipped."""
    for source, value in (("--target", option), ("OPS_TARGET", environ.get("OPS_TARGET"))):
        if value is None:
            continue
        # A variable that a script failed to fill must not lead to the default instead.
        if not value.strip():
            raise Usage(
                f"{source} is set but empty",
                expected=f"one of {', '.join(targets.names)}, or {source} not set at all",
            )
        step = "./inv target.show --target lab, or add it to targets.yaml as docs/first-real-cluster.md describes"
        return check_name("target", value, targets.names, list_with=step)
    return targets.default


def load_targets(root: Path) -> Targets:
    """Read `<root>/targets.yaml`; without that file only the lab exists.

    Raises `Usage` that names file and line for anything that is not exactly the schema.
    """
    path = root / TARGETS_FILE
    if not path.exists():
        return Targets(default=LAB, defined={})
    source = YamlFile.read(path)
    top = source.mapping()
    source.refuse_unknown_keys(top, ("default", "targets"), "the file")
    entries = source.section(top, "targets") if "targets" in top else {}
    defined = {str(name): _read_target(source, entries, str(name), root) for name in entries}
    default = source.text(top, "default", "the file") if "default" in top else LAB
    if default not in {LAB, *defined}:
        raise Usage(
            f"{source.where(top, 'default')}: the default target {default!r} is not defined",
            expected=f"one of {', '.join(nearest(default, {LAB, *defined}))}",
        )
    return Targets(default=default, defined=defined)


def load_target(name: str, *, root: Path, state_dir: Path) -> Target:
    """The target called `name`. `lab` is read from what the lab wrote when it started (`NotFound` before that)."""
    if name == LAB:
        return load_lab_target(state_dir)
    targets = load_targets(root)
    target = targets.defined[check_name("target", name, targets.names)]
    # Refused here, as a variable that is not set must not stop the runs on other targets. The checkout's own folder may
    # have a `$` in its name.
    if unset := re.search(r"\$(\w+|\{\w+\})", str(target.kubeconfig).replace(str(root), "")):
        raise Usage(
            f"{root / TARGETS_FILE}: the kubeconfig of target {name!r} names the variable {unset[0]}, which is not set",
            expected="a path, or several with `:` between them; `~` and variables that are set are expanded",
            next_step=f"set {unset[1].strip('{}')} or change the path, then run the same command again",
        )
    return target


def _read_target(source: YamlFile, entries: Mapping[str, Any], name: str, root: Path) -> Target:
    with _located(source.where(entries, name)):
        if name == LAB:
            raise Usage(
                "the target `lab` cannot be defined here",
                expected="another name; the lab describes itself when it starts",
            )
        refuse_option_like("target", name)
    entry = source.section(entries, name)
    about = f"target {name!r}"
    source.refuse_unknown_keys(entry, KEYS, about)
    values = {key: source.text(entry, key, about) for key in KEYS if key in REQUIRED_KEYS or key in entry}
    read: dict[str, Any] = {}
    for key, value in values.items():
        with _located(source.where(entry, key)):
            read[key] = KEYS[key](value, root)
    with _located(source.where(entry, "organization")):
        scheme = urlsplit(values["backend"]).scheme
        if scheme in DIY_SCHEMES and values["organization"] != DIY_ORGANIZATION:
            raise Usage(
                f"the organization is {values['organization']!r}",
                expected=f"{DIY_ORGANIZATION!r}: {scheme}:// backends know no other, and stack references carry it",
            )
    return Target(name=name, **read)


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    """Put file and line before the message of a `Usage` error."""
    try:
        yield
    except Usage as error:
        raise Usage(f"{where}: {error.summary}", expected=error.expected) from error


def _read_word(kind: str, value: str, _: Path) -> str:
    # A context may hold anything else, e.g. `admin@home` or an ARN.
    if kind != "context" or value.startswith("-"):
        refuse_option_like(kind, value)
    if kind == "stack" and "/" in value:
        raise Usage(
            f"the stack {value!r} holds a slash",
            expected="the stack's name alone; organization and project are added from here and from Pulumi.yaml",
        )
    return value


def _read_path(value: str, root: Path) -> Path:
    return Path(os.path.normpath(root / Path(value).expanduser()))


def _read_kubeconfig(value: str, root: Path) -> Path:
    """One file, or several with `:` between them as in KUBECONFIG."""
    parts = os.path.expandvars(value).split(os.pathsep)
    return Path(os.pathsep.join(str(_read_path(part, root)) for part in parts if part))


def _read_backend(value: str, root: Path) -> str:
    """The URL, the path of a file backend absolute."""
    parts = urlsplit(value)
    if parts.scheme == "file":
        rest = value.removeprefix("file://")
        if not rest:
            raise Usage(f"the backend {value!r} names no folder", expected="file://~/folder or file:///folder")
        return f"file://{quote(str(_read_path(unquote(rest), root)))}"
    # Without TLS the access token could be read on the way; on loopback there is none.
    is_https = parts.scheme == "https" and parts.hostname
    if parts.scheme in DIY_SCHEMES or is_https or (parts.scheme == "http" and is_loopback(value)):
        return value
    raise Usage(
        f"{parts.scheme + '://…' if parts.scheme else repr(value)} is not a valid backend",
        expected=f"a URL: https://…, or one of {', '.join(f'{scheme}://' for scheme in DIY_SCHEMES)}",
    )


REQUIRED_KEYS = ("stack", "backend", "organization", "kubeconfig", "context")
KEYS: Mapping[str, Callable[[str, Path], Any]] = {
    "stack": partial(_read_word, "stack"),
    "backend": _read_backend,
    "organization": partial(_read_word, "organization"),
    "kubeconfig": _read_kubeconfig,
    "context": partial(_read_word, "context"),
    "cluster_uid": lambda value, _: value,
    "passphrase_file": _read_path,
}
"""Key of a target → the function that reads its value; paths are relative to the repository's root."""


# --- the lab's own target ------------------------------------------------------------------------------------------


def lab_target_file(state_dir: Path) -> Path:
    return state_dir / "lab" / "target.json"


def load_lab_target(state_dir: Path) -> Target:
    """The target the lab wrote about itself; the only one that may be ephemeral.

    Raises `NotFound` when there is no lab here, and `Refused` when the file is not one the lab can
    have written: readable by others, a server that is not on loopback, no certificate authority of its own, no
    recorded UID, or paths outside the lab's folder.
    """
    path = lab_target_file(state_dir)
    if not path.exists():
        raise NotFound("there is no lab here", expected=str(path), next_step=LAB_UP)
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise _not_the_labs(path, f"it has mode {stat.filemode(facts.st_mode)} and belongs to user {facts.st_uid}")
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        target = _from_lab(written)
        # A rehearsal of what a file backend does: the user names it as pulumi's own users do.
        if os.environ.get("PULUMI_BACKEND_URL") == written["file_backend"]:
            target = _on_file_backend(target, written)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_the_labs(
            path, f"it cannot be read as the lab writes it ({type(error).__name__}: {error})"
        ) from error
    _refuse_unless_lab(target, path)
    return target


def _from_lab(written: Mapping[str, Any]) -> Target:
    read: dict[str, Any] = {key: str(written[key]) for key in (*REQUIRED_KEYS, "cluster_uid")}
    if empty := [key for key in REQUIRED_KEYS if not read[key]]:
        raise ValueError(f"{empty[0]} is empty")
    read |= {key: Path(str(written[key])) for key in ("kubeconfig", "token_file", "settings_dir", "credentials_dir")}
    settings = {
        str(project): {str(key): str(value) for key, value in imposed.items()}
        for project, imposed in written["settings"].items()
    }
    tools = {str(tool): Path(str(path)) for tool, path in written.get("tools", {}).items() if path}
    return Target(name=LAB, ephemeral=written["ephemeral"] is True, tools=tools, settings=settings, **read)


def _on_file_backend(target: Target, written: Mapping[str, Any]) -> Target:
    """The lab with its states in files: other stacks, whose configs and secrets are kept apart."""
    return replace(
        target,
        backend=str(written["file_backend"]),
        organization=DIY_ORGANIZATION,
        settings_dir=Path(str(written["file_settings_dir"])),
        token_file=None,
        passphrase_file=Path(str(written["passphrase_file"])),
    )


def _refuse_unless_lab(target: Target, path: Path) -> None:
    # An ephemeral target needs no approval, so this file must not make one of any other cluster.
    home = path.parent.resolve()
    folders = {
        "kubeconfig": target.kubeconfig,
        "settings_dir": target.settings_dir,
        "token_file or passphrase_file": target.token_file or target.passphrase_file,
    }
    for key, value in folders.items():
        if value is None or not value.resolve().is_relative_to(home):
            raise _not_the_labs(path, f"its {key} {value} is outside the lab's folder")
    backend = target.file_backend
    if not is_loopback(target.backend) and (backend is None or not backend.resolve().is_relative_to(home)):
        raise _not_the_labs(path, f"its backend {target.shown_backend} is neither in the lab's folder nor on loopback")
    if not target.cluster_uid:
        raise _not_the_labs(path, "it records no cluster UID")
    context = read_context(target.kubeconfig, target.context)
    if not is_loopback(context.server):
        raise _not_the_labs(path, f"its server {context.server} is not on loopback")
    if not context.has_own_authority:
        raise _not_the_labs(path, "its kubeconfig holds no certificate authority, or skips the check of it")


def _not_the_labs(path: Path, why: str) -> OpsError:
    return Refused(
        f"{path} is not what the lab writes: {why}",
        expected="a file of mode 0600 about a cluster on loopback with the lab's own certificate authority and UID",
        next_step=LAB_UP,
    )


# --- pinning -------------------------------------------------------------------------------------------------------


def pin(root: Path, name: str, cluster_uid: str) -> Path:
    """Write the cluster's UID into the target's entry of `targets.yaml`, and nothing else. Returns the file's path.

    Every other byte stays. Raises `Usage` when the file cannot take it.
    """
    editor = YamlEditor(root / TARGETS_FILE)
    editor.set(("targets", name, "cluster_uid"), cluster_uid)
    editor.write()
    return editor.path
