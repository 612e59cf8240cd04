"""The program as a child process.

Started early, because importing the SDK takes longer than all of the engine's own set-up; given its order through a
pipe when the engine is ready; in a session of its own, so that a Ctrl-C reaches the engine only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from lab.engine.failures import CommandFailed
from lab.engine.project import Project

ALREADY_TOLD = 32
_CHILD = Path(__file__).with_name("program_child.py")


def interpreter(project: Project, environment: Mapping[str, str]) -> Path:
    """The Python of ``runtime.options``: ``virtualenv`` (relative to Pulumi.yaml), else the uv environment above."""
    toolchain = project.options.get("toolchain", "pip")
    if toolchain not in ("pip", "uv"):
        raise CommandFailed(
            f"toolchain '{toolchain}' is not supported by the lab's stand-in for pulumi; uv and pip are"
        )
    folder = project.options.get("virtualenv") or (toolchain == "uv" and environment.get("UV_PROJECT_ENVIRONMENT"))
    if folder:
        python = (project.folder / str(folder)).resolve() / "bin" / "python"
        if not python.exists():
            raise CommandFailed(
                f"the virtual environment of project '{project.name}' is not there: expected {python}; run `uv sync`"
            )
        return project.folder / str(folder) / "bin" / "python"
    for parent in (project.folder, *project.folder.parents):
        if (parent / ".venv" / "bin" / "python").exists():
            return parent / ".venv" / "bin" / "python"
    return Path(sys.executable)


class Program:
    """A started child that waits for its order. ``on_line(text, is_error)`` gets what it prints, line by line."""

    def __init__(self, project: Project, environment: Mapping[str, str], on_line: Callable[[str, bool], None]) -> None:
        folder, program = project.program()
        self.folder = folder
        self._path = program
        self._root = project.folder
        reader, writer = os.pipe()
        # Nothing is ever written to the second pipe: its end tells the child that this process is gone, even if killed.
        lifeline, self._lifeline = os.pipe()
        try:
            self._child = subprocess.Popen(
                [str(interpreter(project, environment)), "-u", str(_CHILD), str(reader), str(lifeline)],
                cwd=folder,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(reader, lifeline),
                start_new_session=True,
            )
        except OSError as error:
            os.close(writer)
            os.close(self._lifeline)
            raise CommandFailed(f"could not start the program of project '{project.name}': {error}") from error
        finally:
            os.close(reader)
            os.close(lifeline)
        self._order: int | None = writer
        self._readers = [
            threading.Thread(target=_read_lines, args=(stream, on_line, is_error), daemon=True)
            for stream, is_error in ((self._child.stdout, False), (self._child.stderr, True))
        ]
        for thread in self._readers:
            thread.start()

    def run(self, order: Mapping[str, Any]) -> None:
        """Hand over the order: the child begins."""
        document = {**order, "root": str(self._root), "folder": str(self.folder), "program": str(self._path)}
        pipe, self._order = self._order, None
        if pipe is None:
            return
        try:
            with os.fdopen(pipe, "w", encoding="utf-8") as file:
                json.dump(document, file)
        except BrokenPipeError:
            return  # it ended already; ``wait`` tells how

    def poll(self) -> int | None:
        return self._child.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Exit code, or ``None`` when it still runs; all its output has been given then."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for thread in self._readers:
            thread.join(5)
        return code

    def kill(self) -> None:
        """At once, without waiting."""
        if self._child.poll() is None:
            self._child.kill()

    def stop(self, grace: float = 5) -> None:
        """End it: no order if it has none yet, SIGTERM, then SIGKILL after ``grace`` seconds."""
        if self._order is not None:
            os.close(self._order)
            self._order = None
        if self.wait(0) is None:
            self._child.terminate()
            if self.wait(grace) is None:
                self._child.kill()
                self.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def _read_lines(stream: IO[bytes] | None, on_line: Callable[[str, bool], None], is_error: bool) -> None:
    if stream is None:
        return
    with stream:
        for line in stream:
            on_line(line.decode(errors="replace"), is_error)
