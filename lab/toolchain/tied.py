"""Runs a command, and kills it with all its children when standard input closes, as its caller may have been killed.

It is its own program in its own process group. Open files are inherited, so the caller's locks are held as long
as the command runs.
"""

import os
import signal
import subprocess
import sys
import threading


def kill_all_when_input_closes() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    os.nice(10)  # out of the way of whatever else happens on the machine
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, close_fds=False)
    threading.Thread(target=kill_all_when_input_closes, daemon=True).start()
    code = child.wait()
    os._exit(code if code >= 0 else 128 - code)
