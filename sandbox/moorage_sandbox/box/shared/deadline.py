"""The time that is left for a call."""

from __future__ import annotations

import time

from moorage_sandbox.box.shared.errors import BoxError


class Deadline:
    """The point in time when a call must end. All code that waits during a call asks it for the time that is left."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def remaining(self, at_most: float | None = None) -> float:
        """Seconds that are left: never below zero and never more than `at_most`."""
        left = max(0.0, self._at - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def has_expired(self) -> bool:
        return time.monotonic() >= self._at

    def check(self, activity: str) -> None:
        """Raise BoxError `timeout` when the time is over."""
        if self.has_expired():
            raise BoxError("timeout", f"{activity} took longer than {self.seconds:g} s.")

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and `seconds` from now."""
        return Deadline(self.remaining(at_most=seconds))
