"""Follow a session: deliver every event after a cursor once and in order, even if Redis loses messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from moorage_api.database import Database
from moorage_api.events.hub import Hub
from moorage_api.events.log import StoredEvent, read
from moorage_api.events.subscription import Subscription

PAGE = 500


@dataclass(frozen=True)
class Partial:
    """Text of a message that is still growing. It is not in the log.

    `last_seq` is the newest stored event that was delivered before it.
    """

    data: dict[str, Any]
    last_seq: int


@dataclass(frozen=True)
class Idle:
    """No event arrived for `heartbeat_seconds`."""


async def follow_session(
    hub: Hub, db: Database, session_id: UUID, *, user_id: UUID, after: int, heartbeat_seconds: float
) -> AsyncGenerator[StoredEvent | Partial | Idle, None]:
    """Yield everything after `after`. Ends by itself only when the user loses access; the caller ends it otherwise.

    No database connection is held between reads.
    """
    cursor = after
    async with hub.follow_session(session_id, user_id=user_id) as subscription:
        while True:
            page = await _read_page(db, session_id, cursor)
            for event in page:
                cursor = event.seq
                yield event
            if len(page) < PAGE:
                break
        subscription.advance(cursor)
        while subscription.allowed:
            if not await subscription.wait(heartbeat_seconds):
                yield Idle()
                continue
            async for event in _new_events(db, subscription, session_id, cursor):
                cursor = event.seq
                # the complete message is stored now, so its growing text is obsolete
                subscription.partials.pop(str(event.data.get("stream_id")), None)
                yield event
            for data in subscription.take_partials():
                yield Partial(data, cursor)


async def _new_events(
    db: Database, subscription: Subscription, session_id: UUID, cursor: int
) -> AsyncIterator[StoredEvent]:
    """Published events that continue at `cursor` without a gap; from the first gap on, events read from the log."""
    for event in sorted(subscription.take_live(), key=lambda event: event.seq):
        if event.seq <= cursor:
            continue
        if event.seq > cursor + 1:
            break
        cursor = event.seq
        yield event
    while cursor < subscription.head:
        page = await _read_page(db, session_id, cursor)
        for event in page:
            cursor = event.seq
            yield event
        if not page:
            return


async def _read_page(db: Database, session_id: UUID, after: int) -> list[StoredEvent]:
    async with db() as tx:
        return await read(tx, session_id, after=after, limit=PAGE)
