"""How much of a request a provider can answer from its cache: what it shares with the beginning of the one before."""

from __future__ import annotations

import json
from typing import Any

from support.llm import Request

SHORTENING = "too long to keep"
SUMMARY = "Summary of the earlier conversation"


def without_marks(message: dict[str, Any]) -> dict[str, Any]:
    """The message without `cache_control`: providers do not count the marks as a part of the text."""
    content = message.get("content")
    if not isinstance(content, list) or not any("cache_control" in part for part in content):
        return message
    parts = [{key: value for key, value in part.items() if key != "cache_control"} for part in content]
    plain = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    return message | {"content": plain}


def cacheable(request: Request) -> Request:
    return request | {"messages": [without_marks(message) for message in request["messages"]]}


def to_bytes(request: Request) -> bytes:
    """What a provider's cache is keyed by, in its order: tools, then messages, of which the first is the system prompt.

    A message may grow at its end, so the closing bracket of the document does not count.
    """
    tools = json.dumps(request.get("tools", []), ensure_ascii=False)
    messages = json.dumps(cacheable(request)["messages"], ensure_ascii=False).removesuffix("]")
    return (tools + messages).encode()


def shared_bytes(before: Request, now: Request) -> int:
    old, new = to_bytes(before), to_bytes(now)
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if old[:middle] == new[:middle] else (low, middle - 1)
    return low


def begins_with(now: Request, before: Request) -> bool:
    """Whether the messages of `before` are the first of `now`. The last of them may have grown, if it is the user's."""
    *older, last = [json.dumps(message, ensure_ascii=False) for message in before["messages"]]
    found = [json.dumps(message, ensure_ascii=False) for message in now["messages"]]
    if found[: len(older)] != older or len(found) <= len(older):
        return False
    return found[len(older)] == last or (
        before["messages"][-1]["role"] == "user" and found[len(older)].startswith(last.removesuffix('"}'))
    )


def is_summary_request(request: Request) -> bool:
    return SHORTENING in str(request["messages"][-1]["content"])


def is_after_summary(request: Request) -> bool:
    return SUMMARY in str(request["messages"][1]["content"])
