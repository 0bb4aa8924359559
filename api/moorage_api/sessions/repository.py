"""SQL of sessions. Every read takes the reader, so no caller can forget the access check."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.errors import ForbiddenError, NotFoundError
from moorage_api.sessions.models import SessionRow
from moorage_api.sessions.schemas import ListSessionItem
from moorage_api.users.account import Reader

LIST = """
    SELECT id::text AS session_id, title, latest_message, latest_message_at, status, unread_message_count
    FROM sessions WHERE ($1::uuid IS NULL OR owner_id = $1) AND deleted_at IS NULL
    ORDER BY latest_message_at DESC NULLS LAST, id DESC LIMIT $2
"""

CREATE = """
    WITH session AS (INSERT INTO sessions (id, owner_id) VALUES ($1, $2) RETURNING id),
    head AS (INSERT INTO session_heads (session_id) SELECT id FROM session)
    INSERT INTO user_heads (user_id, version) VALUES ($2, 1)
    ON CONFLICT (user_id) DO UPDATE SET version = user_heads.version + 1
"""


@dataclass(frozen=True)
class SessionAccess:
    """A session that the reader may use."""

    id: UUID
    owner_id: UUID


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


async def list_sessions(db: Database, owner_id: UUID | None, *, limit: int) -> list[ListSessionItem]:
    """Sessions of one user, or of all users if `owner_id` is None. The newest activity comes first."""
    rows = await db.fetch(LIST, owner_id, limit)
    return [ListSessionItem.model_construct(**row) for row in rows]


async def create_session(db: Database, session_id: UUID, *, owner_id: UUID) -> None:
    """Insert the session with its head row and raise the version of its owner's list, in one statement."""
    await db.fetch(CREATE, session_id, owner_id)
