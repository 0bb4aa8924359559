"""Rules of files: rows in the database, bytes in the object store."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from uuid import UUID

from moorage_api.database import Database, uuid7
from moorage_api.errors import DomainError, TooLargeError
from moorage_api.events.schemas import FileInfo
from moorage_api.files.models import FileRow
from moorage_api.files.names import extension_of, media_type_of, safe_filename
from moorage_api.files.repository import FileRepository, NewFile
from moorage_api.objects import keys
from moorage_api.objects.store import BlobStore, StoredObject
from moorage_api.users.account import Reader

logger = logging.getLogger(__name__)


class FileService:
    """Stores an object before its row and removes it after its row, so every row has its object."""

    def __init__(self, db: Database, blobs: BlobStore, *, limit_bytes: int) -> None:
        self._db = db
        self._blobs = blobs
        self.limit_bytes = limit_bytes

    async def upload(
        self, chunks: AsyncIterable[bytes], *, owner_id: UUID, filename: str, content_type: str
    ) -> FileInfo:
        """Store a new file. Raises TooLargeError beyond the limit. After any error nothing is stored."""
        file_id, key, size = await self._store(chunks, owner_id=owner_id, filename=filename, content_type=content_type)
        new = new_file(file_id, key, size, owner_id=owner_id, filename=filename, content_type=content_type)
        async with self._db.begin() as tx:
            row = FileRepository(tx).add(new)
        return to_file_info(row)

    async def save_from_sandbox(
        self, chunks: AsyncIterable[bytes], *, owner_id: UUID, session_id: UUID, filepath: str
    ) -> FileInfo:
        """Store a file from a session's sandbox. The same path again replaces the content and keeps the id."""
        file_id, key, size = await self._store(chunks, owner_id=owner_id, filename=filepath, content_type="")
        replaced: str | None = None
        async with self._db.begin() as tx:
            files = FileRepository(tx)
            row = await files.find_by_path(session_id, filepath)
            if row is None:
                new = new_file(file_id, key, size, owner_id=owner_id, filename=filepath, content_type="")
                row = files.add(new, session_id=session_id, filepath=filepath)
            else:
                replaced = files.replace_content(row, key=key, size=size)
        if replaced is not None:
            await self._remove_object(replaced)
        return to_file_info(row)

    async def place_in_session(self, file_id: UUID, *, owner_id: UUID, session_id: UUID, filepath: str) -> None:
        """Record that the owner's file was copied to `filepath` in a session's sandbox.

        If the agent then saves a file at that path, it replaces this file. A file of another user (attached by an
        admin) is never replaced, and neither is a file that was copied into another session first.
        """
        async with self._db.begin() as tx:
            files = FileRepository(tx)
            await files.place_in_session(file_id, owner_id=owner_id, session_id=session_id, filepath=filepath)

    async def get(self, file_id: UUID, *, reader: Reader) -> FileInfo:
        async with self._db() as tx:
            return to_file_info(await FileRepository(tx).get(file_id, reader=reader))

    async def get_many(self, file_ids: Sequence[UUID], *, reader: Reader) -> list[FileInfo]:
        """Return the files in the given order, without duplicates. Raises the same errors as `get`."""
        async with self._db() as tx:
            files = FileRepository(tx)
            return [to_file_info(await files.get(file_id, reader=reader)) for file_id in dict.fromkeys(file_ids)]

    async def list_for_session(self, session_id: UUID, *, attached: Collection[UUID]) -> list[FileInfo]:
        """List files that the agent saved and files attached to messages.

        `filepath` is "" unless the file is in this session's sandbox.
        """
        async with self._db() as tx:
            rows = await FileRepository(tx).list_for_session(session_id, attached=attached)
        return [
            to_file_info(row) if row.session_id == session_id else without_filepath(to_file_info(row)) for row in rows
        ]

    async def open(self, key: str) -> StoredObject:
        """Open a file's content by the key in its FileInfo. The caller has checked access. Raises NotFoundError."""
        return await self._blobs.get(key)

    async def delete(self, file_id: UUID, *, reader: Reader) -> None:
        async with self._db.begin() as tx:
            files = FileRepository(tx)
            row = await files.get(file_id, reader=reader)
            await files.delete(file_id)
        await self._remove_object(row.key)

    async def delete_all_of(self, owner_id: UUID) -> None:
        """Remove the objects of a user. The database removes the rows together with the user."""
        await self._blobs.delete_prefix(keys.user_files_prefix(owner_id))

    async def _store(
        self, chunks: AsyncIterable[bytes], *, owner_id: UUID, filename: str, content_type: str
    ) -> tuple[UUID, str, int]:
        file_id = uuid7()
        key = keys.file_key(owner_id, file_id, uuid7().hex[-8:])
        media_type = media_type_of(safe_filename(filename), content_type)
        return (
            file_id,
            key,
            await self._blobs.put_stream(
                key, limit_chunks(chunks, limit_bytes=self.limit_bytes), content_type=media_type
            ),
        )

    async def _remove_object(self, key: str) -> None:
        try:
            await self._blobs.delete(key)
        except DomainError as error:
            logger.warning("Could not remove an object whose row is deleted; it stays in the store: %s", error)


def new_file(file_id: UUID, key: str, size: int, *, owner_id: UUID, filename: str, content_type: str) -> NewFile:
    name = safe_filename(filename)
    media_type = media_type_of(name, content_type)
    return NewFile(file_id, owner_id, name, key, extension=extension_of(name), mime_type=media_type, size=size)


async def limit_chunks(chunks: AsyncIterable[bytes], *, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the same chunks. Raises TooLargeError when they exceed the limit."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit_bytes:
            message = f"The file is larger than the limit of {limit_bytes // 2**20} MiB"
            raise TooLargeError(message, limit_bytes=limit_bytes)
        yield chunk


def without_filepath(info: FileInfo) -> FileInfo:
    return info.model_copy(update={"filepath": ""})


def to_file_info(row: FileRow) -> FileInfo:
    return FileInfo(
        id=str(row.id),
        filename=row.filename,
        filepath=row.filepath,
        key=row.key,
        extension=row.extension,
        mime_type=row.mime_type,
        size=row.size,
    )
