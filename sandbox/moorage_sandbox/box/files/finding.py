"""Finds files by a glob pattern in one walk. Links to parent folders and patterns like `**/**/**` do not slow it."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator

from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError

ANY_DEPTH = "**"


class _Pattern:
    """A glob pattern as a list of segments. A state is the set of segments that may match the next name."""

    def __init__(self, text: str) -> None:
        self.segments = [it for it in text.split("/") if it not in ("", ".")]
        if text.startswith("/") or ".." in self.segments or not self.segments:
            raise BoxError(
                "invalid",
                "find_files: 'glob_pattern' must be relative to 'dir_path' and have no '..', as in '**/*.py'.",
            )
        self._compiled = [re.compile(fnmatch.translate(it)) for it in self.segments]

    def start(self) -> frozenset[int]:
        return self._with_empty_folders({0})

    def is_match(self, state: frozenset[int]) -> bool:
        return len(self.segments) in state

    def step(self, state: frozenset[int], name: str) -> frozenset[int]:
        """The state after a folder or file called `name`."""
        after: set[int] = set()
        for position in state:
            if position == len(self.segments):
                continue
            segment = self.segments[position]
            if name.startswith(".") and not segment.startswith("."):
                continue
            if segment == ANY_DEPTH:
                after.add(position)
            elif self._compiled[position].match(name):
                after.add(position + 1)
        return self._with_empty_folders(after)

    def _with_empty_folders(self, positions: set[int]) -> frozenset[int]:
        """Add the segments that may come next when `**` matches no folder at all."""
        closed = set(positions)
        for position in sorted(positions):
            while position < len(self.segments) and self.segments[position] == ANY_DEPTH:
                position += 1
                closed.add(position)
        return frozenset(closed)


def find_paths(root: str, pattern_text: str, *, most: int, deadline: Deadline) -> tuple[list[str], bool]:
    """Return the paths of at most `most` files, and whether there may be more. Links are listed but not followed."""
    pattern = _Pattern(pattern_text)
    found: list[str] = []
    waiting = [(root, pattern.start())]
    while waiting:
        folder, state = waiting.pop()
        for entry in _entries(folder):
            if deadline.has_expired():
                return sorted(found), True
            after = pattern.step(state, entry.name)
            if not after:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, after))
            elif pattern.is_match(after):
                if len(found) == most:
                    return sorted(found), True
                found.append(os.fsencode(entry.path).decode("utf-8", "replace"))
    return sorted(found), False


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            yield from scan
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        # The folder is not readable, or it was deleted meanwhile. Like `find`, go on with the rest.
        return
