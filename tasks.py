"""Composition root: which task modules there are and under which names. Run by `./inv`, imported by plain `inv`."""

from __future__ import annotations

from runbooks import (
    cancel,
    charts,
    deploy,
    destroy,
    doctor,
    drift,
    esc,
    graph,
    lab,
    outputs,
    preview,
    quality,
    rollback,
    secrets,
    stack,
    status,
    target,
    verify,
    wire,
)
from runbooks.collection import build
from runbooks.program import errors_told, main, options_of_environment

ns = build(
    alone=(quality, doctor, graph, status),
    groups=(
        cancel,
        charts,
        deploy,
        destroy,
        drift,
        esc,
        lab,
        outputs,
        preview,
        rollback,
        secrets,
        stack,
        target,
        verify,
        wire,
    ),
    told=errors_told,
    options=options_of_environment(),
)

if __name__ == "__main__":
    main(ns)
