"""Records what a Pulumi program reads besides its config: a `sitecustomize` that `PYTHONPATH` puts before the program.

It runs in the program's own Python (3.10 or newer), whatever language host starts it, and imports nothing of this
repository. Each line of the file that `HOMELAB_OPS_READS` names is one fact, as JSON:

    {"file": "/abs/path"}      a file or folder that the program read or looked for
    {"variable": "NAME"}       looked up in the environment; `*` when all were listed
    {"outside": "the clock"}   anything whose answer no fingerprint can hold: network, child process, clock, chance
    {"end": true}              the program ended; without it the record is not complete

Files of the interpreter and of installed packages are left out: their versions are fingerprinted instead.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import site
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, source_from_cache
from types import ModuleType
from typing import Any

VARIABLE = "HOMELAB_OPS_READS"
EXECUTOR = "pulumi-language-python-exec"
"""The script with which every language host starts a Python program."""
OUTSIDE = {
    "socket.connect": "the network",
    "socket.getaddrinfo": "the network",
    "socket.gethostbyname": "the network",
    "socket.gethostname": "the name of this machine",
    "socket.sendto": "the network",
    "subprocess.Popen": "a child process",
    "os.exec": "a child process",
    "os.fork": "a child process",
    "os.forkpty": "a child process",
    "os.posix_spawn": "a child process",
    "os.system": "a child process",
}
"""Audit event → what it asks. Source: https://docs.python.org/3/library/audit_events.html."""
FOLDERS = ("os.listdir", "os.scandir")
CLOCK = ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime")
CLOCKS = ("datetime", "random", "secrets", "uuid")
"""Modules that ask the clock or chance in C, where no hook sees it: a program that imports one may ask them."""
CALLS = tuple(f"/pulumirpc.ResourceMonitor/{name}" for name in ("Invoke", "Call", "ReadResource", "ExistsResource"))
"""Functions of providers, and reads: they answer from the cluster, a server or a file of their own."""
ENGINE = "pulumi:pulumi:"
"""Functions and references that the engine answers from its stacks."""


