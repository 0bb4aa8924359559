"""Stores archives of skills in the object store, with a cache in a local directory. Every read checks the digest."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from moorage_api.errors import UnavailableError
from moorage_api.objects.keys import skill_archive_key
from moorage_api.objects.store import BlobStore
from moorage_api.skills.bundles.archive import Archive, digest_of
from moorage_sandbox.protocol import MAX_SKILL_ARCHIVE_BYTES

logger = logging.getLogger(__name__)

CACHE_BYTES = 1024**3


class SkillArchives:
    def __init__(self, blobs: BlobStore, cache: Path, *, limit_bytes: int = CACHE_BYTES) -> None:
        self._blobs = blobs
        self._cache = cache / "archives"
        self._limit_bytes = limit_bytes

    async def put(self, archive: Archive) -> None:
        """Raises UnavailableError."""
        await self._blobs.put(skill_archive_key(archive.digest), archive.data, content_type="application/gzip")
        await asyncio.to_thread(self._write_cache, archive.digest, archive.data)

    async def get(self, digest: str) -> bytes:
        """The archive with this digest. Raises NotFoundError; UnavailableError if its content has another digest."""
        cached = await asyncio.to_thread(self._read_cache, digest)
        if cached is not None:
            return cached
        stored = await self._blobs.get(skill_archive_key(digest))
        data = bytearray()
        try:
            async for chunk in stored.chunks:
                data += chunk
                if len(data) > MAX_SKILL_ARCHIVE_BYTES:
                    break
        finally:
            await stored.chunks.aclose()
        if digest_of(data) != digest:
            raise UnavailableError("The stored archive of this skill is damaged: install the skill again")
        await asyncio.to_thread(self._write_cache, digest, bytes(data))
        return bytes(data)

    def _read_cache(self, digest: str) -> bytes | None:
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if digest_of(data) == digest:
            with suppress(OSError):  # the cache may be read-only
                os.utime(path)
            return data
        logger.warning("The cached archive %s is damaged; it is fetched from the object store again", path.name)
        return None

    def _write_cache(self, digest: str, data: bytes) -> None:
        """Write the archive to the cache. An error is only logged, because the object store has the archive."""
        path = self._path(digest)
        staged = path.with_suffix(f".{os.urandom(6).hex()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(data)
            staged.rename(path)
            self._evict()
        except FileNotFoundError:
            return  # another thread or process evicts at the same time
        except OSError as error:
            logger.warning("The cache of skills in %s cannot be written: %s", self._cache, error.strerror)

    def _evict(self) -> None:
        """Delete the least recently used archives, because Kubernetes evicts a pod whose disk use grows too much."""
        free_bytes = self._limit_bytes
        cached = [(path.stat(), path) for path in self._cache.iterdir()]
        for status, path in sorted(cached, key=lambda one: one[0].st_mtime_ns, reverse=True):
            free_bytes -= status.st_size
            if free_bytes < 0:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._cache / f"{digest}.tar.gz"
