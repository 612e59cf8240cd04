"""Composition root: which task modules there are and under which names. Run by `./inv`, imported by plain `inv`."""

from __future__ import annotations

from runbooks import (
    cancel,
    deploy,
    destroy,
    doctor,
    esc,
    lab,
    outputs,
    preview,
    quality,
    secrets,
    stack,
    status,
    target,
    verify,
)
from runbooks.collection import build
from runbooks.program import errors_told, main, options_of_environment

ns = build(
    alone=(quality, doctor, status),
    groups=(cancel, deploy, destroy, esc, lab, outputs, preview, secrets, stack, target, verify),
    told=errors_told,
    options=options_of_environment(),
)

if __name__ == "__main__":
    main(ns)
