"""The runbooks: Invoke tasks that operate the platform. docs/architecture.md shows how they are layered.

`cli` and `tasks` are what a user calls; `run` opens a run; `services` lists the platform. Below them `checks` asks
whether it works, `stacks` what will change and where, `tools` speaks to one program each, `core` knows none of them.
"""

import gc
import sys

# A run is short: frequent garbage collection costs a tenth of its time and frees almost nothing.
gc.set_threshold(100_000)
# If PYTHONDONTWRITEBYTECODE is set, compiling the modules in each run would take longer than everything else.
sys.dont_write_bytecode = False
