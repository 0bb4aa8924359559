"""Progress messages of steps that take long."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[str], None]


@dataclass
class Stopwatch:
    """Prints each message with the seconds since the start."""

    started: float = field(default_factory=time.monotonic)

    def __call__(self, message: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self.started:6.1f} s] {message}\n")
        sys.stderr.flush()
