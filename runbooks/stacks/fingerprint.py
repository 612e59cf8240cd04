"""Hashes everything that determines the plan of a stack, and finds stacks that need no new preview.

A plan is compared by these hashes right before it is applied: two equal fingerprints lead to the same plan.

A preview takes seconds of processor time; reading its inputs takes milliseconds. After a preview without changes, and
after a complete apply, the hashes of all inputs are recorded. While they stay the same, a preview would give the same
answer. `recorder/sitecustomize.py` records what a program reads besides its config. If it reads anything that no hash
can hold (the network, the clock, a child process, a file elsewhere), its stack is previewed each time. Drift in the
cluster is not an input of a preview: `./inv drift.<service>` looks for it.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import yaml

from runbooks.core.command import Command
from runbooks.core.errors import STATE_FOLDER
from runbooks.core.files import make_folder, write_atomically
from runbooks.stacks.plan import NO_RECORD
from runbooks.stacks.preparation import clear_state, hash_text, open_bound, prepare, read_settings, state_file, state_of
from runbooks.stacks.service import Service
from runbooks.stacks.session import Once, Session
from runbooks.tools.pulumi import Export, type_of
from runbooks.tools.pulumi_home import place_of, plugin_folder, wanted_plugins
from runbooks.tools.secret_values import SECRET_SIGNATURE
from runbooks.tools.stack import Stack

STACK_CONFIG = re.compile(r"^Pulumi\..+\.yaml$")


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Of `safe_load`, in C where PyYAML was built with it."""
Parts = Mapping[str, str]
"""Name → hash, as a fingerprint has them."""
RECORDER = Path(__file__).with_name("recorder")
READS = "HOMELAB_OPS_READS"
"""The variable that names the file of a program's reads."""
SET_BY_PULUMI = re.compile(r"PULUMI_(CONFIG|CONFIG_SECRET_KEYS|HOME|CREDENTIALS_PATH)$|HOMELAB_OPS_READS$|KUBECONFIG$")
"""Variables that differ in each run; the config and the cluster they lead to are parts of their own."""
DECIDING = ("program files", "settings", "opened environment", "provider versions", "charts")
"""Parts that can change outputs without changing a resource. Outputs of producers can do so too."""


def fingerprint_of(session: Session, service: Service, once: Once | None = None) -> dict[str, str]:
    """Read everything that determines the plan of the service's stack, again at each call: part → hash.

    With `once`, what other stacks share is what it was in this planning pass.
    """
    stack = session.stack(service)
    settings, state = read_settings(session, stack), state_file(session, stack)
    parts = files_of(session, stack, once) | {
        "pulumi": f"{session.tools.pulumi} {session.tools.pulumi_version}",
        "target": f"{session.target.backend} {stack.reference} {session.target.cluster_uid}",
        "state": hash_files([state]) if state else clear_state(session, stack).digest,
    }
    # Environments that `prepare` opened are used once. Later they are opened again, as their values may have changed.
    opened = session.known.opened.pop((settings.path, *settings.environment), None)
    if opened is None:
        opened = open_bound(session, settings)
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
    text = canonical(state_of(session, stack).outputs)
    digest = hash_text(text)
    if state_file(session, stack) is None or SECRET_SIGNATURE not in text:
        return digest
    return session.known.once.read(digest, lambda: hash_text(canonical(clear_state(session, stack).outputs)))


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


# What a program reads


@dataclass(frozen=True, kw_only=True)
class Reads:
    """The things that a program read besides its config, as its recorder wrote them down."""

    files: Sequence[str] = ()
    """Absolute paths of files and listed folders, without those of the interpreter and of installed packages."""
    variables: Sequence[str] = ()
    """Names; `*` for all."""
    outside: Sequence[str] = ()
    """What no fingerprint can hold: `the network`, `the clock`, …"""
    complete: bool = False
    """False if the program did not run to its end under the recorder."""
    cluster: str = ""
    """Hash of the version and kinds of the cluster before it ran, if the stack had charts by then."""


