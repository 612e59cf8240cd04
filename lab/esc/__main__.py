"""``python -m lab.esc ARGUMENTS``: the stand-in's command line."""

import sys

from lab.engine.guard import strip_python_path
from lab.esc.cli import main

strip_python_path()
sys.exit(main())
