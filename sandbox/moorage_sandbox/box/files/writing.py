"""Writes files atomically: a reader sees the old file or the new file, never a part of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors

_unfinished: set[str] = set()


@contextmanager
def replace_file(path: str, display_path: str) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces `path` when the block ends, and is deleted if the block raises.

    Missing folders are made. If `path` is a link, its target is replaced. The mode of an older file is kept.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{os.urandom(6).hex()}.part")
    with translate_os_errors(display_path):
        mode = _check_target(target, display_path)
        os.makedirs(folder, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    _unfinished.add(temporary)
    try:
        with open(fd, "wb", buffering=0) as file:
            yield file
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        with translate_os_errors(display_path):
            os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        _unfinished.discard(temporary)


def write_all(file: BinaryIO, data: bytes | memoryview, display_path: str) -> None:
    view = memoryview(data)
    with translate_os_errors(display_path):
        while view:
            view = view[file.write(view) :]


def remove_unfinished() -> None:
    """Delete temporary files when the box ends, because the threads that write them are stopped."""
    for path in list(_unfinished):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _check_target(path: str, display_path: str) -> int | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise BoxError("not_a_file", f"{display_path} is {kind}.")
    if not os.access(path, os.W_OK):
        raise BoxError("forbidden", f"{display_path}: Permission denied")
    return stat.S_IMODE(status.st_mode)
