"""Removes unused versions of skills and their archives. Every runner does this periodically."""

from __future__ import annotations

import logging
from datetime import timedelta

from moorage_api.clock import Clock
from moorage_api.database import Database
from moorage_api.errors import UnavailableError
from moorage_api.objects.keys import SKILL_ARCHIVES, digest_in_key, skill_archive_key
from moorage_api.objects.store import BlobStore
from moorage_api.skills.repository import SkillRepository, lock_archives

logger = logging.getLogger(__name__)

GRACE_SECONDS = 3600.0
BATCH = 500


class SkillUpkeep:
    """Removes a version `grace_seconds` after the last skill or session stopped using it.

    The grace time is for sessions that are being pinned: they read the versions a moment before they store the pins.
    """

    def __init__(self, db: Database, blobs: BlobStore, now: Clock, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._db = db
        self._blobs = blobs
        self._now = now
        self._grace_seconds = grace_seconds

    async def remove_unused(self) -> None:
        """Remove what is unused. Runners may do this concurrently with each other and with installations.

        If the object store is unavailable, the archives are left for the next time.
        """
        async with self._db.begin() as tx:
            await SkillRepository(tx).update_unused_since()
        async with self._db.begin() as tx:
            await SkillRepository(tx).remove_unused(grace_seconds=self._grace_seconds, limit=BATCH)
        try:
            await self._remove_archives()
        except UnavailableError as error:
            logger.warning("Unused archives of skills could not be removed: %s", error)

    async def _remove_archives(self) -> None:
        """Remove the archives without a version. Failed installations leave such archives, too."""
        before = self._now() - timedelta(seconds=self._grace_seconds)
        keys = await self._blobs.keys(SKILL_ARCHIVES, before=before)
        digests = {digest for key in keys if (digest := digest_in_key(key)) is not None}
        async with self._db() as tx:
            unknown = sorted(await SkillRepository(tx).unknown_digests(digests))[:BATCH]
        if not unknown:
            return
        async with self._db.begin() as tx:
            if not await lock_archives(tx, for_removing=True):
                return
            # check again, because an archive may have been installed since. Keep the lock until the last removal, so
            # that an installation of the same archive stores it either before this check or after its removal
            for digest in await SkillRepository(tx).unknown_digests(unknown):
                await self._blobs.delete(skill_archive_key(digest))
        logger.info("Removed %d unused archives of skills", len(unknown))
