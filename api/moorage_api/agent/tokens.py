"""Estimate how many tokens messages and texts have. No tokenizer is needed, and it is the same for every model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

BYTES_PER_TOKEN = 3.5
"""Bytes of UTF-8. The estimate is about right for English, code and Chinese."""


def count_tokens(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
    """Estimate the tokens of one message or of a list, with the JSON structure around the texts."""
    if not isinstance(value, Mapping):
        return sum(count_tokens(item) for item in value)
    size = len(str(value.get("content") or "").encode(errors="replace"))
    rest = {name: item for name, item in value.items() if name != "content"}
    return int((size + len(json.dumps(rest, ensure_ascii=False).encode(errors="replace"))) / BYTES_PER_TOKEN) + 4


def count_text_tokens(text: str) -> int:
    """Estimate the tokens of a text without any structure around it."""
    return -(-len(text.encode(errors="replace")) * 2 // 7)
