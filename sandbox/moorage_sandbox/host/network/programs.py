"""The programs that give a box its network, and the error when that fails."""

from __future__ import annotations

import os
import shutil


class NetworkError(Exception):
    """A sandbox has no network. The text is for people."""


def find_program(name: str, *places: str, package: str) -> str:
    """Return the path of a program, also outside of PATH. Raises NetworkError with the command that installs it."""
    found = shutil.which(name) or next((place for place in places if os.access(place, os.X_OK)), None)
    if found is None:
        raise NetworkError(f"{name} is missing (apt-get install {package})")
    return found
