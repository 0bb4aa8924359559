"""Where a path given by a caller leads."""

from __future__ import annotations

import os

from moorage_sandbox.box.shared.errors import BoxError


class Paths:
    """Relative paths start in the workspace, `~` is home. Permissions are the kernel's business, not ours."""

    def __init__(self, home: str) -> None:
        self.home = os.path.abspath(home)
        self.workspace = os.path.join(self.home, "workspace")
        self.downloads = os.path.join(self.workspace, "downloads")

    def resolve(self, text: str) -> str:
        if not text or "\0" in text:
            raise BoxError("invalid", "A path must not be empty or hold a NUL character.")
        if text == "~" or text.startswith("~/"):
            return os.path.join(self.home, text[2:])
        return os.path.join(self.workspace, text)

    def shown(self, path: str) -> str:
        """`path` as a prompt shows it, with `~` for home."""
        if path == self.home or path.startswith(self.home + "/"):
            return "~" + path[len(self.home) :]
        return path