def record_reads(session: Session, command: Command, stack: Stack) -> tuple[Command, Callable[[], Reads]]:
    """Add a recorder to the command's program; also return how to read its record once the command ended."""
    # In the run's own PULUMI_HOME, which is removed however the run ends.
    path = Path(session.env["PULUMI_HOME"]) / f"reads-{stack.project}-{secrets.token_hex(4)}.jsonl"
    recording = replace(command, env={**command.env, READS: str(path), "PYTHONPATH": str(RECORDER)})
    cluster = cluster_of_charts(session) if _has_charts(state_of(session, stack)) else ""
    return recording, lambda: replace(read_reads(path), cluster=cluster)


def read_reads(path: Path) -> Reads:
    try:
        facts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return Reads()
    return Reads(
        files=sorted({fact["file"] for fact in facts if "file" in fact}),
        variables=sorted({name for fact in facts if (name := fact.get("variable")) and not SET_BY_PULUMI.match(name)}),
        outside=tuple(dict.fromkeys(fact["outside"] for fact in facts if "outside" in fact)),
        complete=any("end" in fact for fact in facts),
    )


def _hash_read(path: str) -> str:
    """The hash of a folder's names or of a file's content."""
    found = Path(path)
    try:
        if found.is_dir():
            return hash_text("\n".join(sorted(each.name for each in found.iterdir() if each.name != "__pycache__")))
        return hash_files([found])
    except OSError as error:  # the program may have handled the same error
        return f"unreadable: {error.errno}"


def _reads_parts(session: Session, stack: Stack, reads: Reads, once: Once | None = None) -> dict[str, str]:
    """The parts of a fingerprint that depend on what the program reads, and on what runs it."""
    once = once or Once()
    environment = session.runner.environment(stack.env)
    names = environment if "*" in reads.variables else reads.variables
    run_folder = str(session.journal.folder)  # files there are new in each run
    variables = {
        name: environment.get(name, "\0missing").replace(run_folder, "<run>")
        for name in sorted(names)
        if not SET_BY_PULUMI.match(name)
    }
    own = f"{stack.folder}{os.sep}"  # no other stack reads these
    files = [
        (path, _hash_read(path) if path.startswith(own) else once.read(path, functools.partial(_hash_read, path)))
        for path in reads.files
    ]
    venv = _virtual_environment(stack.folder)
    return {
        "files it reads": hash_text(json.dumps(files)),
        "variables it reads": hash_text(json.dumps(variables, sort_keys=True)),
        "installed packages": once.read(("packages", venv), lambda: _hash_packages(venv)),
        "programs": once.read("programs", lambda: _hash_programs(session)),
    }


def _virtual_environment(folder: Path) -> Path:
    """That of the program in the folder, as its `Pulumi.yaml` names it."""
    try:
        text = (folder / "Pulumi.yaml").read_text(encoding="utf-8")
        name = yaml.load(text, Loader=LOADER)["runtime"]["options"]["virtualenv"]  # noqa: S506 - a safe one
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        name = ""
    return (folder / str(name or ".venv")).resolve()


def _hash_packages(venv: Path) -> str:
    """Of name and version of each package in the virtual environment, and of what else is on its path."""
    facts = [_identity(venv / "pyvenv.cfg")]
    for folder in sorted(venv.glob("lib*/python*/site-packages")):
        facts += sorted(found.name for found in folder.glob("*.dist-info"))
        facts += [f"{path.name} {hash_files([path])}" for path in sorted(folder.glob("*.pth"))]
    return hash_text("\n".join(facts))


def _hash_programs(session: Session) -> str:
    """Of pulumi and its plugins; `missing` where there is none."""
    plugins = [place_of(plugin, plugin_folder(session.env), session.env) for plugin in wanted_plugins()]
    places = (session.tools.pulumi, *plugins)
    return hash_text("\n".join(_identity(Path(place)) if place else "missing" for place in places))


def _identity(program: Path) -> str:
    """A program's identity: real path, size and time of change, as its content is too large to be read each time."""
    try:
        real = program.resolve(strict=True)
        facts = real.stat()
    except OSError:
        return f"{program} missing"
    return f"{real} {facts.st_size} {facts.st_mtime_ns}"


# The record of the last preview without changes, or complete apply


