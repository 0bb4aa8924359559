"""SQL of files. Every read takes the reader, so no caller can forget the access check."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.errors import ForbiddenError, NotFoundError
from moorage_api.files.models import FileRow
from moorage_api.users.account import Reader


@dataclass(frozen=True)
class NewFile:
    id: UUID
    owner_id: UUID
    filename: str
    key: str
    extension: str
    mime_type: str
    size: int


class FileRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    def add(self, new: NewFile, *, session_id: UUID | None = None, filepath: str = "") -> FileRow:
        """Insert the file; with `session_id` and `filepath` if it is in the sandbox of a session."""
        row = FileRow(**vars(new), session_id=session_id, filepath=filepath)
        self._tx.add(row)
        return row

    def replace_content(self, row: FileRow, *, key: str, size: int) -> str:
        """Let the row point to another object. Returns the key of the old one."""
        replaced, row.key, row.size = row.key, key, size
        return replaced

    async def place_in_session(self, file_id: UUID, *, owner_id: UUID, session_id: UUID, filepath: str) -> None:
        """Set the path in a sandbox, unless the file is of another user or in another session."""
        row = await self._tx.get(FileRow, file_id)
        if row is not None and row.owner_id == owner_id and row.session_id in (None, session_id):
            row.session_id, row.filepath = session_id, filepath

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
