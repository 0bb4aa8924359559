"""Removes versions of skills that nobody needs any more, and their archives. Every runner does this now and then."""

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

NOTE = f"""
    UPDATE skill_versions AS version SET unused_since = CASE WHEN {UNUSED} THEN now() END
    WHERE (unused_since IS NULL) = ({UNUSED})
"""  # noqa: S608 - put together from constants
"""Corrects what is noted wrongly, either way."""

STALE = """
    SELECT id FROM skill_versions WHERE unused_since <= now() - make_interval(secs => :grace_seconds)
    LIMIT :limit FOR UPDATE SKIP LOCKED
"""
"""Locked, so that no session can be pinned to one of them from here on."""

FORGET = f"DELETE FROM skill_versions AS version WHERE id = ANY(:ids) AND {UNUSED}"  # noqa: S608 - as above
"""Looks again: a session may have been pinned to one before it was locked."""


class SkillUpkeep:
    """A version goes `grace_seconds` after the last skill or session that named it.

    A session that is choosing its skills has read the versions, and names them a moment later.
    """

    def __init__(self, db: Database, blobs: BlobStore, now: Clock, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._db = db
        self._blobs = blobs
        self._now = now
        self._grace_seconds = grace_seconds

    async def remove_unused(self) -> None:
        """Several may do this at once, and skills be installed meanwhile. What can't be done now is left for later."""
        async with self._db.begin() as tx:
            await tx.execute(text(NOTE))
        async with self._db.begin() as tx:
            parameters = {"grace_seconds": self._grace_seconds, "limit": BATCH}
            ids = list(await tx.scalars(text(STALE), parameters))
            await tx.execute(text(FORGET), {"ids": ids})
        try:
            await self._remove_archives()
        except UnavailableError as error:
            logger.warning("Archives of skills that nobody needs stay for now: %s", error)

    async def _remove_archives(self) -> None:
        """Those that no version names; failed installations leave such as well."""
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
            # asked again: one may have been installed since. The lock is held to the last removal, though it is no SQL:
            # who installs the same bytes must find them gone before it stores them, or store them after
            for digest in await self._unknown(tx, unknown):
                await self._blobs.delete(skill_archive_key(digest))
        logger.info("Removed %d archives of skills that nobody needs", len(unknown))

    @staticmethod
    async def _unknown(tx: AsyncSession, digests: Collection[str]) -> set[str]:
        known = await tx.scalars(
            text("SELECT digest FROM skill_versions WHERE digest = ANY(:digests)"), {"digests": list(digests)}
        )
        return set(digests) - set(known)
