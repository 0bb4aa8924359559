"""Opens files without being caught by what is no file: a FIFO that never answers, a device that never ends."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from moorage_sandbox.box.shared.errors import BoxError, explained

BINARY_PROBE_BYTES = 8192


def open_regular(path: str, shown: str) -> BinaryIO:
    """Open `path` for reading. Raises `not_a_file` for a directory, device, FIFO or socket; `shown` is for messages."""
    with explained(shown):
        # Looked at before it is opened, since opening alone can do something to a device, and again after it.
        require_regular(os.stat(path), shown)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            require_regular(os.fstat(fd), shown)
        except BoxError:
            os.close(fd)
            raise
        return os.fdopen(fd, "rb", buffering=0)


def require_regular(status: os.stat_result, shown: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
    raise BoxError("not_a_file", f"{shown} is {kind}.")


def read_bytes(path: str, shown: str, *, limit: int) -> bytes:
    """The whole file, or `too_large`."""
    with open_regular(path, shown) as file, explained(shown):
        data = bytearray()
        while block := file.read(min(1 << 20, limit + 1 - len(data))):
            data += block
            if len(data) > limit:
                raise BoxError(
                    "too_large", f"{shown} has more than {limit >> 20} MiB. Use the shell (head, sed, grep, …)."
                )
        return bytes(data)


def require_text(start: bytes, shown: str) -> None:
    """Raise `invalid` if the file that begins with `start` is not text."""
    if b"\0" in start[:BINARY_PROBE_BYTES]:
        raise BoxError("invalid", f"{shown} is a binary file, not text. Look at it in the shell (file, xxd, unzip, …).")
