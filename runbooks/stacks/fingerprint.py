"""Hashes everything that determines the plan of a stack, one hash for each part.

A plan is compared by them right before it is applied: two equal fingerprints lead to the same plan.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from runbooks.stacks import environments, states
from runbooks.stacks.guard import read_settings
from runbooks.stacks.preparation import prepare
from runbooks.stacks.service import Service
from runbooks.stacks.session import Once, Session
from runbooks.stacks.states import hash_text
from runbooks.tools.secret_values import SECRET_SIGNATURE
from runbooks.tools.stack import Stack

STACK_CONFIG = re.compile(r"^Pulumi\..+\.yaml$")


def fingerprint_of(session: Session, service: Service, once: Once | None = None) -> dict[str, str]:
    """Read everything that determines the plan of the service's stack, again at each call: part → hash.

    With `once`, what other stacks share is what it was in this planning pass.
    """
    stack = session.stack(service)
    settings, state = read_settings(session, stack), states.state_file(session, stack)
    parts = files_of(session, stack, once) | {
        "pulumi": f"{session.tools.pulumi} {session.tools.pulumi_version}",
        "target": f"{session.target.backend} {stack.reference} {session.target.cluster_uid}",
        "state": hash_files([state]) if state else states.clear_state(session, stack).digest,
    }
    # Environments that `prepare` opened are used once. Later they are opened again, as their values may have changed.
    opened = session.known.opened.pop((settings.path, *settings.environment), None)
    if opened is None:
        opened = environments.open_bound(session, settings)
    if opened:
        values = [(value.path, value.value, value.secret) for each in opened for value in each.values]
        parts["opened environment"] = hash_text(canonical(values))
    for name in service.reads_outputs_of:
        parts[f"outputs of {name}"] = _outputs_digest(session, prepare(session, session.service(name)))
    return parts


def files_of(session: Session, stack: Stack, once: Once | None = None) -> dict[str, str]:
    """The parts that are files of this repository, or of a folder of charts."""
    root, charts, once = session.root, charts_folder(session, stack), once or Once()
    library = once.read("library", lambda: hash_files([root / "pulumi" / "lib", root / "charts.yaml"]))
    parts = {
        "program files": hash_text(f"{hash_files([stack.folder])} {library}"),
        "settings": hash_files([stack.settings_file]),
        "provider versions": once.read("uv.lock", lambda: hash_files([root / "uv.lock"])),
    }
    return parts | ({"charts": once.read(("charts", charts), lambda: hash_files([charts]))} if charts else {})


def charts_folder(session: Session, stack: Stack) -> Path | None:
    """The folder that `charts:source` names, from which charts are taken instead of their repositories.

    A relative one is below the repository's root, as `pulumi/lib/charts.py` takes it.
    """
    source = read_settings(session, stack).config.get("charts:source")
    return (session.root / source).resolve() if isinstance(source, str) and "://" not in source else None


def _outputs_digest(session: Session, stack: Stack) -> str:
    """One hash of the stack's outputs, of secret ones by their values.

    Ciphertexts do not compare: pulumi encrypts every secret of a state anew at each update, changed or not
    (pkg/resource/stack/secrets.go). The values are read once per state and stay in memory.
    """
    text = canonical(states.state_of(session, stack).outputs)
    digest = hash_text(text)
    if states.state_file(session, stack) is None or SECRET_SIGNATURE not in text:
        return digest
    return session.known.once.read(digest, lambda: hash_text(canonical(states.clear_state(session, stack).outputs)))


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def hash_files(paths: Iterable[Path]) -> str:
    """One hash over names and contents of files and whole folders; it also depends on which of them are missing.

    It does not depend on the folder they are in: a rollback applies the same files from another checkout. Byte code,
    hidden files (but what a chart ignores) and stack settings (which are fingerprinted apart) are left out.
    """
    digest = hashlib.sha256()
    for name, path in sorted(
        (str(found.relative_to(each.parent)), found) for each in paths for found in _files_in(each)
    ):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        digest.update(f"{name}\0{content}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _files_in(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, inner, names in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".") and name != "__pycache__"]
        for name in names:
            # Helm leaves out what its ignore file says.
            hidden = name.startswith(".") and name != ".helmignore"
            if not hidden and not name.endswith(".pyc") and not STACK_CONFIG.match(name):
                yield Path(folder, name)
