"""Writes a file so that a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from moorage_sandbox.box.shared.errors import BoxError, explained

_unfinished: set[str] = set()


@contextmanager
def replaced(path: str, shown: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Folders are made. A link is followed, so that what it points to is replaced. The mode of an older file is kept.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{os.urandom(6).hex()}.part")
    with explained(shown):
        mode = _mode_of(target, shown)
        os.makedirs(folder, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    _unfinished.add(temporary)
    try:
        with open(fd, "wb", buffering=0) as file:
            yield file
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        with explained(shown):
            os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        _unfinished.discard(temporary)


def write_all(file: BinaryIO, data: bytes | memoryview, shown: str) -> None:
    view = memoryview(data)
    with explained(shown):
        while view:
            view = view[file.write(view) :]


def remove_unfinished() -> None:
    """For the box's end: the threads that would have done it do not get to."""
    for path in list(_unfinished):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _mode_of(path: str, shown: str) -> int | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise BoxError("not_a_file", f"{shown} is {kind}.")
    if not os.access(path, os.W_OK):
        raise BoxError("forbidden", f"{shown}: Permission denied")
    return stat.S_IMODE(status.st_mode)
