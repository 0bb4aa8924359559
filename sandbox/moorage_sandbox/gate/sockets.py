"""Unix sockets in directories that somebody else may write."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path


async def connect_itself(path: Path, *, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the socket at `path`, and never to where a link at its place leads. Raises OSError.

    connect() follows links. What runs beside the socket may put one there, to a socket that it can't reach and we can.
    """
    socket = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(socket).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        return await asyncio.open_unix_connection(f"/proc/self/fd/{socket}", limit=limit)
    finally:
        os.close(socket)
