"""The vendor's evaluator as one long-running process. Requests and answers are JSON documents, one a line.

Its program is `lab/toolchain/pulumi/esc-evaluator`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from lab.cloud.wire import ApiError, Json
from lab.platform.processes import MARK

PATIENCE = 30.0
"""Seconds for one evaluation, including the evaluator's questions."""

ANONYMOUS = "<yaml>"
"""The vendor's name for an environment without a name (`esc.AnonymousEnvironmentName`)."""


class Unanswerable(Exception):
    """A question of the evaluator that the cloud cannot answer; the text becomes a diagnostic."""


class _Ended(Exception):
    """The process ended, or broke the protocol."""


@dataclass
class Evaluator:
    """Starts the process at the first evaluation and again when it has died. One evaluation at a time."""

    find_program: Callable[[], Path]
    key: bytes = field(repr=False)
    environment: Callable[[str], str]
    """An imported environment's definition, by the name in `imports`; raises `Unanswerable`."""
    stack: Callable[[str], Json]
    """A stack's outputs as one ESC value, by `project/stack`; raises `Unanswerable`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _process: subprocess.Popen[bytes] | None = None

    def check(self, name: str, definition: str, *, show_secrets: bool = False) -> Json:
        """Evaluate without opening providers: `environment` and `diagnostics`, each only if not empty."""
        return self._call({"op": "check", "name": name, "definition": definition, "showSecrets": show_secrets})

    def open(self, name: str, definition: str, overrides: Mapping[str, str] | None = None) -> Json:
        """Like `check`, but with everything evaluated and secrets in plaintext.

        `overrides` is what to load in place of imported environments, by the name in `imports`.
        """
        return self._call({"op": "open", "name": name, "definition": definition}, overrides)

    def rewrite(self, op: Literal["encrypt", "decrypt"], name: str, definition: str) -> str:
        """Return the definition with its static secrets encrypted or decrypted; without any it stays unchanged."""
        return str(self._call({"op": op, "name": name, "definition": definition})["definition"])

    def stop(self) -> None:
        """End the process; the next call starts it again."""
        with self._lock:
            self._end()

    def _call(self, request: Json, overrides: Mapping[str, str] | None = None) -> Json:
        with self._lock:
            try:
                answer = self._converse(request, overrides or {})
            except _Ended:
                # An evaluation changes nothing, so it can simply be tried again.
                try:
                    answer = self._converse(request, overrides or {})
                except _Ended as error:
                    raise ApiError(500, f"the evaluator ended ({error})") from error
        if "failure" in answer:
            raise ApiError(500, f"{answer['failure']}")
        return answer

    def _converse(self, request: Json, overrides: Mapping[str, str]) -> Json:
        try:
            process = self._ensure_process()
            # A process that does not answer in time is killed, so that the reader gets an end of file.
            timer = threading.Timer(PATIENCE, process.kill)
            timer.daemon = True
            timer.start()
            try:
                _send(process.stdin, request)
                while "ask" in (answer := _receive(process.stdout)):
                    _send(process.stdin, self._reply(answer, overrides))
                return answer
            finally:
                timer.cancel()
        except BaseException:
            # It may be in the middle of an evaluation, whose answer the next call would take for its own.
            self._end()
            raise

    def _reply(self, question: Json, overrides: Mapping[str, str]) -> Json:
        name = str(question["name"])
        try:
            if question["ask"] == "stack":
                return {"outputs": self.stack(name)}
            return {"definition": self.environment(overrides.get(name, name))}
        except Unanswerable as reason:
            return {"error": str(reason)}

    def _ensure_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            # Nothing of the user's environment: an evaluation is the same for every user.
            marks = {name: value for name, value in os.environ.items() if name == MARK}
            self._process = subprocess.Popen(
                [self.find_program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"GOGC": "50", **marks}
            )
            _send(self._process.stdin, {"op": "start", "key": base64.b64encode(self.key).decode()})
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        process.wait()


def _send(pipe: IO[bytes] | None, message: Json) -> None:
    try:
        assert pipe is not None
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()
    except OSError as error:
        raise _Ended(f"it closed its input: {error}") from error


def _receive(pipe: IO[bytes] | None) -> Json:
    assert pipe is not None
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise _Ended("it closed its output")
    try:
        message: Json = json.loads(line)
    except ValueError as error:
        raise _Ended("its answer is not JSON") from error
    return message