@dataclass(frozen=True, kw_only=True)
class Record:
    """The stack's inputs when it had no change."""

    at: str
    """ISO 8601, local time."""
    parts: Parts
    """The parts of a fingerprint, as keyed hashes."""
    reads: Reads
    applied: Parts
    """The same of the last complete apply from here; empty if there was none. They differ while a change that only
    concerns outputs was previewed and not applied."""

    @property
    def since(self) -> str:
        """`14:02` today, else with its date."""
        at = datetime.fromisoformat(self.at)
        return f"{at:%H:%M}" if at.date() == datetime.now(at.tzinfo).date() else f"{at:%Y-%m-%d %H:%M}"


def _record_path(session: Session, stack: Stack) -> Path:
    return session.state_dir / "applied" / session.target.name / f"{stack.project}.json"


def _keyed(session: Session, parts: Parts) -> dict[str, str]:
    """Key the hashes for the disk: a short secret could be guessed from the plain hash of a known text."""
    key = _key(session.state_dir).encode()
    return {name: hmac.digest(key, f"{name}\0{value}".encode(), "sha256").hex() for name, value in parts.items()}


@functools.cache
def _key(state_dir: Path) -> str:
    """The random key of this state folder (0600). With a new key every record differs, so all stacks are previewed."""
    path = state_dir / "applied" / "key"
    what = "the key for the records of what was applied"
    make_folder(path.parent, what)
    if not path.exists():  # of two concurrent runs one key wins; the other's records then count as changed
        write_atomically(path, secrets.token_hex(32), mode=0o600, what=what, next_step=STATE_FOLDER)
    return path.read_text(encoding="utf-8")


def read_record(session: Session, stack: Stack) -> Record | None:
    """Read the record; `None` if it is missing or unreadable: the stack is then previewed and applied once more."""
    try:
        found = json.loads(_record_path(session, stack).read_text(encoding="utf-8"))
        datetime.fromisoformat(found["at"])
        parts, applied = dict(found["parts"]), dict(found["applied"])
        return Record(at=found["at"], parts=parts, reads=Reads(**found["reads"]), applied=applied)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write_record(session: Session, stack: Stack, fingerprint: Parts, reads: Reads, *, applied: bool) -> None:
    """Record the inputs of a stack without changes. Raises `Unwritable`; the stack is then previewed next time."""
    path = _record_path(session, stack)
    what = "the record of what was applied"
    make_folder(path.parent, what)
    parts = _keyed(session, dict(fingerprint) | _reads_parts(session, stack, reads))
    before = read_record(session, stack)
    was_applied = before.applied if before else {}
    at = datetime.now().astimezone().isoformat(timespec="seconds")
    record = Record(at=at, parts=parts, reads=reads, applied=parts if applied else was_applied)
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n", mode=0o600, what=what, next_step=STATE_FOLDER)


def remove_record(session: Session, stack: Stack, fingerprint: Parts, record: Record | None) -> None:
    """Remove the record if it says that a stack with this fingerprint has no change."""
    if record and not changed_since(session, record.parts, fingerprint):
        _record_path(session, stack).unlink(missing_ok=True)


def is_last_applied(session: Session, fingerprint: Parts, record: Record | None) -> bool:
    """Whether the stack was last applied from here with the same program and settings.

    pulumi's JSON preview shows resources only: a new or changed output alone looks like no change.
    """
    if record is None or not record.applied:
        return False
    deciding = {
        name: value for name, value in fingerprint.items() if name in DECIDING or name.startswith("outputs of ")
    }
    return not changed_since(session, record.applied, deciding)


def changed_since(session: Session, recorded: Parts, parts: Parts) -> list[str]:
    """The names of the parts that differ from the record."""
    return [name for name, key in _keyed(session, parts).items() if recorded.get(name) != key]


