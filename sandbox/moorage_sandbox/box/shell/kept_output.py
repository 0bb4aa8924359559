"""Keeps a long output of a command as a file in the sandbox, because the model gets only its beginning and end."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import BinaryIO

from moorage_sandbox.protocol import OUTPUTS_FOLDER

FOLDER = OUTPUTS_FOLDER
LONG_BYTES = 10_000
"""A longer output is kept. It is less than the longest result that a model gets."""
MAX_BYTES = 32 * 1024 * 1024
"""The rest of a longer output is not written."""
MAX_FILES = 50
"""The oldest files are removed."""

MARKER = re.compile(rb"\x1b\]777;[^\x07]{0,64}\x07")
BEGUN_MARKER = re.compile(rb"\x1b(?:\](?:7(?:7(?:7(?:;[^\x07]{0,64})?)?)?)?)?\Z")


class KeptOutput:
    """The file of one command. Nothing is written before the output is long, or after the disk is full."""

    def __init__(self, directory: str, name: str) -> None:
        self._path = os.path.join(directory, f"{name}.txt")
        self._file: BinaryIO | None = None
        self._size = 0
        self._unfinished = b""
        self._failed = False

    def append(self, data: bytes, *, before: bytes) -> None:
        """Add `data`. `before` is the output so far; it is written when the output becomes long."""
        if self._failed or (self._file is None and len(before) + len(data) <= LONG_BYTES):
            return
        try:
            if self._file is None:
                self._file = self._open()
                data = before + data
            self._write(self._remove_markers(data))
        except OSError:
            self._fail()

    def flush(self) -> str | None:
        """The path of the file, which holds all that was added; None if there is no file."""
        if self._file is None:
            return self._path if self._size and not self._failed else None
        try:
            self._file.flush()
        except OSError:
            self._fail()
            return None
        return self._path

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        directory = os.path.dirname(self._path)
        os.makedirs(directory, exist_ok=True)
        files = sorted(os.scandir(directory), key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
        for entry in files[: max(len(files) - MAX_FILES + 1, 0)]:
            os.unlink(entry.path)
        return open(self._path, "wb")

    def _remove_markers(self, data: bytes) -> bytes:
        """Remove the shell's own marks. A mark that `data` ends in the middle of waits for the rest."""
        data = MARKER.sub(b"", self._unfinished + data)
        begun = BEGUN_MARKER.search(data)
        self._unfinished = begun[0] if begun else b""
        return data[: begun.start()] if begun else data

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        kept = data[: MAX_BYTES - self._size]
        self._file.write(kept)
        self._size += len(kept)

    def _fail(self) -> None:
        """Give the space back: a part of an output would be taken for the whole."""
        self._failed = True
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        with suppress(OSError):
            os.unlink(self._path)
