"""Keep something running: start it again each time it ends, and wait longer each time it ends soon after its start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from moorage_common.backoff import Backoff

T = TypeVar("T")


async def keep_running(
    run: Callable[[], Awaitable[T]],
    *,
    on_end: Callable[[T, int], bool],
    backoff: Backoff,
    steady_seconds: float,
) -> None:
    """Await `run()` again and again until `on_end` returns False. Errors of `run` are raised.

    `on_end` gets the result of `run` and the number of ends in a row, this one included. What ran for longer than
    `steady_seconds` did not fail at its start, so the number begins again at 1.
    """
    failures = 0
    while True:
        began = time.monotonic()
        result = await run()
        failures = 1 if time.monotonic() - began > steady_seconds else failures + 1
        if not on_end(result, failures):
            return
        await asyncio.sleep(backoff.pause_seconds(failures))
