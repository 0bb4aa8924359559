"""Seeds of tests that choose their moment at random. A failure names its seed, and CHAOS_SEEDS repeats it."""

from __future__ import annotations

import os
import time

ROUNDS = 10
DRAWN_AT = "CHAOS_DRAWN_AT_NS"


def draw() -> None:
    """Fix the seeds of this run. Its worker processes inherit them: all must collect the same tests."""
    os.environ.setdefault(DRAWN_AT, str(time.time_ns()))


def seeds() -> list[int]:
    """The same on every day, so that the suite does not depend on the date. `make chaos` tries new ones."""
    if given := os.environ.get("CHAOS_SEEDS"):
        return [int(seed) for seed in given.split(",")]
    return list(range(1, ROUNDS + 1))


def many_seeds() -> list[int]:
    first = _drawn_at_ns() % 10**9
    return list(range(first, first + int(os.environ.get("CHAOS_ROUNDS", "200"))))


def _drawn_at_ns() -> int:
    return int(os.environ[DRAWN_AT])
