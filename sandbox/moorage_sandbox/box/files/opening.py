"""Opens regular files only. A FIFO could block forever, and a device could deliver data without end."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors

BINARY_PROBE_BYTES = 8192


def open_regular(path: str, display_path: str) -> BinaryIO:
    """Open `path` for reading. Raises `not_a_file` for a directory, device, FIFO or socket.

    `display_path` is the path as the caller gave it, for error messages.
    """
    with translate_os_errors(display_path):
        # Checked before opening, because opening a device can already have an effect, and again after it.
        require_regular(os.stat(path), display_path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            require_regular(os.fstat(fd), display_path)
        except BoxError:
            os.close(fd)
            raise
        return os.fdopen(fd, "rb", buffering=0)


def require_regular(status: os.stat_result, display_path: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
    raise BoxError("not_a_file", f"{display_path} is {kind}.")


def read_bytes(path: str, display_path: str, *, limit: int) -> bytes:
    """Return the whole file. Raises `too_large` if it has more than `limit` bytes."""
    with open_regular(path, display_path) as file, translate_os_errors(display_path):
        data = bytearray()
        while block := file.read(min(1 << 20, limit + 1 - len(data))):
            data += block
            if len(data) > limit:
                raise BoxError(
                    "too_large", f"{display_path} has more than {limit >> 20} MiB. Use the shell (head, sed, grep, …)."
                )
        return bytes(data)


def require_text(start: bytes, display_path: str) -> None:
    """Raise `invalid` if the file that begins with `start` is not text."""
    if b"\0" in start[:BINARY_PROBE_BYTES]:
        raise BoxError(
            "invalid", f"{display_path} is a binary file, not text. Look at it in the shell (file, xxd, unzip, …)."
        )