def reasons_to_ask(
    session: Session,
    stack: Stack,
    fingerprint: Parts,
    record: Record | None,
    changing: Collection[str] = (),
    once: Once | None = None,
) -> list[str]:
    """Why the stack has to be previewed; empty if the record holds. `changing` are its producers that will change."""
    once = once or Once()
    if record is None:
        return [NO_RECORD]
    if not record.reads.complete:
        return ["what its program reads is not known"]
    if any(path.startswith(f"{session.state_dir / 'worktrees'}{os.sep}") for path in record.reads.files):
        return ["it was rolled back to another commit"]
    reasons = [f"its program asks {what}" for what in record.reads.outside]
    charts = charts_folder(session, stack)
    listed = [session.root / "pulumi", session.root / "charts.yaml", *([charts] if charts else [])]
    inside = tuple(f"{folder}{os.sep}" for folder in listed)
    reasons += [f"its program reads {path}" for path in record.reads.files if not f"{path}{os.sep}".startswith(inside)]
    reasons += _reasons_in_state(session, state_of(session, stack), record, once)
    if not reasons:  # one reason is enough for a preview, and hashing costs time
        now = _keyed(session, dict(fingerprint) | _reads_parts(session, stack, record.reads, once))
        reasons = [f"{name} changed" for name in changed_parts(record.parts, now)]
    return reasons + [f"{name} changes" for name in changing]


def changed_parts(before: Parts, now: Parts) -> list[str]:
    """The names of the parts that are not the same in both fingerprints."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


READ_BY_PROVIDER = re.compile(r"kubernetes:(yaml(/v2)?:Config(File|Group)|kustomize(/v2)?:Directory)$")
"""Components whose provider reads files or addresses of its own."""
CHART = re.compile(r"kubernetes:helm\.sh/v[34]:(Chart|Release)$")
EXACT = re.compile(r"v?\d+\.\d+\.\d+(-[\w.]+)?(\+[\w.]+)?$|sha256:[0-9a-f]{64}$")
ASSETS = re.compile(r"c44067f5952c0a294b673a41bacd8c21|0def7320c3a5731c473e5ecbe6d01bc7")
"""Pulumi's signatures of an asset and of an archive: the engine reads their files."""


def _reasons_in_state(session: Session, export: Export, record: Record, once: Once) -> Iterator[str]:
    if export.pending:
        yield "operations of an interrupted update are open"
    for resource in export.resources:
        kind = type_of(resource.urn)
        if READ_BY_PROVIDER.search(kind) or kind.startswith("pulumi-python:dynamic"):
            yield f"{kind} reads what only its provider knows"
        elif resource.external and kind != "pulumi:pulumi:StackReference":
            yield f"{kind} is read from outside the stack"
        elif ASSETS.search(json.dumps(resource.inputs, default=str)):
            yield f"{kind} has files that pulumi itself reads"
    if _has_charts(export):
        pins = session.root / "charts.yaml"
        known = str(pins) in record.reads.files
        yield from once.read(pins, lambda: _unpinned(pins)) if known else ["its chart is not one of charts.yaml"]
        if not record.reads.cluster or record.reads.cluster != cluster_of_charts(session):
            yield "its charts may read the cluster's version and kinds, which changed or were not recorded"


def _has_charts(export: Export) -> bool:
    return any(CHART.search(type_of(resource.urn)) for resource in export.resources)


def cluster_of_charts(session: Session) -> str:
    """One hash of the cluster's version and kinds, `.Capabilities` in a chart; empty if the cluster does not say.

    Read once a run, so before any of its charts is rendered: kinds that the run itself brings make it differ next time.
    Source: pulumi-kubernetes provider/pkg/provider/helm/v4/chart.go (setKubeVersionAndAPIVersions).
    """

    def read() -> str:
        answers = [session.runner.run(each) for each in (session.kubectl.raw("/version"), session.kubectl.kinds())]
        lines = (line for answer in answers for line in sorted(answer.stdout.splitlines()))
        return hash_text("\n".join(lines)) if all(answer.ok for answer in answers) else ""

    return session.known.once.read("cluster of charts", read)


def _unpinned(pins: Path) -> list[str]:
    """Charts that `charts.yaml` gives no exact version, so that a repository may serve another one today."""
    try:
        entries = yaml.safe_load(pins.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        entries = None
    if not isinstance(entries, dict):
        return ["charts.yaml cannot be read"]
    versions = {name: entry.get("version") if isinstance(entry, dict) else None for name, entry in entries.items()}
    return [
        f"charts.yaml pins no exact version of {name}"
        for name, version in versions.items()
        if not (isinstance(version, str) and EXACT.match(version))
    ]
