"""Removes unused versions of skills and their archives. Every runner does this periodically."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.clock import Clock
from moorage_api.database import Database
from moorage_api.errors import UnavailableError
from moorage_api.objects.keys import SKILL_ARCHIVES, digest_in_key, skill_archive_key
from moorage_api.objects.store import BlobStore
from moorage_api.skills.repository import lock_archives

logger = logging.getLogger(__name__)

GRACE_SECONDS = 3600.0
BATCH = 500

UNUSED = """
    NOT EXISTS (SELECT FROM skills WHERE skills.version_id = version.id)
    AND NOT EXISTS (SELECT FROM session_skills WHERE session_skills.version_id = version.id)
"""

UPDATE_UNUSED_SINCE = f"""
    UPDATE skill_versions AS version SET unused_since = CASE WHEN {UNUSED} THEN now() END
    WHERE (unused_since IS NULL) = ({UNUSED})
"""  # noqa: S608 - built from constants
"""Sets `unused_since` of versions that became unused, and clears it for versions that are used again."""

STALE = """
    SELECT id FROM skill_versions WHERE unused_since <= now() - make_interval(secs => :grace_seconds)
    LIMIT :limit FOR UPDATE SKIP LOCKED
"""
"""The lock prevents that a session is pinned to one of these versions from now on."""

DELETE_VERSIONS = f"DELETE FROM skill_versions AS version WHERE id = ANY(:ids) AND {UNUSED}"  # noqa: S608 - as above
"""Checks again that they are unused: a session may have been pinned to one of them before the lock."""


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
            await tx.execute(text(UPDATE_UNUSED_SINCE))
        async with self._db.begin() as tx:
            parameters = {"grace_seconds": self._grace_seconds, "limit": BATCH}
            ids = list(await tx.scalars(text(STALE), parameters))
            await tx.execute(text(DELETE_VERSIONS), {"ids": ids})
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
            unknown = sorted(await self._unknown(tx, digests))[:BATCH]
        if not unknown:
            return
        async with self._db.begin() as tx:
            if not await lock_archives(tx, for_removing=True):
                return
            # check again, because an archive may have been installed since. Keep the lock until the last removal, so
            # that an installation of the same archive stores it either before this check or after its removal
            for digest in await self._unknown(tx, unknown):
                await self._blobs.delete(skill_archive_key(digest))
        logger.info("Removed %d unused archives of skills", len(unknown))

    @staticmethod
    async def _unknown(tx: AsyncSession, digests: Collection[str]) -> set[str]:
        known = await tx.scalars(
            text("SELECT digest FROM skill_versions WHERE digest = ANY(:digests)"), {"digests": list(digests)}
        )
        return set(digests) - set(known)
