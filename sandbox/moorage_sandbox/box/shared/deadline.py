"""How long a call may still take."""

from __future__ import annotations

import time

from moorage_sandbox.box.shared.errors import BoxError


class Deadline:
    """A point in time; everything that waits on behalf of a call asks it how long."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def remaining(self, at_most: float | None = None) -> float:
        """Seconds left, never below zero, and no more than `at_most`."""
        left = max(0.0, self._at - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def expired(self) -> bool:
        return time.monotonic() >= self._at

    def check(self, activity: str) -> None:
        """Raise `timeout` when the time is up."""
        if self.expired():
            raise BoxError("timeout", f"{activity} took longer than {self.seconds:g} s.")

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and `seconds` from now."""
        return Deadline(self.remaining(at_most=seconds))
