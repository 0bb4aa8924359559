"""Loads a skill from a directory of this machine that is below an allowed root directory."""

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
    check_path,
    check_size,
    is_ignored,
)
from moorage_api.skills.bundles.limits import MAX_FILES, MAX_SKILL_FILE_BYTES

MAX_ENTRIES = 20 * MAX_FILES
"""Most entries of all directories together, including ignored ones."""


def load_local(source: str, *, roots: Sequence[Path]) -> Bundle:
    """Read the directory `source`. Blocking. Raises SkillRefusedError and SkillTooLargeError.

    Symbolic and hard links are refused, so that a skill cannot read files outside its directory. Each file is checked
    after it is opened, so that it cannot be exchanged between the check and the read.
    """
    directory = allowed_directory(source, roots=roots)
    builder = BundleBuilder(directory.name)
    _Reader(builder).read(str(directory), "")
    return builder.finish()


def allowed_directory(source: str, *, roots: Sequence[Path]) -> Path:
    if not roots:
        raise SkillRefusedError(
            "local_not_allowed",
            "Local skills are disabled. To allow them, set MOORAGE_SKILLS_LOCAL_ROOTS to their parent directory",
        )
    path = Path(source)
    if not path.is_absolute() or ".." in path.parts or "\0" in source:
        raise SkillRefusedError("not_absolute", "The path of a local skill must be absolute and must not contain `..`")
    try:
        real = path.resolve()
        is_below = any(real.is_relative_to(root.resolve()) and real != root.resolve() for root in roots)
    except (OSError, RuntimeError):
        is_below = False
    if not is_below:
        raise SkillRefusedError(
            "outside_root", "The directory is not below one of the directories in MOORAGE_SKILLS_LOCAL_ROOTS"
        )
    if not real.is_dir():
        raise SkillRefusedError("not_found", f"There is no directory {source[:200]!r}")
    return real


class _Reader:
    def __init__(self, builder: BundleBuilder) -> None:
        self._builder = builder
        self._entries = 0

    def read(self, name: str, prefix: str, *, parent: int | None = None) -> None:
        """Add the files of the directory `name`; `parent` is the open directory that contains it."""
        folder = open_entry(name, prefix or "The directory", parent=parent, flags=os.O_DIRECTORY)
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    raise SkillRefusedError("too_many_files", f"The directory has more than {MAX_ENTRIES} entries")
                self._add(entry, check_path(f"{prefix}{entry.name}"), folder=folder)
        finally:
            os.close(folder)

    def _add(self, entry: os.DirEntry[str], path: str, *, folder: int) -> None:
        if entry.is_symlink():
            raise SkillRefusedError("link", f"{path} is a symbolic link; replace it by a file")
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in IGNORED_DIRECTORIES:
                self.read(entry.name, f"{path}/", parent=folder)
        elif not is_ignored(path):
            self._builder.add(path, read_file(entry.name, path, folder=folder))


def read_file(name: str, path: str, *, folder: int) -> bytes:
    """Read a regular file, at most one byte more than allowed. `path` is for error messages."""
    fd = open_entry(name, path, parent=folder, flags=os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SkillRefusedError("special_file", f"{path} is not a regular file")
        if status.st_nlink > 1:
            raise SkillRefusedError("link", f"{path} is a hard link; replace it by a copy")
        check_size(path, status.st_size)
        return file.read(MAX_SKILL_FILE_BYTES + 1)


def open_entry(name: str, path: str, *, parent: int | None, flags: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=parent)
    except OSError as error:
        raise SkillRefusedError("unreadable", f"{path} cannot be read: {error.strerror}") from error
