"""Estimate how many tokens messages and texts have. No tokenizer is needed, and it is the same for every model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moorage_api.agent.ports import PICTURES

PICTURE_TOKENS = 1_500
"""Our estimate for one picture. Claude takes a 750th of the pixels, OpenAI and Gemini about 800, and our pictures are
bounded."""
BYTES_PER_TOKEN = 3.5
"""Bytes of UTF-8. The estimate is about right for English, code and Chinese."""


def count_tokens(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
    """Estimate the tokens of one message or of a list, with the JSON structure around the texts."""
    if not isinstance(value, Mapping):
        return sum(count_tokens(item) for item in value)
    content, seen = value.get("content") or "", len(value.get(PICTURES) or ())
    if isinstance(content, list):
        texts = [part for part in content if part.get("type") != "image_url"]
        content, seen = json.dumps(texts, ensure_ascii=False), seen + len(content) - len(texts)
    size = len(str(content).encode(errors="replace"))
    rest = {name: item for name, item in value.items() if name not in ("content", PICTURES)}
    size += len(json.dumps(rest, ensure_ascii=False).encode(errors="replace"))
    return int(size / BYTES_PER_TOKEN) + 4 + seen * PICTURE_TOKENS


def count_text_tokens(text: str) -> int:
    """Estimate the tokens of a text without any structure around it."""
    return -(-len(text.encode(errors="replace")) * 2 // 7)
