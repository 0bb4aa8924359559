"""How long to wait before the next attempt, after some attempts in a row have failed."""

from __future__ import annotations

import random
from dataclasses import dataclass

MAX_DOUBLINGS = 30
"""Keeps 2 ** failures a small number when something fails for days."""


@dataclass(frozen=True)
class Backoff:
    """The first pause is `first_seconds`. Each further failure doubles it, up to `longest_seconds`.

    `jitter` is the part of a pause (0 to 1) that is random. With it, many clients of one server that fails do not all
    come back at the same moment.
    """

    first_seconds: float
    longest_seconds: float
    jitter: float = 0.0

    def pause_seconds(self, failures: int) -> float:
        """The pause after `failures` failed attempts in a row (1 or more)."""
        doublings = min(max(failures, 1) - 1, MAX_DOUBLINGS)
        pause: float = min(self.first_seconds * 2.0**doublings, self.longest_seconds)
        return pause * random.uniform(1 - self.jitter, 1)  # noqa: S311 - spreads load, guards nothing
