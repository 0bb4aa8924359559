"""Unix sockets in directories that another user can write to."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path


async def connect_without_links(path: Path, *, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the socket at `path`, but do not follow a symbolic link there. Raises OSError.

    connect() follows links. A program in the sandbox could put a link at `path` that leads to a socket which only we
    can reach.
    """
    socket = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(socket).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        return await asyncio.open_unix_connection(f"/proc/self/fd/{socket}", limit=limit)
    finally:
        os.close(socket)
