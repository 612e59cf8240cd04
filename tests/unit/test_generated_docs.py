"""The picture and the tables in the docs are written from the code, and are up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["draw_platform.py", "write_tables.py"])
def test_what_is_generated_is_as_new_as_the_code(script):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"run: python scripts/{script}\n{done.stdout}{done.stderr}"
