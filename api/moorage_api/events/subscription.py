"""What one open stream has received but not yet delivered, and the format of the Redis messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from moorage_api.events.log import StoredEvent

MAX_QUEUED = 256
"""Most live events that may wait for a slow stream. Further ones are dropped; the stream then reads the log."""


@dataclass(eq=False)
class Subscription:
    """`wake` is set when there is something to deliver. `head` is the newest seq (or list version) known to exist."""

    user_id: UUID
    session_id: UUID | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    live: list[StoredEvent] = field(default_factory=list)
    partials: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The newest unsent text of each growing message, by stream_id. Older texts are not needed."""
    head: int = 0
    allowed: bool = True
    """Becomes False, and the stream ends, when the user is banned or deleted or the session is deleted."""

    def add_events(self, events: Iterable[StoredEvent]) -> None:
        for event in events:
            self.head = max(self.head, event.seq)
            if len(self.live) < MAX_QUEUED:
                self.live.append(event)
        self.wake.set()

    def set_partial(self, data: dict[str, Any]) -> None:
        self.partials[str(data.get("stream_id"))] = data
        self.wake.set()

    def advance(self, version: int) -> None:
        if version > self.head:
            self.head = version
            self.wake.set()

    def end_stream(self) -> None:
        self.allowed = False
        self.wake.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something to deliver. False if nothing arrived within `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()
            self.wake.clear()
            return True
        return False

    def take_live(self) -> list[StoredEvent]:
        taken, self.live = self.live, []
        return taken

    def take_partials(self) -> list[dict[str, Any]]:
        taken, self.partials = self.partials, {}
        return list(taken.values())

    def apply_message(self, payload: bytes) -> None:
        """Apply a message that was published on this subscription's channel."""
        message = json.loads(payload)
        if events := message.get("events"):
            assert self.session_id is not None
            self.add_events(decode_event(self.session_id, item) for item in events)
        elif partial := message.get("partial"):
            self.set_partial(partial)
        elif message.get("gone"):
            self.end_stream()
        else:
            self.wake.set()


def encode_events(events: Iterable[StoredEvent]) -> str:
    items = [
        {"seq": event.seq, "type": event.type, "data": event.data, "at": event.created_at.isoformat()}
        for event in events
    ]
    return json.dumps({"events": items}, ensure_ascii=False)


def decode_event(session_id: UUID, item: dict[str, Any]) -> StoredEvent:
    return StoredEvent(session_id, item["seq"], item["type"], item["data"], datetime.fromisoformat(item["at"]))


def encode_partial(data: dict[str, Any]) -> str:
    return json.dumps({"partial": data}, ensure_ascii=False)


LIST_CHANGED = "{}"
GONE = json.dumps({"gone": True})
