"""What you can do: one thin module per task namespace. No process starts here; that is `lib/runner.py`'s work."""

import gc
import sys

# A run is short: looking for unreachable objects so often costs a tenth of its time and finds next to nothing.
gc.set_threshold(100_000)
# Compiled anew each time, where PYTHONDONTWRITEBYTECODE is set, the modules would cost more than all the rest.
sys.dont_write_bytecode = False
