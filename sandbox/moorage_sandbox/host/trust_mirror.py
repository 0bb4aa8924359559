"""Keeps a copy of the trust file for the gates, whose user cannot read the platform's directories."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class TrustMirror:
    """Copies the trust file, which holds only public keys. If it becomes invalid, the last valid copy stays."""

    def __init__(self, source: Path, copy: Path) -> None:
        self._source = source
        self._copy = copy
        self._seen: tuple[int, int, int] | None = None

    def refresh(self) -> None:
        """Copy the file if it has changed. Raises OSError or ValueError when it cannot be read or is invalid."""
        status = self._source.stat()
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        text = self._source.read_text()
        if not isinstance(json.loads(text), dict):
            raise ValueError(f"{self._source} must contain a JSON object")
        partial = self._copy.with_suffix(".partial")
        partial.write_text(text)
        partial.chmod(0o644)
        os.replace(partial, self._copy)
        self._seen = seen

    async def follow(self) -> None:
        """Copy the file each time it changes, forever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.refresh()
            except (OSError, ValueError) as error:
                logger.warning("The trust file cannot be used, and the last valid copy stays: %s", error)
