"""The README's picture is drawn from the list of services, and is up to date."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_picture_is_drawn_from_the_current_list_of_services():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "draw_platform.py", "--check"], check=False)
    assert done.returncode == 0, "run: python scripts/draw_platform.py"
