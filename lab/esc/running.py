"""``run``: a command with an environment's variables and files, its output masked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from lab.engine.display import SecretFilter
from lab.engine.environments import Files, read_environment
from lab.engine.failures import CommandFailed, UsageError
from lab.esc import paths

_REFERENCE = re.compile(r"\$\{([^}]+)\}")


def run(opened: Mapping[str, Any], argv: Sequence[str], *, interactive: bool) -> int:
    """Its exit code. ``${path}`` in the arguments is replaced by that value. ``interactive``: nothing is masked."""
    if not argv:
        raise UsageError("run needs a command, after `--`")
    environment = read_environment(opened)
    properties = opened.get("properties") or {}
    used: list[str] = []
    words = [_expanded(word, properties, used) for word in argv]
    hidden = SecretFilter([*environment.secret_texts, *used])
    with Files(environment.files) as files:
        variables = {**os.environ, **environment.variables, **files}
        return _run(words, variables, None if interactive else hidden)


def _expanded(word: str, properties: dict[str, Any], used: list[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        value = paths.value_at(properties, paths.parse(match[1]))
        if value is paths.MISSING:
            raise CommandFailed(f"the environment has no value at '{match[1]}'")
        text = value.get("value")
        text = text if isinstance(text, str) else str(text)
        if value.get("secret"):
            used.append(text)
        return text

    return _REFERENCE.sub(replace, word)


def _run(argv: Sequence[str], environment: Mapping[str, str], hidden: SecretFilter | None) -> int:
    pipe = None if hidden is None else subprocess.PIPE
    try:
        child = subprocess.Popen(argv, env=dict(environment), stdout=pipe, stderr=pipe)
    except OSError as error:
        raise CommandFailed(f"could not start {argv[0]}: {error.strerror or error}") from error
    previous = {number: signal.signal(number, _forward(child, number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if hidden is not None:
            _copy_masked(child, hidden)
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _forward(child: subprocess.Popen[bytes], number: int) -> Any:
    return lambda *_: child.send_signal(number)


def _copy_masked(child: subprocess.Popen[bytes], hidden: SecretFilter) -> None:
    streams = ((child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer))
    threads = [threading.Thread(target=_copy, args=(source, sink, hidden)) for source, sink in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _copy(source: IO[bytes] | None, sink: IO[bytes], hidden: SecretFilter) -> None:
    """Line by line: a secret with a line end in it is not found, as in the real esc."""
    if source is None:
        return
    with source:
        for line in source:
            sink.write(hidden.text(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"))
            sink.flush()
