"""Serves the plugin. Pulumi passes the engine's address and reads the port from the first line of standard output."""

from __future__ import annotations

import os
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import grpc

from lab.plugins.postgresql.service import Provider

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal arrived."""


def main() -> None:
    provider = Provider(engine=sys.argv[1] if len(sys.argv) > 1 else "")
    # More threads than the engine has steps at a time, so that a cancellation never waits for one.
    server = grpc.server(ThreadPoolExecutor(256), handlers=[provider.handler()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for number in SIGNALS:
            signal.signal(number, _stop)
        print(port, flush=True)
        _wait_for_engine()
    except Stopped:
        pass
    provider.Cancel()
    server.stop(grace=2).wait()
    # Not through the interpreter's own end, which waits for threads that still connect to a server.
    os._exit(0)


def _stop(_: int, __: FrameType | None) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # both the terminal and the engine may send one
    raise Stopped


def _wait_for_engine() -> None:
    """Wait for the end of standard input. The engine holds its other end, which closes even if the engine is killed."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        signal.pause()
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main()
