"""SQL of sessions. Every read takes the reader, so no caller can forget the access check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.errors import ForbiddenError, NotFoundError
from moorage_api.events.log import INSERT_HEAD
from moorage_api.sessions.models import SessionRow
from moorage_api.sessions.schemas import ListSessionItem
from moorage_api.users.account import Reader

LIST = """
    SELECT id::text AS session_id, title, latest_message, latest_message_at, status, unread_message_count
    FROM sessions WHERE ($1::uuid IS NULL OR owner_id = $1) AND deleted_at IS NULL
    ORDER BY latest_message_at DESC NULLS LAST, id DESC LIMIT $2
"""

CREATE = f"""
    WITH session AS (INSERT INTO sessions (id, owner_id) VALUES ($1, $2) RETURNING id),
    head AS ({INSERT_HEAD})
    INSERT INTO user_heads (user_id, version) VALUES ($2, 1)
    ON CONFLICT (user_id) DO UPDATE SET version = user_heads.version + 1
"""  # noqa: S608 - built from constants

CHANGE = text(
    """
    UPDATE sessions SET
        title = coalesce(CAST(:title AS text), title),
        status = coalesce(CAST(:status AS text), status),
        latest_message = coalesce(CAST(:latest_message AS text), latest_message),
        latest_message_at = CASE WHEN CAST(:latest_message AS text) IS NULL THEN latest_message_at ELSE now() END,
        unread_message_count = unread_message_count + :unread
    WHERE id = :session_id
    """
)
TOUCH_LIST = text(
    """
    INSERT INTO user_heads (user_id, version) VALUES (:user_id, 1)
    ON CONFLICT (user_id) DO UPDATE SET version = user_heads.version + 1
    """
)


class SessionRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def get(self, session_id: UUID, *, reader: Reader) -> SessionRow:
        """Raises NotFoundError if the session does not exist, ForbiddenError if `reader` may not see it."""
        row = await self._tx.get(SessionRow, session_id)
        if row is None or row.deleted_at is not None:
            raise NotFoundError("This session does not exist")
        if row.owner_id != reader.id and not reader.is_admin:
            raise ForbiddenError("This session belongs to another user")
        return row

    async def get_own(self, session_id: UUID, *, reader: Reader) -> SessionRow:
        """Like `get`, for actions that only the owner may do. Raises ForbiddenError for everyone else, even admins."""
        row = await self.get(session_id, reader=reader)
        if row.owner_id != reader.id:
            raise ForbiddenError("This session belongs to another user")
        return row

    async def change(self, session_id: UUID, changes: Mapping[str, Any]) -> None:
        """Set `title`, `status` and `latest_message` if they are given, and add `unread` messages."""
        names = ("title", "status", "latest_message")
        values = {name: changes.get(name) for name in names} | {"unread": changes.get("unread", 0)}
        await self._tx.execute(CHANGE, {"session_id": session_id, **values})

    async def clear_unread(self, session_id: UUID) -> None:
        await self._tx.execute(text("UPDATE sessions SET unread_message_count = 0 WHERE id = :id"), {"id": session_id})

    async def owner_of(self, session_id: UUID) -> UUID | None:
        """The owner of a session; None if it was deleted."""
        statement = text("SELECT owner_id FROM sessions WHERE id = :id AND deleted_at IS NULL")
        owner_id: UUID | None = await self._tx.scalar(statement, {"id": session_id})
        return owner_id

    async def ids_of(self, owner_id: UUID) -> list[UUID]:
        """List the ids of a user's sessions that are not deleted."""
        statement = text("SELECT id FROM sessions WHERE owner_id = :id AND deleted_at IS NULL")
        return list(await self._tx.scalars(statement, {"id": owner_id}))

    async def count_of(self, owner_id: UUID) -> int:
        """Count a user's sessions, including deleted ones that still have a row."""
        count = await self._tx.scalar(text("SELECT count(*) FROM sessions WHERE owner_id = :id"), {"id": owner_id})
        return int(count or 0)

    async def mark_deleted(self, ids: Sequence[UUID]) -> None:
        await self._tx.execute(text("UPDATE sessions SET deleted_at = now() WHERE id = ANY(:ids)"), {"ids": list(ids)})

    async def deleted_ids(self, *, limit: int) -> list[UUID]:
        statement = text("SELECT id FROM sessions WHERE deleted_at IS NOT NULL LIMIT :limit")
        return list(await self._tx.scalars(statement, {"limit": limit}))

    async def remove(self, session_id: UUID) -> None:
        await self._tx.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": session_id})


async def list_sessions(db: Database, owner_id: UUID | None, *, limit: int) -> list[ListSessionItem]:
    """Sessions of one user, or of all users if `owner_id` is None. The newest activity comes first."""
    rows = await db.fetch(LIST, owner_id, limit)
    return [ListSessionItem.model_construct(**row) for row in rows]


async def create_session(db: Database, session_id: UUID, *, owner_id: UUID) -> None:
    """Insert the session with its head row and raise the version of its owner's list, in one statement."""
    await db.fetch(CREATE, session_id, owner_id)


async def touch_list(tx: AsyncSession, owner_id: UUID) -> None:
    """Raise the version of a user's session list. The caller publishes the change after the commit."""
    await tx.execute(TOUCH_LIST, {"user_id": owner_id})
