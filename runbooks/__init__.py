"""The runbooks: Invoke tasks that operate the platform. docs/architecture.md shows how they are layered.

`cli` and `tasks` are what a user calls; `run` opens a run; `services` lists the platform. Below them `checks` asks
whether it works, `stacks` what will change and where, `tools` speaks to one program each, `core` knows none of them.
"""

import gc
import sys

# A run is short: looking for unreachable objects so often costs a tenth of its time and finds next to nothing.
gc.set_threshold(100_000)
# Compiled again each time, where PYTHONDONTWRITEBYTECODE is set, the modules would cost more than all the rest.
sys.dont_write_bytecode = False
