"""Seeds of tests that choose their moment at random. They rotate with the day, and a failure names its seed."""

from __future__ import annotations

import os
import time

ROUNDS = 10


def seeds() -> list[int]:
    if given := os.environ.get("CHAOS_SEEDS"):
        return [int(seed) for seed in given.split(",")]
    first = int(time.time() // 86400) * 1000
    return list(range(first, first + ROUNDS))


def many_seeds() -> list[int]:
    first = time.time_ns() % 10**9
    return list(range(first, first + int(os.environ.get("CHAOS_ROUNDS", "200"))))
