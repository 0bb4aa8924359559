"""The error of a start that failed, for the person at the terminal."""

from __future__ import annotations


class StartError(Exception):
    """Something cannot be started. `str(error)` names it and, if known, says what to do."""
