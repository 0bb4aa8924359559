"""The two event streams: one session's events, and the list of a user's sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from moorage_api.database import Database
from moorage_api.events import sse
from moorage_api.events.follow import Idle, Partial, follow_session
from moorage_api.events.hub import Hub
from moorage_api.events.log import StoredEvent
from moorage_api.events.schemas import STREAM_ENDING_TYPES
from moorage_api.sessions.schemas import ListSessionItem

LIST_COALESCE_SECONDS = 0.25
"""Shortest time between two list frames: a run changes its session's row often."""


class EventStreams:
    """Builds the frames of streams.

    A stream without events sends a heartbeat after `heartbeat_seconds`, and ends after `max_seconds`.
    """

    def __init__(self, hub: Hub, db: Database, *, heartbeat_seconds: float, max_seconds: float) -> None:
        self._hub = hub
        self._db = db
        self._heartbeat_seconds = heartbeat_seconds
        self._max_seconds = max_seconds

    async def chat_frames(
        self,
        session_id: UUID,
        *,
        user_id: UUID,
        after: int,
        run_from: int,
        until: int | None,
        present: Callable[[StoredEvent], StoredEvent],
    ) -> AsyncIterator[str]:
        """Yield frames of a session's events after `after`.

        Ends after the first event from `run_from` on that ends a turn; after the event `until`, which is the newest
        one if no run is active; or after `max_seconds`, and the client then resumes from its cursor.
        """
        if until is not None and after >= until:
            return
        ends_at = time.monotonic() + self._max_seconds
        following = follow_session(
            self._hub, self._db, session_id, user_id=user_id, after=after, heartbeat_seconds=self._heartbeat_seconds
        )
        try:
            async for item in following:
                if isinstance(item, StoredEvent):
                    yield sse.stored_frame(present(item))
                    if item.seq == until or (item.seq >= run_from and item.type in STREAM_ENDING_TYPES):
                        return
                elif isinstance(item, Partial):
                    yield sse.partial_frame(item.data, last_seq=item.last_seq, now=datetime.now(UTC))
                elif isinstance(item, Idle):
                    yield sse.HEARTBEAT
                if time.monotonic() > ends_at:
                    return
        finally:
            await following.aclose()

    async def list_frames(
        self,
        *,
        user_id: UUID,
        read_list: Callable[[], Awaitable[Sequence[ListSessionItem]]],
    ) -> AsyncIterator[str]:
        """Yield a frame with the whole list at once and after each change. Ends after `max_seconds`."""
        ends_at = time.monotonic() + self._max_seconds
        async with self._hub.follow_user(user_id) as subscription:
            last: list[dict[str, Any]] | None = None
            while subscription.allowed and time.monotonic() < ends_at:
                subscription.wake.clear()
                sessions = [item.model_dump(mode="json") for item in await read_list()]
                if sessions != last:
                    last = sessions
                    yield sse.frame("sessions", {"sessions": sessions})
                while not await subscription.wait(self._heartbeat_seconds):
                    yield sse.HEARTBEAT
                    if time.monotonic() > ends_at:
                        return
                await asyncio.sleep(LIST_COALESCE_SECONDS)
