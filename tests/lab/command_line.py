"""The command line as a person uses it: `./inv …` as a process of its own, in a copy of this checkout."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from lab.platform import ports, processes
from lab.platform.supervisor import Record
from runbooks.core.journal import read_journal, runs_of

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1200.0
"""Seconds a command may take on a busy machine before the test gives up."""
AFTER_ENV = 'eval "$("$ROOT/inv" lab.env 2>/dev/null)"\n'
"""First line in a shell that works on the lab with plain tools."""
BASIC_PROGRAMS = ("sh", "env", "cat", "sed", "head", "git", "uname", "readlink", "dirname", "mkdir", "rm", "mv")


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command line ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def all(self) -> str:
        return f"exit {self.code}\n{self.stdout}\n{self.stderr}"

    def ends_with(self, code: int, *words: str) -> Self:
        """The exit code is this, standard error names all the words, and there is no traceback."""
        assert self.code == code, self.all
        missing = [word for word in words if word not in self.stderr]
        assert not missing, f"{missing} not in:\n{self.all}"
        if code:
            assert "next: " in self.stderr, self.all
        assert "Traceback (most recent call last)" not in self.all, self.all
        return self

    def shows(self, *words: str) -> Self:
        """Standard output has all the words."""
        missing = [word for word in words if word not in self.stdout]
        assert not missing, f"{missing} not in:\n{self.all}"
        return self

    @property
    def events(self) -> list[dict[str, Any]]:
        """What a run with `--json` printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Lab:
    """A running lab in a state folder, and what its kubectl shows."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    @property
    def lab_dir(self) -> Path:
        return self.state_dir / "lab"

    @property
    def kubeconfig(self) -> Path:
        return self.lab_dir / "kubeconfig"

    @property
    def target(self) -> Any:
        """The content of `target.json`."""
        return json.loads((self.lab_dir / "target.json").read_text("utf-8"))

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What `kubectl WORDS` prints; a failure is an AssertionError with its complaint."""
        argv = [self.target["tools"]["kubectl"], "--kubeconfig", self.kubeconfig, *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def changed(self, change: Sequence[str], *back: Sequence[str]) -> Iterator[None]:
        """After this kubectl command, until those that take it back."""
        self.kubectl(*change)
        try:
            yield
        finally:
            for words in back:
                self.kubectl(*words)

    def get(self, *words: str) -> Any:
        """`kubectl get WORDS` as an object."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        data = self.get("-n", namespace, "secret", name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    @property
    def postgres_port(self) -> int:
        return int(self.target["settings"]["postgresql"]["postgresql:port"])

    @property
    def superuser_password(self) -> str:
        return self.secret("postgresql", "postgresql-cluster-superuser")["password"]


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are gone: before that a look at the lab may still find them well."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not any(map(processes.identify, pids)), 10)


class Checkout(Lab):
    """A copy of this checkout with a state folder, which several copies may share, and a home folder of its own."""

    def __init__(self, root: Path, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.root = root
        self.bin = root.with_name(f"{root.name}-bin")
        """First on PATH."""
        self.home = root.with_name(f"{root.name}-home")
        for folder in (self.bin, self.home):
            folder.mkdir()
        copy_checkout(root)

    # --- the lab behind it ------------------------------------------------------------------------------------------

    def settings_file(self, project: str) -> Path:
        """The lab's own copy of the stack's settings."""
        return self.lab_dir / "stacks" / project / "Pulumi.lab.yaml"

    def state_file(self, project: str, stack: str = "lab") -> Path:
        """In the lab's cloud, or in its file backend where stacks of other names are."""
        if stack == "lab":
            return self.lab_dir / "cloud/stacks" / project / stack / "deployment.json"
        return self.lab_dir / "backend/.pulumi/stacks" / project / f"{stack}.json"

    def state(self, project: str, stack: str = "lab") -> bytes:
        """The state as it is kept, to compare; empty before the first update."""
        path = self.state_file(project, stack)
        return path.read_bytes() if path.exists() else b""

    def deployment(self, project: str, stack: str = "lab") -> Any:
        """What the stack's state holds; that it can be read is half of the proof that nothing was lost."""
        written = json.loads(self.state_file(project, stack).read_text("utf-8"))
        return written["deployment"] if stack == "lab" else written["checkpoint"]["latest"]

    def locks(self, project: str) -> list[str]:
        """What holds stacks of the project: lock files of the file backend, running updates of the cloud."""
        files = (self.lab_dir / "backend/.pulumi/locks").glob(f"organization/{project}/*/*.json")
        kept = self.lab_dir / "cloud/stacks" / project / "lab/stack.json"
        update = json.loads(kept.read_text("utf-8"))["active_update"] if kept.exists() else ""
        return [*map(str, sorted(files)), *([update] if update else [])]

    # --- the command line -------------------------------------------------------------------------------------------

    def environment(self, **more: str) -> dict[str, str]:
        """That of a person: nothing of this test run's own settings."""
        strange = ("OPS_", "PULUMI_", "PYTEST_", "INVOKE_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(strange)}
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return kept | {
            "OPS_STATE": str(self.state_dir),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": cache,
            "KUBECACHEDIR": str(self.home / "kube-cache"),
            "PATH": os.pathsep.join([str(self.bin), *folders_without_pulumi()]),
            **more,
        }

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Begin `./inv WORDS` from another folder, in a session of its own, as a shell or a service would."""
        return self.launch([self.root / "inv", *words], Path("/"), **options)

    def launch(self, argv: Sequence[str | Path], folder: Path, **options: Any) -> subprocess.Popen[str]:
        """Begin any command line with a person's environment."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = streams | options | {"env": self.environment(**options.get("env", {}))}
        return subprocess.Popen(argv, cwd=folder, text=True, start_new_session=True, **options)

    def inv(self, *words: str, stdin: str | None = None, env: Mapping[str, str] | None = None, **more: Any) -> Result:
        """`./inv WORDS` to its end."""
        started = time.monotonic()
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        child = self.start(*words, env=dict(env or {}), stdin=source, **more)
        return finished(child, stdin=stdin, started=started)

    def typed(self, *words: str, answers: Sequence[tuple[str, str]], env: Mapping[str, str] | None = None) -> Result:
        """`./inv WORDS` on a terminal, where each question (a part of it) gets its answer."""
        started = time.monotonic()
        ours, theirs = pty.openpty()
        try:
            child = self.start(*words, env={"TERM": "dumb", **(env or {})}, stdin=theirs, stdout=theirs)
            shown = _answered(child, ours, list(answers))
        finally:
            os.close(ours)
            os.close(theirs)
        return replace(finished(child, started=started), stdout=shown)

    def shell(self, lines: str, folder: str = "", **env: str) -> Result:
        """What bash prints for the lines, to the first that fails, in a folder of the checkout, which is `$ROOT`."""
        return finished(self.launch(["bash", "-ec", lines], self.root / folder, env={"ROOT": str(self.root), **env}))

    # --- what a run leaves ------------------------------------------------------------------------------------------

    @property
    def runs(self) -> Path:
        return self.state_dir / "runs"

    def in_runs(self, text: str) -> list[Path]:
        """The files of all runs that hold the text."""
        return [path for path in self.runs.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]

    def journal(self) -> list[dict[str, Any]]:
        """The records of the newest run."""
        return read_journal(runs_of(self.state_dir)[-1])

    def left_running(self) -> list[str]:
        """The processes that work for a run of this state folder: they have its folder in argv or environment."""
        return [process for process in processes_naming(str(self.runs)) if "ps " not in process]

    def assert_nothing_left(self, *projects: str) -> None:
        """No process, no lock of these projects, no private kubeconfig, no PULUMI_HOME."""
        assert self.left_running() == [], self.left_running()
        locks = [lock for project in projects for lock in self.locks(project)]
        assert locks == [], locks
        left = {path.name for path in self.runs.rglob("*") if path.is_file()}
        assert left <= {"journal.jsonl"}, left


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A checkout after its first `./inv deploy.postgres`."""

    checkout: Checkout
    result: Result
    changed_files: str
    """What git found changed right afterwards."""


def finished(child: subprocess.Popen[str], *, stdin: str | None = None, started: float | None = None) -> Result:
    """Wait for a started command line; one that takes too long is ended with all that it started."""
    began = time.monotonic() if started is None else started
    try:
        stdout, stderr = child.communicate(stdin, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGTERM)
        stdout, stderr = child.communicate()
        raise AssertionError(f"./inv did not end within {PATIENCE:.0f} s\n{stdout}\n{stderr}") from None
    return Result(code=child.returncode, stdout=stdout, stderr=stderr, seconds=time.monotonic() - began)


def _answered(child: subprocess.Popen[str], terminal: int, answers: list[tuple[str, str]]) -> str:
    """What the child shows on its terminal until it ends, its questions answered in turn."""
    shown, deadline = "", time.monotonic() + PATIENCE
    while child.poll() is None and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            shown += os.read(terminal, 4096).decode("utf-8", "replace")
        if answers and answers[0][0] in shown.rpartition("\n")[2]:
            os.write(terminal, f"{answers.pop(0)[1]}\n".encode())
    while select.select([terminal], [], [], 0)[0]:
        shown += os.read(terminal, 4096).decode("utf-8", "replace")
    assert not answers, f"never asked: {answers}\n{shown}"
    return shown.replace("\r\n", "\n")


def folders_without_pulumi() -> list[str]:
    """PATH without a pulumi: the lab then brings the one that it built."""
    return [folder for folder in os.get_exec_path() if shutil.which("pulumi", path=folder) is None]


def copy_checkout(root: Path) -> None:
    """Copy every file that git tracks or would track, and stand in for the set-up that `inv` makes once."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, root / name)
    for name in ("uv.lock", "pyproject.toml"):
        os.utime(root / name, (0, 0))  # older than the set-up, so that nobody synchronizes the environment of the tests
    venv = root / ".venv"
    venv.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".synced":
            (venv / entry.name).symlink_to(entry)
    (venv / ".synced").touch()


def commit_everything(root: Path) -> None:
    """Make the copy a repository of its own, so that git can tell what a run changed in it."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null")
    commit = (*who, "commit", "--quiet", "--message=chore: a copy")
    for words in (("init", "--quiet", "--initial-branch=main"), ("add", "--all"), commit):
        subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def git_status(root: Path) -> str:
    asked = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(asked, cwd=root, check=True, capture_output=True, text=True).stdout


def make_state(state_dir: Path) -> None:
    """A state folder whose lab has its database port already; not 5432, which the lab of the tester may want."""
    (state_dir / "lab").mkdir(mode=0o700, parents=True)
    Record(ports={"postgres": ports.pick(())}).save(state_dir / "lab" / "lab.json")


def until(
    look: Callable[[], T], what: str = "", seconds: float = 180.0, ignoring: type[Exception] = AssertionError
) -> T:
    """What `look` finds, as soon as it is true. A complaint of kubectl, and this kind of error, count as nothing."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (AssertionError, ignoring) as error:
            last = str(error)
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what} {last}")


def processes_naming(words: str) -> list[str]:
    """Command lines of the processes that have the words in their arguments or their environment; zombies do not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (process / "cmdline").read_bytes()
            if words.encode() in argv + (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append(f"{process.name}: {argv.replace(bytes(1), b' ').decode('utf-8', 'replace')[:200]}")
    return found


@contextlib.contextmanager
def changed(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """A file that says something else for a while; its mode stays."""
    before, mode = path.read_bytes(), path.stat().st_mode
    path.write_text(change(before.decode()))
    path.chmod(mode)
    try:
        yield
    finally:
        path.write_bytes(before)
