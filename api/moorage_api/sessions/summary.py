"""What a run needs of its session's row, which session lists show: its owner, and the update from the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.events.log import make_storable
from moorage_api.events.schemas import ChatEvent, MessageEvent, TitleEvent
from moorage_api.sessions.repository import SessionRepository, touch_list

LATEST_MESSAGE_LENGTH = 500
STATUS_AFTER = {"done": "completed", "error": "completed", "wait": "waiting"}


def row_changes(events: Sequence[ChatEvent], *, watched: bool) -> dict[str, Any]:
    """New column values after `events`, {} if nothing changes. `unread` is a number to add to the unread count."""
    changes: dict[str, Any] = {}
    unread = 0
    for event in events:
        if isinstance(event, MessageEvent):
            changes["latest_message"] = make_storable(event.message)[:LATEST_MESSAGE_LENGTH]
            if event.role == "assistant":
                unread += 1
            else:
                changes["status"] = "running"
        elif isinstance(event, TitleEvent):
            changes["title"] = make_storable(event.title)[:200]
        elif event.type in STATUS_AFTER:
            changes["status"] = STATUS_AFTER[event.type]
            unread += event.type == "wait"
    if unread and not watched:
        changes["unread"] = unread
    return changes


async def find_owner(tx: AsyncSession, session_id: UUID) -> UUID | None:
    """The owner of a session; None if it was deleted."""
    return await SessionRepository(tx).owner_of(session_id)


async def apply_events(
    tx: AsyncSession, session_id: UUID, events: Sequence[ChatEvent], *, owner_id: UUID, watched: bool = True
) -> bool:
    """Update the session's row and the version of its owner's list. True if the list changed."""
    changes = row_changes(events, watched=watched)
    if not changes:
        return False
    await SessionRepository(tx).change(session_id, changes)
    await touch_list(tx, owner_id)
    return True
