"""Frames of Server-Sent Events: pure functions from events to text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moorage_api.events.log import StoredEvent

HEARTBEAT = ": heartbeat\n\n"
MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Tell proxies not to cache and not to buffer a stream."""


def frame(event: str, data: Mapping[str, Any], *, event_id: str | None = None) -> str:
    """Format one frame. JSON has no raw line breaks, so `data` is always a single line."""
    lines = [f"id: {event_id}"] if event_id is not None else []
    lines += [f"event: {event}", f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}"]
    return "\n".join(lines) + "\n\n"


def event_data(event: StoredEvent) -> dict[str, Any]:
    """Data of a stored event as clients receive it: with its cursor, its time in whole seconds and its seq."""
    return {
        **event.data,
        "event_id": str(event.seq),
        "created_at": int(event.created_at.timestamp()),
        "seq": event.seq,
    }


def stored_frame(event: StoredEvent) -> str:
    return frame(event.type, event_data(event), event_id=str(event.seq))


def partial_frame(data: Mapping[str, Any], *, last_seq: int, now: datetime) -> str:
    """Format a growing message. It repeats the cursor of the last stored event, so resuming from it loses nothing."""
    cursor = str(last_seq)
    return frame("message", {**data, "event_id": cursor, "created_at": int(now.timestamp())}, event_id=cursor)


def parse_cursor(text: str | None) -> int | None:
    """Convert a client's cursor to a seq. None if there is no cursor or if we did not issue it."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)
