"""Keeps sandboxes as the rows want them, whatever failed when it was asked for. Every runner does this now and then."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from sqlalchemy import text

from moorage_api.database import Database
from moorage_api.errors import UnavailableError
from moorage_api.events import log
from moorage_api.events.hub import Hub
from moorage_api.events.schemas import SandboxEvent
from moorage_api.sandboxes.provider import Sandboxes

logger = logging.getLogger(__name__)

RECENT_SECONDS = 24 * 3600
NEW_SECONDS = 10
REGISTER_BATCH = 20_000
REGISTER_FAILURES = 5
"""One that the cluster refuses holds up no other; with so many it is the cluster."""
SUSPEND_BATCH = 50

RECENT = """
    SELECT id, owner_id FROM sessions
    WHERE deleted_at IS NULL AND id BETWEEN :oldest AND :newest ORDER BY id DESC LIMIT :limit
"""
"""Ids begin with the time, so this reads a piece of the primary key. Older sessions are known, or become so at their
next need; the newest are just being made known by who created them."""

IDLE = """
    SELECT session_id FROM session_sandboxes AS known
    WHERE suspended_at IS NULL
        AND NOT EXISTS (
            SELECT FROM runs WHERE runs.session_id = known.session_id
                AND (status IN ('queued', 'running') OR finished_at > now() - make_interval(secs => :idle_seconds))
        )
    LIMIT :limit
"""

LOCK_HEAD = "SELECT FROM session_heads WHERE session_id = :session_id FOR UPDATE"
"""First, as everybody does: a run that is being claimed is then seen, or waits."""

SUSPENDED = """
    UPDATE session_sandboxes SET suspended_at = now() WHERE session_id = :session_id AND suspended_at IS NULL
        AND NOT EXISTS (
            SELECT FROM runs WHERE runs.session_id = :session_id AND status IN ('queued', 'running')
        )
    RETURNING session_id
"""


class Upkeep:
    def __init__(self, db: Database, hub: Hub, sandboxes: Sandboxes, *, idle_seconds: float) -> None:
        self._db = db
        self._hub = hub
        self._sandboxes = sandboxes
        self._idle_seconds = idle_seconds

    async def register_missing(self) -> None:
        """Make the sessions known that could not be when they were created. Several may do this at once."""
        async with self._db() as tx:
            parameters = {
                "oldest": first_id_of(time.time() - RECENT_SECONDS),
                "newest": first_id_of(time.time() - NEW_SECONDS),
                "limit": REGISTER_BATCH,
            }
            rows = (await tx.execute(text(RECENT), parameters)).all()
        owner_of: dict[UUID, UUID] = {row.id: row.owner_id for row in rows}
        failures = 0
        for session_id in await self._sandboxes.unregistered(list(owner_of)):
            try:
                await self._sandboxes.register(session_id, owner_id=owner_of[session_id])
            except UnavailableError as error:
                failures += 1
                logger.warning("The session %s is not known to the cluster yet: %s", session_id, error)
                if failures >= REGISTER_FAILURES:
                    return

    async def suspend_idle(self) -> None:
        """End the sandboxes that nobody needed for a while, and say so in their sessions.

        A run that begins meanwhile finds its sandbox gone, gets another, and is told.
        """
        if not self._idle_seconds:
            return
        parameters = {"idle_seconds": self._idle_seconds, "limit": SUSPEND_BATCH}
        async with self._db() as tx:
            ids = list(await tx.scalars(text(IDLE), parameters))
        for session_id in ids:
            try:
                await self._suspend(session_id)
            except UnavailableError as error:
                logger.warning("An idle sandbox stays for now: %s", error)
                return

    async def _suspend(self, session_id: UUID) -> None:
        """Suspending is a compare-and-swap, so of several runners one writes the event.

        The row follows even where there was nothing to suspend: it is looked at no more.
        """
        was_running = await self._sandboxes.suspend(session_id)
        async with self._db.begin() as tx:
            await tx.execute(text(LOCK_HEAD), {"session_id": session_id})
            is_still_idle = (await tx.execute(text(SUSPENDED), {"session_id": session_id})).first() is not None
            reason = f"Nobody needed it for {self._idle_seconds:.0f} s"
            event = SandboxEvent(phase="suspended", reason=reason)
            stored = await log.append(tx, session_id, [event]) if was_running and is_still_idle else []
        if stored:
            await self._hub.publish(stored)


def first_id_of(timestamp: float) -> UUID:
    """The smallest id (UUID version 7) that a row made then can have."""
    return UUID(int=int(timestamp * 1000) << 80)
