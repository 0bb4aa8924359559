"""Waits for conditions. The bound of a wait only ends a hang, so no test depends on the speed of the machine."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

HANG_SECONDS = 120.0
"""How long a test waits for something that should happen soon. Ten busy processes make a machine ten times as slow, and
a test that waits this long has failed.
"""

PAUSE_SECONDS = 0.02


async def until(found: Callable[[], Any], what: str, *, seconds: float = HANG_SECONDS) -> Any:
    """Return the first true answer of `found`, which may be a coroutine function. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = found()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"Not within {seconds:g} s: {what}"
        await asyncio.sleep(PAUSE_SECONDS)


def block_until(found: Callable[[], T | None], what: str, *, seconds: float = HANG_SECONDS) -> T:
    """Return the first true answer of `found`, for tests without an event loop. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"Not within {seconds:g} s: {what}"
        time.sleep(PAUSE_SECONDS)
    return answer
