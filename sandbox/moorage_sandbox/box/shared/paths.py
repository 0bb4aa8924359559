"""Resolves the paths that callers give."""

from __future__ import annotations

import os

from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.protocol import SKILLS_FOLDER, WORKSPACE_FOLDER


class Paths:
    """Relative paths start in the workspace, and `~` is the home directory. The kernel alone checks permissions."""

    def __init__(self, home: str) -> None:
        self.home = os.path.abspath(home)
        self.workspace = os.path.join(self.home, WORKSPACE_FOLDER)
        self.downloads = os.path.join(self.workspace, "downloads")
        self.skills = os.path.join(self.workspace, SKILLS_FOLDER)

    def resolve(self, text: str) -> str:
        if not text or "\0" in text:
            raise BoxError("invalid", "A path must not be empty or contain a NUL character.")
        if text == "~" or text.startswith("~/"):
            return os.path.join(self.home, text[2:])
        return os.path.join(self.workspace, text)

    def abbreviate(self, path: str) -> str:
        """Return `path` as a shell prompt writes it, with `~` for the home directory."""
        if path == self.home or path.startswith(self.home + "/"):
            return "~" + path[len(self.home) :]
        return path
