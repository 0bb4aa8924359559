"""Loads a skill from a directory of this machine, below a root that the settings allow."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from moorage_api.errors import SkillRefusedError
from moorage_api.skills.bundles.bundle import (
    IGNORED_DIRECTORIES,
    Bundle,
    BundleBuilder,
    check_size,
    checked_path,
    is_ignored,
)
from moorage_api.skills.bundles.limits import MAX_FILE_BYTES, MAX_FILES

MAX_ENTRIES = 20 * MAX_FILES
"""Of all directories together: what is ignored counts too."""


def load_local(source: str, *, roots: Sequence[Path]) -> Bundle:
    """Read the directory `source`. Blocking. Raises SkillRefusedError and SkillTooLargeError.

    Links are refused, hard ones too: what a skill shows must be what is in its directory. What is opened is
    looked at again, so that nothing can be exchanged in between.
    """
    directory = allowed_directory(source, roots=roots)
    builder = BundleBuilder(directory.name)
    _Reader(builder).read(str(directory), "")
    return builder.finish()


def allowed_directory(source: str, *, roots: Sequence[Path]) -> Path:
    if not roots:
        raise SkillRefusedError(
            "local_not_allowed", "Skills of this machine cannot be installed: MOORAGE_SKILLS_LOCAL_ROOTS names no root"
        )
    path = Path(source)
    if not path.is_absolute() or ".." in path.parts or "\0" in source:
        raise SkillRefusedError("not_absolute", "A local skill is named by its absolute path, without `..`")
    try:
        real = path.resolve()
        is_below = any(real.is_relative_to(root.resolve()) and real != root.resolve() for root in roots)
    except (OSError, RuntimeError):
        is_below = False
    if not is_below:
        raise SkillRefusedError(
            "outside_root", "This directory is not below a root that MOORAGE_SKILLS_LOCAL_ROOTS allows"
        )
    if not real.is_dir():
        raise SkillRefusedError("not_found", "There is no such directory")
    return real


class _Reader:
    def __init__(self, builder: BundleBuilder) -> None:
        self._builder = builder
        self._entries = 0

    def read(self, name: str, prefix: str, *, parent: int | None = None) -> None:
        """Take what is in the directory `name`, which is in the directory `parent`."""
        folder = opened(name, prefix or "The directory", parent=parent, flags=os.O_DIRECTORY)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    raise SkillRefusedError("too_many_files", f"The directory holds more than {MAX_ENTRIES} entries")
                self._take(entry, checked_path(f"{prefix}{entry.name}"), folder=folder)
        finally:
            os.close(folder)

    def _take(self, entry: os.DirEntry[str], path: str, *, folder: int) -> None:
        if entry.is_symlink():
            raise SkillRefusedError("link", f"{path} is a symbolic link")
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in IGNORED_DIRECTORIES:
                self.read(entry.name, f"{path}/", parent=folder)
        elif not is_ignored(path):
            self._builder.add(path, content_of(entry.name, path, folder=folder))


def content_of(name: str, shown: str, *, folder: int) -> bytes:
    """A plain file's bytes, one more than allowed at most."""
    fd = opened(name, shown, parent=folder, flags=os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SkillRefusedError("special_file", f"{shown} is no plain file")
        if status.st_nlink > 1:
            raise SkillRefusedError("link", f"{shown} is a hard link")
        check_size(shown, status.st_size)
        return file.read(MAX_FILE_BYTES + 1)


def opened(name: str, shown: str, *, parent: int | None, flags: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=parent)
    except OSError as error:
        raise SkillRefusedError("unreadable", f"{shown} cannot be read: {error.strerror}") from error
