"""Wait for a process by its pidfd: a descriptor that always means the same process, however ids are used again."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress


async def wait_readable(descriptor: int, *, timeout_seconds: float | None = None) -> bool:
    """Wait until `descriptor` is readable. A pidfd is readable once its process has ended.

    Returns False if `timeout_seconds` pass first.
    """
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(timeout_seconds):
            await readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


async def end_process(pid: int, number: signal.Signals, *, grace_seconds: float) -> None:
    """Send signal `number` to a process, SIGKILL if it still runs after `grace_seconds`, and wait until it has ended.

    The process need not be a child of this one. One that does not exist has ended already.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for attempt in (number, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, attempt)
            if await wait_readable(descriptor, timeout_seconds=grace_seconds):
                return
    finally:
        os.close(descriptor)
