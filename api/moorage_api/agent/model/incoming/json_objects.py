"""Parse the JSON objects that models write as arguments, with the mistakes that they often make."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from moorage_api.agent.unicode import repair_unicode

MAX_DEPTH = 50
"""Deepest nesting of a call's arguments. Deeper values cannot be stored as an event."""
MAX_ENCODINGS = 3
"""Times that an object may be encoded as a JSON text."""
MAX_OBJECTS = 16
"""Objects that are read from one text."""


def parse_object(text: str) -> dict[str, Any] | None:
    """Parse a JSON object that can be stored; None for anything else. An empty text is an empty object."""
    if not text.strip():
        return {}
    value: Any = text
    try:
        for _ in range(MAX_ENCODINGS):  # some models encode the object twice
            if isinstance(value, str):
                value = parse_json(value)
        return repair_unicode(value) if isinstance(value, dict) and _depth(value) <= MAX_DEPTH else None
    except (ValueError, RecursionError):
        return None


def parse_json(text: str) -> Any:
    """Like `json.loads`, but accept line breaks in strings, and refuse NaN and infinite numbers."""
    return _DECODER.decode(text)


def parse_list(text: str) -> list[Any] | None:
    """Parse a JSON list that can be stored; None for anything else."""
    try:
        value = parse_json(text)
        return repair_unicode(value) if isinstance(value, list) and _depth(value) <= MAX_DEPTH else None
    except (ValueError, RecursionError):
        return None


def split_objects(text: str) -> list[str]:
    """The texts of the objects that a text consists of, one after the other; empty if there is anything else."""
    found: list[str] = []
    place = 0
    while rest := text[place:].lstrip():
        place = len(text) - len(rest)
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict) or len(found) == MAX_OBJECTS:
            return []
        found.append(text[place:end])
        place = end
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, parse_float=_parse_finite)


def _depth(value: Any) -> int:
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, items), default=0)
