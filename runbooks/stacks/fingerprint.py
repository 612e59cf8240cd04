"""What determines the plan of a stack, as one hash for each part; and those of the update that was last applied here.

A plan is compared by them right before it is applied: two equal fingerprints lead to the same plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from runbooks.core.errors import STATE_FOLDER
from runbooks.core.files import make_folder, write_atomically
from runbooks.stacks import environments, states
from runbooks.stacks.guard import read_settings
from runbooks.stacks.preparation import outputs_of, prepare
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import hash_text
from runbooks.tools.secret_values import SECRET_SIGNATURE, blanked
from runbooks.tools.stack import Stack

STACK_CONFIG = re.compile(r"^Pulumi\..+\.yaml$")
DECIDING = ("program files", "settings", "opened environment", "provider versions", "charts")
"""Parts of a fingerprint that can change outputs without changing a resource."""


def fingerprint_of(session: Session, service: Service) -> dict[str, str]:
    """Everything that determines the plan of the service's stack, read again at each call: part → hash."""
    stack, root = session.stack(service), session.root
    settings, state = read_settings(session, stack), states.state_file(session, stack)
    parts = {
        "program files": hash_files([stack.folder, root / "pulumi" / "lib", root / "charts.yaml"]),
        "settings": hash_files([stack.settings_file]),
        "provider versions": hash_files([root / "uv.lock"]),
        "pulumi": f"{session.tools.pulumi} {session.tools.pulumi_version}",
        "target": f"{session.target.backend} {stack.reference} {session.target.cluster_uid}",
        "state": hash_files([state]) if state else states.clear_state(session, stack).digest,
    }
    charts = settings.config.get("charts:source")
    if isinstance(charts, str) and "://" not in charts:
        # A relative folder is below the repository's root, as `pulumi/lib/charts.py` takes it.
        parts["charts"] = hash_files([(root / charts).resolve()])
    # What `prepare` opened serves once. Later they are opened again, as their values may have changed.
    opened = session.known.opened.pop((settings.path, *settings.environment), None)
    if opened is None:
        opened = environments.open_bound(session, settings)
    if opened:
        values = [(value.path, value.value, value.secret) for each in opened for value in each.values]
        parts["opened environment"] = hash_text(canonical(values))
    for name in service.reads_outputs_of:
        parts[f"outputs of {name}"] = _outputs_digest(session, prepare(session, session.service(name)))
    return parts


def changed_parts(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of the parts that are not the same in both fingerprints."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _outputs_digest(session: Session, stack: Stack) -> str:
    """One hash of the stack's outputs, of secret ones by their values.

    Ciphertexts do not compare: pulumi encrypts every secret of a state anew at each update, changed or not
    (pkg/resource/stack/secrets.go). The values are read once per state and stay in memory.
    """
    text = canonical(states.state_of(session, stack).outputs)
    digest = hash_text(text)
    if states.state_file(session, stack) is None or SECRET_SIGNATURE not in text:
        return digest
    with session.known.one_at_a_time("digests"):
        if digest not in session.known.digests:
            session.known.digests[digest] = hash_text(canonical(states.clear_state(session, stack).outputs))
        return session.known.digests[digest]


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def hash_files(paths: Iterable[Path]) -> str:
    """One hash over names and contents of files and whole folders; what is missing counts as missing.

    Byte code, hidden files and stack settings (which are fingerprinted apart) are left out.
    """
    digest = hashlib.sha256()
    for path in sorted({found for each in paths for found in _files_in(each)}):
        digest.update(f"{path}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"\0missing")
        digest.update(b"\0")
    return digest.hexdigest()


def _files_in(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for found in path.rglob("*"):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in found.relative_to(path).parts)
        if found.is_file() and not hidden and found.suffix != ".pyc" and not STACK_CONFIG.match(found.name):
            yield found


# What was applied last from here


def is_last_applied(session: Session, stack: Stack, fingerprint: Mapping[str, str]) -> bool:
    """Whether the stack was last applied from here with the same program and settings.

    pulumi's JSON preview shows resources only: a new or changed output alone looks like no change.
    """
    try:
        recorded = json.loads(_record_path(session, stack).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # never written, or not readable: then it is applied once more
        return False
    return bool(recorded == _deciding(session, stack, fingerprint))


def record_applied(session: Session, stack: Stack, fingerprint: Mapping[str, str]) -> None:
    """Write down what was applied from here. Raises `Unwritable`: the next deploy then applies it once more."""
    path = _record_path(session, stack)
    what = "the record of what was applied"
    make_folder(path.parent, what)
    text = json.dumps(_deciding(session, stack, fingerprint), indent=1) + "\n"
    write_atomically(path, text, mode=0o600, what=what, next_step=STATE_FOLDER)


def _record_path(session: Session, stack: Stack) -> Path:
    return session.state_dir / "applied" / session.target.name / f"{stack.project}.json"


def _deciding(session: Session, stack: Stack, fingerprint: Mapping[str, str]) -> dict[str, str]:
    """What is written down of a fingerprint. Of a producer's outputs the plain ones: no secret, not even as a hash.

    A secret one that changes is a change of the consumer's own resources, which its preview shows.
    """
    upstream = {
        f"outputs of {name}": hash_text(canonical(blanked(outputs_of(session, name))))
        for name in session.service(stack.service).reads_outputs_of
    }
    return {name: fingerprint[name] for name in DECIDING if name in fingerprint} | upstream
