"""Build the documentation as a static site in .ops/site/html. A broken link or anchor fails.

usage: python scripts/build_site.py

The generator is in the dependency group `site`, which `./inv` does not install: it gets an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runbooks.core.search_path import cache_folder  # noqa: E402

SITE = ROOT / ".ops" / "site"
PAGES = (
    "*.md",
    "docs/**/*.md",
    "docs/**/*.svg",
    "docs/**/*.json",
    "docs/site.css",
    "pulumi/**/*.md",
    "modal/**/*.md",
    "lab/**/*.md",
    "LICENSE",
)


def copy_pages() -> None:
    """Copy what the site shows to a folder of its own, at the same paths, so that the links between files hold."""
    shutil.rmtree(SITE / "pages", ignore_errors=True)
    for path in (path for pattern in PAGES for path in ROOT.glob(pattern)):
        copy = SITE / "pages" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def main() -> int:
    # ./inv installs uv into the cache folder where there is none on PATH.
    path = os.pathsep.join([os.environ["PATH"], *map(str, cache_folder().glob("uv-*/bin"))])
    uv = shutil.which("uv", path=path)
    if uv is None:
        print("uv is missing: ./inv --list installs it")
        return 1
    copy_pages()
    env = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(SITE / "venv")}
    zensical = ["zensical", "build", "--strict", "--clean"]
    return subprocess.run(
        [uv, "run", "--frozen", "--only-group", "site", *zensical], cwd=ROOT, env=env, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