class Recorder:
    """Writes each fact once, when it is seen: a program that is killed leaves a record without its end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.facts: set[tuple[str, str | bool]] = set()
        # Imports also look into the executor's folder, which is the first of sys.path.
        executors = {os.path.dirname(os.path.abspath(word)) for word in executor_words()}
        # Not all of a prefix: below `/usr` may be anything, this repository included.
        packages = site.getsitepackages([sys.prefix, sys.exec_prefix, sys.base_prefix])
        folders = {*packages, os.path.dirname(os.__file__), *executors}
        self.is_broken = False
        self.installed = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
        self.programs: dict[str, bool] = {}

    def start(self) -> None:
        import time

        for name in CLOCK:
            self.watch(time, name, "the clock")
        self.watch(os, "urandom", "chance")
        self.watch_looks()
        if sys.prefix == sys.base_prefix:
            self.note("outside", "packages outside a virtual environment")
        self.watch_environment()
        sys.meta_path.insert(0, CallWatcher(self))
        sys.addaudithook(self.make_hook())
        atexit.register(self.finish)

    def note(self, kind: str, what: str | bool) -> None:
        if (kind, what) not in self.facts:
            self.facts.add((kind, what))
            try:
                os.write(self.descriptor, json.dumps({kind: what}).encode() + b"\n")
            except OSError:  # a full disk
                self.is_broken = True

    def make_hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        """A plain function, as Python calls it 80,000 times a program and a bound method costs twice as much."""
        wanted, note = frozenset({"open", *FOLDERS, *OUTSIDE}), self.note_if_asked

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in wanted:
                note(event, arguments)

        return hook

    def note_if_asked(self, event: str, arguments: tuple[Any, ...]) -> None:
        try:
            if self.is_asked_by_program():
                self.note_event(event, arguments)
        except Exception:  # noqa: BLE001 - it would break the program off; the record has no end instead
            self.is_broken = True

    def note_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, mode, flags = arguments
            by_mode = isinstance(mode, str) and any(letter in mode for letter in "wax+")
            by_flags = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
            self.note_file(name, writes=by_mode or by_flags)
        elif event in FOLDERS:
            self.note_file(os.curdir if arguments[0] is None else arguments[0])
        else:
            self.note("outside", OUTSIDE[event])

    def note_file(self, name: str | bytes | int, *, writes: bool = False) -> None:
        if isinstance(name, int):
            return
        file = os.path.abspath(os.fsdecode(name))
        if file.endswith(".pyc"):
            with contextlib.suppress(ValueError):
                file = source_from_cache(file)
        of_python = writes and os.path.basename(os.path.dirname(file)) == "__pycache__"
        if file not in (self.path, os.devnull) and not of_python and not self.is_installed(file):
            self.note(*(("outside", f"to write {file}") if writes else ("file", file)))

    def is_installed(self, file: str) -> bool:
        folder = os.path.join(file, "")
        return folder.startswith(self.installed) or os.path.realpath(folder).startswith(self.installed)

    def is_program(self, file: str) -> bool:
        """Whether a source file belongs to the program: neither frozen, nor installed, nor the executor, nor this."""
        if file not in self.programs:
            ours = file.startswith("<") or file.endswith(EXECUTOR) or file == __file__
            self.programs[file] = not (ours or self.is_installed(file))
        return self.programs[file]

    def is_asked_by_program(self) -> bool:
        """Whether code of the program is among the callers: not the SDK for itself, nor a package being imported."""
        frame: Any = sys._getframe()
        while frame is not None:
            file = frame.f_code.co_filename
            if self.is_program(file):
                return True
            if frame.f_code.co_name == "<module>" and self.is_installed(file):
                return False
            frame = frame.f_back
        return False

    def watch(self, module: ModuleType, name: str, what: str) -> None:
        """Note each call that the program itself makes."""
        function = getattr(module, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            if self.is_program(sys._getframe(1).f_code.co_filename):
                self.note("outside", what)
            return function(*arguments, **options)

        setattr(module, name, watched)

    def watch_looks(self) -> None:
        """Note what the program only looks for: no audit event reports `exists()` or `is_file()`."""
        look = os.stat

        def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
            self.note_if_asked("os.listdir", (path,))
            return look(path, *arguments, **options)

        for functions in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            functions.add(stat)
        os.stat = stat

    def watch_environment(self) -> None:
        kind: Any = type(os.environ)
        look_up, listing = kind.__getitem__, kind.__iter__

        def getitem(environ: Any, key: str | bytes) -> Any:
            self.note("variable", os.fsdecode(key))
            return look_up(environ, key)

        def iterate(environ: Any) -> Any:
            self.note("variable", "*")
            return listing(environ)

        kind.__getitem__, kind.__iter__ = getitem, iterate

    def finish(self) -> None:
        loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        called = [file for file, is_program in list(self.programs.items()) if is_program]
        for file in sorted({*called, *(file for file in loaded if isinstance(file, str) and self.is_program(file))}):
            self.note_file(file)
            for name in sorted({name.partition(".")[0] for name in _imports(file)}.intersection(CLOCKS)):
                self.note("outside", f"the clock or chance ({os.path.basename(file)} imports {name})")
        if not self.is_broken:
            self.note("end", True)


def _imports(file: str) -> list[str]:
    import ast

    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
    except (OSError, ValueError, SyntaxError):
        return []
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return found + [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]


class CallWatcher:
    """A finder that notes calls of providers' functions: they pass one method of the channel that gRPC makes."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "grpc._channel":
            return None
        sys.meta_path.remove(self)
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.loader is not None:
            loader: Any = found.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self.watch_channel(module)

            loader.exec_module = exec_module
        return found

    def watch_channel(self, module: Any) -> None:
        make = module.Channel.unary_unary

        def unary_unary(channel: Any, method: Any, *arguments: Any, **options: Any) -> Any:
            made = make(channel, method, *arguments, **options)
            if method not in CALLS:
                return made

            def call(request: Any, *rest: Any, **how: Any) -> Any:
                name = getattr(request, "tok", "") or getattr(request, "type", "")
                if not name.startswith(ENGINE):
                    self.recorder.note("outside", f"what {name} answers")
                return made(request, *rest, **how)

            return call

        module.Channel.unary_unary = unary_unary


def executor_words() -> list[str]:
    """The words of the command line that name the executor; none before Python 3.10, which keeps no command line."""
    return [word for word in getattr(sys, "orig_argv", ()) if EXECUTOR in word]


def run_next_sitecustomize() -> None:
    """Run the `sitecustomize` that this one hides, if there is one."""
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != own]
    found = PathFinder.find_spec("sitecustomize", sys.path)
    if found is not None and found.loader is not None:
        found.loader.exec_module(module_from_spec(found))


target = os.environ.get(VARIABLE, "")
run_next_sitecustomize()
if target and executor_words():
    Recorder(target).start()
