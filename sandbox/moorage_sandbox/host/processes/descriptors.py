"""Waiting for file descriptors."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Until `fd` has something to read or is at its end."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(fd, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(fd)
