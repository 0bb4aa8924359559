"""Repeat what may have failed at the time of the request, and suspend idle sandboxes. Every runner does this."""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy.exc import SQLAlchemyError

from moorage_api.sandboxes.upkeep import Upkeep
from moorage_api.sessions.service import SessionService
from moorage_api.skills.upkeep import SkillUpkeep

logger = logging.getLogger(__name__)

SKILLS_SECONDS = 1800.0
"""Interval between two clean-ups of skill archives; each one lists all of them."""


class Sweep:
    def __init__(
        self, sessions: SessionService, sandboxes: Upkeep, skills: SkillUpkeep, *, interval_seconds: float
    ) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._skills = skills
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Repeat the work until cancelled."""
        skills_at = time.monotonic()
        while True:
            await asyncio.sleep(self._interval_seconds)
            try:
                await self._sessions.sweep_deleted()
                await self._sandboxes.register_missing()
                await self._sandboxes.suspend_idle()
                if time.monotonic() > skills_at:
                    skills_at = time.monotonic() + SKILLS_SECONDS
                    await self._skills.remove_unused()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("A clean-up did not finish; will retry: %s", type(error).__name__)
