"""How long a server asks us to wait before the next request: in its headers, in its document, or in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

HEADERS = ("retry-after", "x-retry-after")
KEYS = frozenset({"retryafter", "retryafterseconds", "retrydelay", "xretryafter"})
"""Keys of a document, in lower case and without separators."""
MILLISECOND_KEYS = frozenset({"retryafterms", "retryaftermillis"})
RESET_KEY = "xratelimitreset"
MAX_SECONDS = 10.0**8
"""Three years. A longer wait is as good as none at all."""
FIRST_EPOCH_SECONDS = 1_000_000_000
FIRST_EPOCH_MILLISECONDS = 1_000_000_000_000

PART = (
    r"\d+(?:\.\d+)?\s*(?:ms|milliseconds?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?)(?![a-z])"
)
FLAGS = re.IGNORECASE | re.ASCII
"""Without ASCII, a letter such as the long s would stand for a unit."""
DURATION = rf"(?:{PART}[\s,]*(?:and\s+)?)+"
IN_WORDS = re.compile(rf"(?:try again|retry|wait|resets?|available again)\b[^.\d]{{0,25}}?({DURATION})", FLAGS)
"""A time in words: "try again in 1m30.5s", "Please retry after 25 seconds"."""
UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|mil|s|m|h|d)", FLAGS)
UNIT_SECONDS = {"ms": 0.001, "mil": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def read_wait(headers: Mapping[str, str], nodes: Iterable[Mapping[str, Any]], words: str) -> float | None:
    """Seconds to wait; None if the server does not say it. `nodes`: the objects of its document."""
    now = _now(headers)
    fields = [(_plain(key), value) for node in nodes for key, value in node.items()]
    found = [_thousandth(_seconds(headers.get("retry-after-ms"), now))]
    found += [_seconds(headers.get(name), now) for name in HEADERS]
    found += [_seconds(value, now) for key, value in fields if key in KEYS]
    found += [_thousandth(_seconds(value, now)) for key, value in fields if key in MILLISECOND_KEYS]
    if match := IN_WORDS.search(words):
        found.append(_duration(match[1]))
    found += [_until(value, now) for value in (headers.get("x-ratelimit-reset"), *_values(fields, RESET_KEY))]
    known = (seconds for seconds in found if seconds is not None and math.isfinite(seconds))
    return next((min(max(seconds, 0.0), MAX_SECONDS) for seconds in known), None)


def describe_seconds(seconds: float) -> str:
    """A time for people, such as "90 s", "12 min" or "24 h"."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7_200 else f"{round(seconds / 3_600)} h"


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _values(fields: Iterable[tuple[str, Any]], name: str) -> list[Any]:
    return [value for key, value in fields if key == name]


def _now(headers: Mapping[str, str]) -> datetime:
    """The time of the server, so that a clock that is wrong does no harm; our own time if it sends none."""
    return _date(headers.get("date", "")) or datetime.now(UTC)


def _date(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = parse(text)
            return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def _seconds(value: object, now: datetime) -> float | None:
    """A number, a duration such as "1m30s", a protobuf duration, or a date."""
    if isinstance(value, Mapping):
        return _seconds(value.get("seconds"), now)
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    if re.fullmatch(DURATION, text, FLAGS):
        return _duration(text)
    date = _date(text)
    return (date - now).total_seconds() if date is not None else None


def _duration(text: str) -> float:
    return sum(float(number) * UNIT_SECONDS[unit.lower()] for number, unit in UNIT.findall(text))


def _thousandth(value: float | None) -> float | None:
    return value / 1000 if value is not None else None


def _until(value: object, now: datetime) -> float | None:
    """Seconds until a time since 1970, in seconds or milliseconds. A smaller number is not a time."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    if number >= FIRST_EPOCH_MILLISECONDS:
        number /= 1000
    return number - now.timestamp() if FIRST_EPOCH_SECONDS <= number < FIRST_EPOCH_MILLISECONDS else None
