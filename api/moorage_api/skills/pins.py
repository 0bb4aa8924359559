"""The skills of a session. They are pinned at its first run, and their versions do not change afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from moorage_api.clock import Clock
from moorage_api.database import Database
from moorage_api.skills.bundles.archive import to_pin
from moorage_api.skills.bundles.manifest import Manifest
from moorage_api.skills.bundles.risk import RiskReport
from moorage_api.skills.repository import SkillRepository
from moorage_api.skills.selection import Candidate, rank
from moorage_crds.types import MAX_INITIAL_SKILLS, MAX_SKILLS, SkillPin


@dataclass(frozen=True)
class SessionSkill:
    """A skill that a run may use, in the version that is pinned to the session."""

    id: str
    digest: str
    manifest: Manifest
    context: str
    risk: RiskReport


class SessionSkills:
    def __init__(self, db: Database, now: Clock) -> None:
        self._db = db
        self._now = now

    async def pin(self, session_id: UUID, owner_id: UUID, *, message: str) -> None:
        """Pin the session's skills, in order of relevance to `message`. Does nothing if they are pinned already."""
        async with self._db() as tx:
            repository = SkillRepository(tx)
            if await repository.is_pinned(session_id):
                return
            skills = [(skill, version) for skill, version in await repository.all() if skill.enabled]
            switched_off = await repository.switched_off_by(owner_id) if skills else set()
        by_slug = {skill.slug: (skill, version) for skill, version in skills if skill.id not in switched_off}
        candidates = [
            Candidate(slug, version.manifest["name"], version.manifest["description"])
            for slug, (_, version) in by_slug.items()
        ]
        order = [by_slug[candidate.slug] for candidate in rank(message, candidates)][:MAX_SKILLS]
        async with self._db.begin() as tx:
            await SkillRepository(tx).pin(
                session_id,
                [
                    (skill.id, version.id, "initial" if place < MAX_INITIAL_SKILLS else "backfill")
                    for place, (skill, version) in enumerate(order)
                ],
            )

    async def pins_for(self, session_id: UUID) -> list[SkillPin]:
        """The pinned skills for `spec.skills` of the session's resource, in order of relevance."""
        async with self._db() as tx:
            pinned = await SkillRepository(tx).list_pinned(session_id)
        return [
            SkillPin(
                id=version.skill_id,
                digest=to_pin(version.digest),
                phase="initial" if version.phase == "initial" else "backfill",
            )
            for version in pinned
        ]

    async def list_usable(self, session_id: UUID, owner_id: UUID) -> list[SessionSkill]:
        """The pinned skills, without those that are now deleted, or switched off for everyone or for this user."""
        async with self._db() as tx:
            repository = SkillRepository(tx)
            pinned = await repository.list_pinned(session_id)
            switched_off = await repository.switched_off_by(owner_id) if pinned else set()
        return [
            SessionSkill(
                id=version.skill_id,
                digest=version.digest,
                manifest=Manifest.model_validate(version.manifest),
                context=version.context,
                risk=RiskReport.model_validate(version.risk),
            )
            for version in pinned
            if version.enabled and version.skill_id not in switched_off
        ]

    async def mark_synced(self, skill_ids: Sequence[str]) -> None:
        async with self._db.begin() as tx:
            await SkillRepository(tx).mark_synced(skill_ids, now=self._now())
