"""Copy files between a session's sandbox and the stores: attached files, results, long outputs and pictures.

Implements the agent's `Attachments`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from moorage_api.agent.ports import Picture, PictureError, SandboxLostError, SavedFiles
from moorage_api.database import uuid7
from moorage_api.errors import DomainError, FencedError, TooLargeError, UnavailableError
from moorage_api.events.schemas import FileInfo
from moorage_api.files.names import safe_filename
from moorage_api.files.service import FileService
from moorage_api.objects import keys
from moorage_api.objects.store import BlobStore
from moorage_api.runner.journal import RunJournal
from moorage_api.runner.pictures import PictureLimits, PictureStore, decode, iterate
from moorage_api.runner.sandbox_link import SandboxLink
from moorage_api.sandboxes.errors import as_domain_error
from moorage_sandbox.client import GateClient
from moorage_sandbox.protocol import HOME, OUTPUTS, UPLOADS, GateError

logger = logging.getLogger(__name__)

KEEP_SECONDS = 15.0
"""Longest wait for the sandbox when a long output is written into it."""

PICTURES = f"{HOME}/.cache/pictures"
"""Directory of the sandbox for pictures of tools that have to be made smaller."""
PICTURE_SECONDS = 40


class SandboxAttachments:
    """Each turn has one. It uses the turn's link and need not be closed."""

    def __init__(
        self, journal: RunJournal, link: SandboxLink, *, files: FileService, blobs: BlobStore, pictures: PictureStore
    ) -> None:
        self._journal = journal
        self._link = link
        self._files = files
        self._blobs = blobs
        self._pictures = pictures

    async def to_sandbox(self, files: Sequence[FileInfo]) -> Sequence[FileInfo]:
        """See `Attachments.to_sandbox`. Two files of one name get different paths. Raises DomainError."""
        placed = []
        taken: set[str] = set()
        for info in files:
            path = f"{UPLOADS}/{free_name(safe_filename(info.filename), taken)}"
            await self._write(path, info.key)
            await self._files.place_in_session(
                UUID(info.id), owner_id=self._journal.owner_id, session_id=self._journal.session_id, filepath=path
            )
            placed.append(info.model_copy(update={"filepath": path}))
        return placed

    async def _write(self, path: str, key: str) -> None:
        async def write(client: GateClient) -> None:
            stored = await self._files.open(key)  # again for each attempt, because a stream can be read only once
            try:
                await client.write_file(path, stored.chunks, size=stored.size)
            finally:
                await stored.chunks.aclose()

        try:
            await self._link.with_client(write)
        except GateError as error:
            raise as_domain_error(error) from error

    async def from_sandbox(self, filepaths: Sequence[str]) -> SavedFiles:
        """See `Attachments.from_sandbox`. After the first failed connection, the other files are not tried."""
        saved: list[FileInfo] = []
        problems: dict[str, str] = {}
        for place, path in enumerate(filepaths):
            try:
                saved.append(await self._save(path))
            except (FencedError, SandboxLostError):
                raise
            except UnavailableError as error:
                logger.warning("Files of %s are not stored yet: %s", self._journal.session_id, error)
                return SavedFiles(saved, problems, filepaths[place:])
            except (DomainError, GateError) as error:
                problems[path] = str(error)
        return SavedFiles(saved, problems)

    async def _save(self, path: str) -> FileInfo:
        limit_bytes = self._files.limit_bytes

        async def save(client: GateClient) -> FileInfo:
            async with client.read_file(path) as file:
                if file.size > limit_bytes:
                    raise TooLargeError(f"The file has {file.size} bytes; at most {limit_bytes} bytes can be stored")
                return await self._files.save_from_sandbox(
                    file.chunks,
                    owner_id=self._journal.owner_id,
                    session_id=self._journal.session_id,
                    filepath=path,
                )

        return await self._link.with_client(save)

    async def keep_output(self, name: str, text: str) -> str:
        """See `Attachments.keep_output`. The result is useful without the file, so no trouble ends the call."""
        if not self._link.is_in_use:
            return ""
        path, data = f"{OUTPUTS}/{name}", text.encode(errors="replace")

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        try:
            async with asyncio.timeout(KEEP_SECONDS):
                client = await self._link.open()
                await client.write_file(path, chunks(), size=len(data))
        except FencedError:
            raise
        except (DomainError, GateError, TimeoutError) as error:
            logger.info("A long output of %s is not kept: %s", self._journal.session_id, error)
            return ""
        return path

    async def store_blob(self, data: bytes, *, content_type: str, suffix: str) -> str:
        key = f"{keys.session_prefix(self._journal.session_id)}{uuid7()}{suffix}"
        await self._blobs.put(key, data, content_type=content_type)
        return key

    async def read_picture(self, filepath: str, *, key: str) -> Picture:
        """See `Attachments.read_picture`."""
        limits = self._pictures.limits
        args = {"filepath": filepath, "max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels}
        answer = await self._link.call(key, "read_picture", args, timeout_seconds=PICTURE_SECONDS, read_only=True)
        if answer.outcome != "succeeded":
            raise PictureError(answer.error_message)
        return await self._pictures.put(decode(answer.result))

    async def store_picture(self, data: bytes, *, key: str) -> Picture:
        """See `Attachments.store_picture`."""
        if self._pictures.is_small(data):
            return await self._pictures.put(data)
        path = f"{PICTURES}/{hashlib.sha256(data).hexdigest()}"

        async def write(client: GateClient) -> None:
            await client.write_file(path, iterate(data), size=len(data))

        try:
            await self._link.with_client(write)
        except FencedError:
            raise
        except (DomainError, GateError) as error:
            raise PictureError(f"the sandbox, which makes it smaller, does not take it: {error}") from error
        return await self.read_picture(path, key=key)


@dataclass(frozen=True)
class AttachmentStores:
    """Where the files of all sessions are stored. Makes the attachments of each run."""

    files: FileService
    blobs: BlobStore
    pictures: PictureLimits = field(default_factory=PictureLimits)

    def picture_store(self, session_id: UUID) -> PictureStore:
        return PictureStore(self.blobs, session_id, limits=self.pictures)

    def attachments(self, journal: RunJournal, link: SandboxLink) -> SandboxAttachments:
        pictures = self.picture_store(journal.session_id)
        return SandboxAttachments(journal, link, files=self.files, blobs=self.blobs, pictures=pictures)


def free_name(name: str, taken: set[str]) -> str:
    """Return `name`, with a number before its extension if it is in `taken`, and add the result to `taken`."""
    stem, dot, extension = name.rpartition(".")
    base, suffix = (stem, dot + extension) if stem else (name, "")
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{base}-{number}{suffix}"
    taken.add(candidate)
    return candidate
