"""SQL of files. Every read takes the reader, so no caller can forget the access check."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.errors import ForbiddenError, NotFoundError
from moorage_api.files.models import FileRow
from moorage_api.users.account import Reader


class FileRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    def add(self, row: FileRow) -> None:
        self._tx.add(row)

    async def get(self, file_id: UUID, *, reader: Reader) -> FileRow:
        """Raises NotFoundError if the file does not exist, ForbiddenError if `reader` may not see it."""
        row = await self._tx.get(FileRow, file_id)
        if row is None:
            raise NotFoundError("This file does not exist")
        if row.owner_id != reader.id and not reader.is_admin:
            raise ForbiddenError("This file belongs to another user")
        return row

    async def list_for_session(self, session_id: UUID, *, attached: Collection[UUID]) -> Sequence[FileRow]:
        """List the session's own files and those attached to its messages, oldest first."""
        wanted = or_(FileRow.session_id == session_id, FileRow.id.in_(attached))
        query = select(FileRow).where(wanted).order_by(FileRow.created_at, FileRow.id)
        return (await self._tx.scalars(query)).all()

    async def find_by_path(self, session_id: UUID, filepath: str) -> FileRow | None:
        """Find and lock a file, so that two writers of one path run one after the other."""
        query = (
            select(FileRow)
            .where(FileRow.session_id == session_id, FileRow.filepath == filepath)
            .order_by(FileRow.created_at.desc())
            .limit(1)
            .with_for_update()
        )
        return (await self._tx.scalars(query)).first()

    async def delete(self, file_id: UUID) -> None:
        await self._tx.execute(delete(FileRow).where(FileRow.id == file_id))
