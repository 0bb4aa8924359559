"""Valid Unicode for texts that models, tools and files send."""

from __future__ import annotations

from typing import Any


def repair_unicode(value: Any) -> Any:
    """Make all texts of a JSON value valid Unicode: join the two halves of a character, replace a single half.

    Servers that count in UTF-16 cut emoji into two surrogates. File names from the sandbox may be invalid UTF-8.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {repair_unicode(key): repair_unicode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [repair_unicode(item) for item in value]
    return value
