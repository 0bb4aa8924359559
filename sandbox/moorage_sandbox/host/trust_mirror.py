"""The gates' copy of the trust file: theirs is another user, who cannot reach the platform's directories."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class TrustMirror:
    """Holds public keys only. A file that cannot be read leaves the last good copy in place."""

    def __init__(self, source: Path, copy: Path) -> None:
        self._source = source
        self._copy = copy
        self._seen: tuple[int, int, int] | None = None

    def refresh(self) -> None:
        """Raises OSError or ValueError when there is nothing readable to copy."""
        status = self._source.stat()
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        text = self._source.read_text()
        if not isinstance(json.loads(text), dict):
            raise ValueError("a trust file is a JSON object")
        partial = self._copy.with_suffix(".partial")
        partial.write_text(text)
        partial.chmod(0o644)
        os.replace(partial, self._copy)
        self._seen = seen

    async def follow(self) -> None:
        """Keep the copy the same, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.refresh()
            except (OSError, ValueError) as error:
                log.warning("The trust file is kept as it was: %s", error)
