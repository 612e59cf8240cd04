"""What becomes of a child when this process is killed: one graceful signal, and somebody who reads on.

Nothing inside a killed process can act, so a tiny shell waits beside the child. It holds the reading ends of the
child's pipes: without a reader the child's next line of output would end it (Go programs die of SIGPIPE on standard
output) in the middle of its graceful stop. The kernel's own death signal (PR_SET_PDEATHSIG) keeps no pipe open, does
not exist on macOS, and needs code between fork and exec, which is unsafe beside threads.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

# Standard input is the pipe from us: it ends when we do. 1 and 2 are the *reading* ends of the child's output.
_SCRIPT = """\
trap '' INT TERM HUP
asked=
while read -r word; do
  case $word in over) exit 0 ;; asked) asked=1 ;; esac
done
test -n "$asked" || kill -INT "$1"
printf '\\n%s\\n' "$3" >>"$2"
cat <&1 >/dev/null &
cat <&2 >/dev/null &
wait
"""


class OrphanGuard:
    """Watches over one child until `release`."""

    def __init__(self, pid: int, output: tuple[int, int], journal: Path, record: str, *, asked: bool) -> None:
        """`record` is the line for the journal should we be killed; `asked`: the child already has its signal."""
        read_end, self._write_end = os.pipe()
        try:
            self._shell = subprocess.Popen(  # noqa: S603 - a fixed script
                ["/bin/sh", "-c", _SCRIPT, "orphan-guard", str(pid), str(journal), record],
                stdin=read_end,
                stdout=output[0],
                stderr=output[1],
                env={"PATH": os.defpath},
                start_new_session=True,
            )
        except OSError:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        if asked:
            self.asked()

    def asked(self) -> None:
        """The child was told to stop: a second signal would end it at once, so none must follow."""
        self._say(b"asked\n")

    def release(self) -> None:
        """The child is gone; so is the guard."""
        self._say(b"over\n")
        os.close(self._write_end)
        self._write_end = -1
        self._shell.wait()

    def _say(self, word: bytes) -> None:
        try:
            os.write(self._write_end, word)
        except OSError:
            return  # The guard itself was killed: the child is unguarded, nothing else changes.


def is_ignored(signum: signal.Signals) -> bool:
    """Whether children inherit that this signal does nothing."""
    return signal.getsignal(signum) is signal.SIG_IGN
