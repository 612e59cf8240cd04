"""``python -m lab.engine``: see ``lab/bin/pulumi``."""

import sys

from lab.engine.guard import strip_python_path

if __name__ == "__main__":
    strip_python_path()
    from lab.engine.cli import main

    sys.exit(main())
