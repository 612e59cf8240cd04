"""Composition root: which task modules there are and under which names. Run by `./inv`, imported by plain `inv`."""

from __future__ import annotations

from importlib import import_module

from runbooks.cli import main, options_of_environment, report_errors
from runbooks.collection import build

ALONE = "quality doctor graph status"
GROUPS = (
    "cancel charts deploy destroy drift esc lab modal new outputs pr preview repair rollback secrets stack target "
    "verify wire"
)

ns = build(
    alone=[import_module(f"runbooks.tasks.{name}") for name in ALONE.split()],
    groups=[import_module(f"runbooks.tasks.{name}") for name in GROUPS.split()],
    wrap=report_errors,
    options=options_of_environment(),
)

if __name__ == "__main__":
    main(ns)
