"""Copies the session's skills into its sandbox, in order of relevance, unless they are already there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from moorage_api.errors import DomainError
from moorage_api.skills.pins import SessionSkill, SessionSkills
from moorage_api.skills.store import SkillArchives
from moorage_sandbox.client import GateClient
from moorage_sandbox.protocol import GateError

NOT_YET = "The skill's files are not in the sandbox yet"

logger = logging.getLogger(__name__)


class SkillSync:
    """Copies the skills of one run one after the other, so that the `initial` skills are complete first."""

    def __init__(self, skills: Sequence[SessionSkill], archives: SkillArchives, sessions: SessionSkills) -> None:
        self._skills = skills
        self._archives = archives
        self._sessions = sessions
        self._task: asyncio.Task[None] | None = None
        self._results: dict[str, asyncio.Future[str]] = {}
        self.sent_bytes = 0

    def start(self, client: GateClient) -> None:
        """Start copying in the background. Called again for a sandbox that replaced another one."""
        before = self._task
        self._cancel()
        for result in self._results.values():
            result.cancel()
        loop = asyncio.get_running_loop()
        self._results = {skill.id: loop.create_future() for skill in self._skills}
        if self._skills:
            self._task = asyncio.create_task(self._run(client, self._results, before=before))

    async def stop(self) -> None:
        """Cancel the copying. If all skills are copied, this first waits until their sync time is stored."""
        self._cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._results = {}

    def _cancel(self) -> None:
        """Cancel the task, unless only the database update is left, which must not be lost."""
        if self._task is not None and not all(result.done() for result in self._results.values()):
            self._task.cancel()

    async def wait_until_finished(self) -> None:
        """Wait until the copying has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def problem_with(self, skill_id: str, *, seconds: float) -> str:
        """Why the skill's files are not in the sandbox; empty if they are. Waits for at most `seconds`."""
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
            present = await client.skill_digests()
        except GateError as error:
            logger.info("The skills of a sandbox could not be listed: %s", error)
            for result in results.values():
                set_result(result, f"The skill's files could not be copied into the sandbox: {error}")
            return
        for skill in self._skills:
            if present.get(skill.id) == skill.digest:
                set_result(results[skill.id], "")
        for skill in self._skills:
            if not results[skill.id].done():
                set_result(results[skill.id], await self._put(client, skill))
        done = [skill_id for skill_id, result in results.items() if result.done() and result.result() == ""]
        try:
            await self._sessions.mark_synced(done)
        except (SQLAlchemyError, OSError) as error:
            logger.info("The sync time of skills could not be stored: %s", type(error).__name__)

    async def _put(self, client: GateClient, skill: SessionSkill) -> str:
        """Copy one skill. Returns the error message, or an empty text."""
        try:
            archive = await self._archives.get(skill.digest)
            await client.put_skill(skill.id, skill.digest, archive)
        except (DomainError, GateError) as error:
            logger.warning("Skill %s could not be copied into a sandbox: %s", skill.id, error)
            return f"The skill's files could not be copied into the sandbox: {error}"
        self.sent_bytes += len(archive)
        return ""


def set_result(result: asyncio.Future[str], problem: str) -> None:
    if not result.done():
        result.set_result(problem)
