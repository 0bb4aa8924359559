"""Periodic upkeep of sandboxes by every runner: register sessions whose registration failed, suspend idle sandboxes."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from moorage_api.database import Database
from moorage_api.errors import UnavailableError
from moorage_api.events import log
from moorage_api.events.hub import Hub
from moorage_api.events.schemas import SandboxEvent
from moorage_api.sandboxes.provider import Sandboxes
from moorage_api.sandboxes.repository import SandboxRepository

logger = logging.getLogger(__name__)

RECENT_SECONDS = 24 * 3600
NEW_SECONDS = 10
REGISTER_BATCH = 20_000
REGISTER_FAILURES = 5
"""After this many failures the rest is left for the next time, because the cluster itself probably fails."""
SUSPEND_BATCH = 50


class Upkeep:
    def __init__(self, db: Database, hub: Hub, sandboxes: Sandboxes, *, idle_seconds: float) -> None:
        self._db = db
        self._hub = hub
        self._sandboxes = sandboxes
        self._idle_seconds = idle_seconds

    async def register_missing(self) -> None:
        """Register sessions that could not be registered when they were created. Several runners may do it at once."""
        async with self._db() as tx:
            owner_of = await SandboxRepository(tx).owners_of_sessions(
                first_id_of(time.time() - RECENT_SECONDS), first_id_of(time.time() - NEW_SECONDS), limit=REGISTER_BATCH
            )
        failures = 0
        for session_id in await self._sandboxes.find_unregistered(list(owner_of)):
            try:
                await self._sandboxes.register(session_id, owner_id=owner_of[session_id])
            except UnavailableError as error:
                failures += 1
                logger.warning("Could not register session %s with the cluster; will retry: %s", session_id, error)
                if failures >= REGISTER_FAILURES:
                    return

    async def suspend_idle(self) -> None:
        """End sandboxes that were idle for `idle_seconds`, and store a `sandbox` event in their sessions.

        A run that begins at the same time finds no sandbox, gets another one, and the model is told.
        """
        if not self._idle_seconds:
            return
        async with self._db() as tx:
            ids = await SandboxRepository(tx).idle_sessions(idle_seconds=self._idle_seconds, limit=SUSPEND_BATCH)
        for session_id in ids:
            try:
                await self._suspend(session_id)
            except UnavailableError as error:
                logger.warning("Could not suspend an idle sandbox; will retry: %s", error)
                return

    async def _suspend(self, session_id: UUID) -> None:
        """Suspend one sandbox. This is a compare-and-swap, so only one of several runners stores the event.

        The row is updated even if there was no sandbox, so that it is not checked again.
        """
        was_running = await self._sandboxes.suspend(session_id)
        async with self._db.begin() as tx:
            await log.lock_head(tx, session_id)
            is_still_idle = await SandboxRepository(tx).mark_suspended(session_id)
            reason = f"It was idle for {self._idle_seconds:.0f} s"
            event = SandboxEvent(phase="suspended", reason=reason)
            stored = await log.append(tx, session_id, [event]) if was_running and is_still_idle else []
        if stored:
            await self._hub.publish(stored)


def first_id_of(timestamp: float) -> UUID:
    """Return the smallest id (UUID version 7) of a row that is created at `timestamp`."""
    return UUID(int=int(timestamp * 1000) << 80)
