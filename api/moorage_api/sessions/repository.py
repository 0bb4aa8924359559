"""SQL of sessions. Every read takes who reads, so no caller can forget to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.errors import ForbiddenError, NotFoundError
from moorage_api.sessions.models import SessionRow


class Reader(Protocol):
    """Who asks."""

    @property
    def id(self) -> UUID: ...

    @property
    def is_admin(self) -> bool: ...


@dataclass(frozen=True)
class SessionAccess:
    """A session that the reader may use: its id and whose it is."""

    id: UUID
    owner_id: UUID


class SessionRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def add(self, session_id: UUID, *, owner_id: UUID) -> None:
        """Insert the session with its head in one statement."""
        await self._tx.execute(
            text(
                """
                WITH session AS (INSERT INTO sessions (id, owner_id) VALUES (:id, :owner_id) RETURNING id)
                INSERT INTO session_heads (session_id) SELECT id FROM session
                """
            ),
            {"id": session_id, "owner_id": owner_id},
        )

    async def get(self, session_id: UUID, *, reader: Reader) -> SessionRow:
        """Raises NotFoundError for a missing session, ForbiddenError for one that `reader` may not see."""
        row = await self._tx.get(SessionRow, session_id)
        if row is None or row.deleted_at is not None:
            raise NotFoundError("This session does not exist")
        if row.owner_id != reader.id and not reader.is_admin:
            raise ForbiddenError("This session belongs to somebody else")
        return row

    async def get_own(self, session_id: UUID, *, reader: Reader) -> SessionRow:
        """Like `get`, for what only the owner may do, admins included."""
        row = await self.get(session_id, reader=reader)
        if row.owner_id != reader.id:
            raise ForbiddenError("This session belongs to somebody else")
        return row

    async def list_of(self, owner_id: UUID | None, *, limit: int) -> Sequence[SessionRow]:
        """Newest activity first; of everyone where `owner_id` is None."""
        query = select(SessionRow).where(SessionRow.deleted_at.is_(None))
        if owner_id is not None:
            query = query.where(SessionRow.owner_id == owner_id)
        query = query.order_by(SessionRow.latest_message_at.desc().nulls_last(), SessionRow.id.desc()).limit(limit)
        return (await self._tx.scalars(query)).all()
