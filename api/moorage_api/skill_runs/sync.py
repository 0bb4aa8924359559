"""Brings the session's skills into its sandbox: the best fits first, and only what is not there already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from moorage_api.errors import DomainError
from moorage_api.skill_runs.pins import SessionSkill, SessionSkills
from moorage_api.skills.store import SkillArchives
from moorage_sandbox.client import GateClient
from moorage_sandbox.protocol import GateError

NOT_YET = "The skill's files are not in the sandbox yet"

logger = logging.getLogger(__name__)


class SkillSync:
    """One for each run. Skills are put in order, so that those chosen as initial are there first."""

    def __init__(self, skills: Sequence[SessionSkill], archives: SkillArchives, sessions: SessionSkills) -> None:
        self._skills = skills
        self._archives = archives
        self._sessions = sessions
        self._task: asyncio.Task[None] | None = None
        self._results: dict[str, asyncio.Future[str]] = {}
        self.sent_bytes = 0

    def start(self, client: GateClient) -> None:
        """Begin, or begin anew with a sandbox that took the place of another."""
        before = self._task
        self._give_up()
        for result in self._results.values():
            result.cancel()
        loop = asyncio.get_running_loop()
        self._results = {skill.id: loop.create_future() for skill in self._skills}
        if self._skills:
            self._task = asyncio.create_task(self._run(client, self._results, before=before))

    async def stop(self) -> None:
        """Give up what is on its way. What was brought is noted first."""
        self._give_up()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._results = {}

    def _give_up(self) -> None:
        """Not once all is settled: what is left then is the note, which would be lost together with its connection."""
        if self._task is not None and not all(result.done() for result in self._results.values()):
            self._task.cancel()

    async def finished(self) -> None:
        """Wait until nothing more is on its way."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def problem_with(self, skill_id: str, *, seconds: float) -> str:
        """Why the skill's files are not in the sandbox; empty once they are. Waits for so long at most."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            result = self._results.get(skill_id)
            if result is None:
                break
            await asyncio.wait({result}, timeout=left)
            if result.done() and not result.cancelled():
                return result.result()
            if result is self._results.get(skill_id) and result.cancelled():
                break
        return NOT_YET

    async def _run(
        self, client: GateClient, results: dict[str, asyncio.Future[str]], *, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            there = await client.skill_digests()
        except GateError as error:
            logger.info("Could not ask for the skills of a sandbox: %s", error)
            for result in results.values():
                settle(result, f"The skill's files could not be brought into the sandbox: {error}")
            return
        for skill in self._skills:
            if there.get(skill.id) == skill.digest:
                settle(results[skill.id], "")
        for skill in self._skills:
            if not results[skill.id].done():
                settle(results[skill.id], await self._put(client, skill))
        done = [skill_id for skill_id, result in results.items() if result.done() and result.result() == ""]
        try:
            await self._sessions.mark_synced(done)
        except (SQLAlchemyError, OSError) as error:
            logger.info("Could not note when skills were synced: %s", type(error).__name__)

    async def _put(self, client: GateClient, skill: SessionSkill) -> str:
        """What went wrong; empty when nothing did."""
        try:
            archive = await self._archives.get(skill.digest)
            await client.put_skill(skill.id, skill.digest, archive)
        except (DomainError, GateError) as error:
            logger.warning("The skill %s could not be put into a sandbox: %s", skill.id, error)
            return f"The skill's files could not be brought into the sandbox: {error}"
        self.sent_bytes += len(archive)
        return ""


def settle(result: asyncio.Future[str], problem: str) -> None:
    if not result.done():
        result.set_result(problem)
