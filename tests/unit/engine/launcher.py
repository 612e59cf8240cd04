"""The stand-in's command line with the fake provider of this folder: ``python launcher.py ARGUMENTS``."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])
sys.path.append(str(Path(__file__).resolve().parent))

from lab.engine.cli import main  # noqa: E402
from lab.engine.providers import FACTORIES  # noqa: E402

FACTORIES["kubernetes"] = "fake_kubernetes:create_provider"
sys.exit(main())
