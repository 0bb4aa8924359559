"""Notice a model that repeats the same words without end. Its server may stop it late or never."""

from __future__ import annotations

MAX_PERIOD = 1_000
"""Longest text, in characters, whose repetition is noticed."""
PROBE_CHARS = 200
CHECK_CHARS = 1_000
"""After so many new characters the text is looked at again."""


class Repetition:
    """Reads a text as it grows."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._new_chars = 0

    def add(self, text: str) -> bool:
        """Whether the last `limit` characters are one short text again and again."""
        self._pieces.append(text)
        self._new_chars += len(text)
        if self._new_chars < CHECK_CHARS:
            return False
        tail = "".join(self._pieces)[-self._limit :]
        self._pieces, self._new_chars = [tail], 0
        return len(tail) == self._limit and _has_short_period(tail)


def _has_short_period(text: str) -> bool:
    place = text.rfind(text[-PROBE_CHARS:], 0, len(text) - 1)
    period = len(text) - PROBE_CHARS - place
    return place >= 0 and period <= MAX_PERIOD and text[period:] == text[:-period]
