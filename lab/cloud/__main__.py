"""`python -m lab.cloud --folder <lab>/cloud --port N --evaluator PROGRAM`: serves until SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from lab.cloud.server import Cloud, log
from runbooks.core.errors import OpsError


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab.cloud", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="its state; made when missing")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--evaluator", type=Path, required=True, help="the built lab/toolchain/pulumi/esc-evaluator")
    given = parser.parse_args()
    os.umask(0o077)
    try:
        cloud = Cloud.open(given.folder, given.port, lambda: given.evaluator)
    except (OpsError, OSError) as error:
        log(f"the cloud cannot start: {error}")
        return 1

    def end(_number: int, _frame: object) -> None:
        # `shutdown` waits for the loop that this very thread runs.
        threading.Thread(target=cloud.stop).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    cloud.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
