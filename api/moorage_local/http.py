"""Check over HTTP whether a child answers, without importing an HTTP library into the supervisor."""

from __future__ import annotations

import asyncio
from pathlib import Path


async def is_answering(address: tuple[str, int] | Path, path: str, *, timeout_seconds: float) -> bool:
    """Whether a GET of `path` gets the status 200."""
    try:
        async with asyncio.timeout(timeout_seconds):
            if isinstance(address, Path):
                reader, writer = await asyncio.open_unix_connection(address)
            else:
                reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                status_line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status_line.split(b" ")[1:2] == [b"200"]
