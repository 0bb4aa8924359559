"""Limit the size of the children's log files."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

LIMIT_BYTES = 5 * 1024 * 1024
"""Largest size of a log and of its predecessor. A log can grow beyond it between two checks."""

CHECK_SECONDS = 5


async def limit_logs(
    directory: Path, *, limit_bytes: int = LIMIT_BYTES, interval_seconds: float = CHECK_SECONDS
) -> None:
    """Truncate each `*.log` that has grown too large, and keep its end as `*.log.1`. Runs until cancelled."""
    while True:
        await asyncio.to_thread(truncate_large_logs, directory, limit_bytes=limit_bytes)
        await asyncio.sleep(interval_seconds)


def truncate_large_logs(directory: Path, *, limit_bytes: int) -> None:
    """Truncate logs that are too large. The writer has the same file open in append mode, so it can continue."""
    for log in directory.glob("*.log"):
        if log.stat().st_size > limit_bytes:
            _copy_end(log, log.with_name(f"{log.name}.1"), limit_bytes=limit_bytes)
            with log.open("r+b") as file:
                file.truncate(0)


def _copy_end(source: Path, target: Path, *, limit_bytes: int) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        target.chmod(0o600)
        reader.seek(max(0, source.stat().st_size - limit_bytes))
        shutil.copyfileobj(reader, writer)
