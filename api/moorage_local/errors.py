"""What can go wrong while services are started, said to the person at the terminal."""

from __future__ import annotations


class StartError(Exception):
    """Something cannot be started. `str(error)` says what and, where it is known, what to do about it."""
