"""The skills of one run: pins them, copies them into the sandbox, and builds the agent's toolset for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from moorage_api.agent.ports import Attachments, Gate, Switches
from moorage_api.config.service import ConfigService
from moorage_api.errors import DomainError, FencedError
from moorage_api.skill_runs.ports import SkillDelegate
from moorage_api.skill_runs.sync import NOT_YET, SkillSync
from moorage_api.skill_runs.toolset import SkillToolset, guidance
from moorage_api.skills.bundles.archive import unpack
from moorage_api.skills.pins import SessionSkill, SessionSkills
from moorage_api.skills.store import SkillArchives
from moorage_crds.types import SkillPin
from moorage_sandbox.protocol import GateError


@dataclass(frozen=True)
class RunSkills:
    skills: Sequence[SessionSkill]
    sessions: SessionSkills
    archives: SkillArchives
    sync: SkillSync
    confirms: bool

    async def pins_for(self, session_id: UUID) -> Sequence[SkillPin]:
        """The skills for a new sandbox; see SandboxLink."""
        return await self.sessions.pins_for(session_id)

    def guidance(self) -> str:
        return guidance(self.skills)

    def toolset(
        self,
        gate: Gate,
        attachments: Attachments,
        delegates: Sequence[SkillDelegate],
        switches: Switches,
        *,
        prepare: Callable[[], Awaitable[None]],
    ) -> SkillToolset:
        """`prepare` starts the sandbox, which starts the sync; it raises DomainError or GateError."""
        return SkillToolset(
            self.skills,
            files=RunFiles(self.archives, self.sync, prepare),
            gate=gate,
            attachments=attachments,
            delegates=delegates,
            switches=switches,
            confirms=self.confirms,
        )


@dataclass(frozen=True)
class RunFiles:
    """Implements SkillFiles."""

    archives: SkillArchives
    sync: SkillSync
    prepare: Callable[[], Awaitable[None]]

    async def read(self, digest: str) -> dict[str, bytes]:
        archive = await self.archives.get(digest)
        return await asyncio.to_thread(unpack, archive)

    async def problem_with(self, skill_id: str, *, seconds: float, needs_sandbox: bool = False) -> str:
        try:
            async with asyncio.timeout(None if needs_sandbox else seconds):
                await self.prepare()
        except TimeoutError:
            return NOT_YET
        except FencedError:
            raise
        except (DomainError, GateError) as error:
            return f"The skill's files are not available, because the sandbox could not be started: {error}"
        return await self.sync.problem_with(skill_id, seconds=seconds)


class SkillRuns:
    """Opens the skills of each run."""

    def __init__(self, sessions: SessionSkills, archives: SkillArchives, config: ConfigService) -> None:
        self._sessions = sessions
        self._archives = archives
        self._config = config

    async def open(self, session_id: UUID, owner_id: UUID, *, message: str) -> RunSkills:
        """Pin the session's skills if that was not done before, and list those that the run may use."""
        await self._sessions.pin(session_id, owner_id, message=message)
        skills = await self._sessions.list_usable(session_id, owner_id)
        policy = await self._config.skill_policy() if skills else "off"
        return RunSkills(
            skills,
            self._sessions,
            self._archives,
            SkillSync(skills, self._archives, self._sessions),
            confirms=policy == "enforce_confirmation",
        )
