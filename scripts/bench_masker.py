#!/usr/bin/env python3
"""Measure the masker: 200 secrets, reads of 4 KiB, text as pulumi prints it; in MB/s and against a naive masker.

scripts/bench_masker.py
"""

from __future__ import annotations

import random
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runbooks.core.child import Capture
from runbooks.core.mask import Masker

SECRETS = 200
READ_SIZE = 4096
LINES = (
    b'{"type":"kubernetes:core/v1:ConfigMap","urn":"urn:pulumi:mx::sample::kubernetes:core/v1:ConfigMap::settings"},\n',
    b" +  kubernetes:apps/v1:Deployment tailscale-operator creating (3s) Waiting for app ReplicaSet to be available\n",
    b"    postgresql-cluster-rw.postgresql.svc.cluster.local:5432   ClusterIP   10.96.114.7   <none>   5432/TCP\n",
)


def make_secrets(count: int = SECRETS) -> list[str]:
    """Make passwords and tokens of 16 to 40 characters; every fourth has characters that tools escape differently."""
    chosen = random.Random(20)
    plain, special = string.ascii_letters + string.digits, string.ascii_letters + "+/&<>\"'$ %"
    return [
        "".join(chosen.choices(special if number % 4 == 0 else plain, k=chosen.randint(16, 40)))
        for number in range(count)
    ]


def make_text(size: int, secrets: list[str]) -> bytes:
    """Make lines of a run; about one in a hundred contains a secret."""
    chosen = random.Random(21)
    lines = []
    length = 0
    while length < size:
        line = chosen.choice(LINES)
        if chosen.random() < 0.01:
            line = line.rstrip(b"\n") + b" " + chosen.choice(secrets).encode() + b"\n"
        lines.append(line)
        length += len(line)
    return b"".join(lines)[:size]


def throughput(work: Callable[[bytes], object], text: bytes, read_size: int, rounds: int = 5) -> float:
    """Return the best of several rounds, in MB per second of CPU time, which other load affects least."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        for start in range(0, len(text), read_size):
            work(text[start : start + read_size])
        best = min(best, time.process_time() - begun)
    return len(text) / best / 1e6


def naive(secrets: list[str]) -> Callable[[bytes], bytes]:
    """What a simple masker does: one replacement after the other, raw values alone, blind to lines cut in two."""
    values = [secret.encode() for secret in secrets]

    def work(data: bytes) -> bytes:
        for value in values:
            data = data.replace(value, b"[secret]")
        return data

    return work


def measure(size: int = 8_000_000) -> dict[str, float]:
    """Measure MB/s at 4 KiB reads, line by line, in one piece, and of the naive masker; milliseconds to prepare."""
    secrets = make_secrets()
    text = make_text(size, secrets)
    masker = Masker(secrets)
    begun = time.perf_counter()
    masker.mask("")
    prepared = time.perf_counter() - begun
    return {
        "reads": throughput(Capture(on_text=masker.mask_bytes).feed, text, READ_SIZE),
        "lines": throughput(Capture(on_text=masker.mask_bytes).feed, text[: size // 8], 110),
        "whole": throughput(masker.mask_bytes, text, len(text)),
        "naive": throughput(naive(secrets), text[: size // 4], READ_SIZE),
        "prepare_ms": prepared * 1e3,
    }


def main() -> None:
    found = measure()
    print(f"{SECRETS} secrets in all their spellings, prepared in {found['prepare_ms']:.0f} ms")
    for name, label in (
        ("reads", f"reads of {READ_SIZE} bytes"),
        ("lines", "reads of 110 bytes"),
        ("whole", "one read"),
        ("naive", "naive masker, raw values alone, 4 KiB"),
    ):
        print(f"{label:40} {found[name]:7.0f} MB/s   {found[name] / found['naive']:5.1f}x of the naive masker")


if __name__ == "__main__":
    main()
