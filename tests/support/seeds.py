"""Seeds of tests that choose their moment at random. They rotate with the day, and a failure names its seed."""

from __future__ import annotations

import os
import time

ROUNDS = 10
DRAWN_AT = "CHAOS_DRAWN_AT_NS"


def draw() -> None:
    """Fix the seeds of this run. Its worker processes inherit them: all must collect the same tests."""
    os.environ.setdefault(DRAWN_AT, str(time.time_ns()))


def seeds() -> list[int]:
    if given := os.environ.get("CHAOS_SEEDS"):
        return [int(seed) for seed in given.split(",")]
    first = _drawn_at_ns() // (86400 * 10**9) * 1000
    return list(range(first, first + ROUNDS))


def many_seeds() -> list[int]:
    first = _drawn_at_ns() % 10**9
    return list(range(first, first + int(os.environ.get("CHAOS_ROUNDS", "200"))))


def _drawn_at_ns() -> int:
    return int(os.environ[DRAWN_AT])
