"""SQL of skills, their versions and the versions pinned to sessions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import uuid7
from moorage_api.errors import ConflictError, NotFoundError
from moorage_api.preferences.repository import PreferenceRepository
from moorage_api.skills.bundles.manifest import skill_id_of
from moorage_api.skills.models import SessionPinningRow, SessionSkillRow, SkillRow, SkillVersionRow
from moorage_crds.types import MAX_SKILLS

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

Skill = Row[SkillRow, SkillVersionRow]


@dataclass(frozen=True)
class NewVersion:
    """The result of an installation, before it is stored."""

    slug: str
    source_type: str
    source_ref: str
    installed_by: UUID | None
    digest: str
    manifest: Mapping[str, Any]
    context: str
    risk: Mapping[str, Any]
    file_count: int
    reference_count: int

    def row(self, skill_id: str) -> SkillVersionRow:
        return SkillVersionRow(
            id=uuid7(),
            skill_id=skill_id,
            digest=self.digest,
            manifest=dict(self.manifest),
            context=self.context,
            risk=dict(self.risk),
            file_count=self.file_count,
            reference_count=self.reference_count,
        )

    def is_same_as(self, row: SkillVersionRow) -> bool:
        """Whether both are the same for a session. The risk report can differ when its rules have changed."""
        return (row.digest, row.manifest, row.risk) == (self.digest, dict(self.manifest), dict(self.risk))


@dataclass(frozen=True)
class PinnedVersion:
    skill_id: str
    phase: str
    digest: str
    manifest: Mapping[str, Any]
    context: str
    risk: Mapping[str, Any]
    enabled: bool
    """False also if the skill was deleted after the session was pinned."""


async def lock_archives(tx: AsyncSession, *, for_removing: bool = False) -> bool:
    """Lock the archives until `tx` ends: shared for an installation, exclusive for a removal.

    An installation waits for the lock. A removal does not wait; False if it did not get the lock.
    """
    kind = "pg_try_advisory_xact_lock" if for_removing else "pg_advisory_xact_lock_shared"
    return await tx.scalar(text(f"SELECT {kind}(hashtext('skill archives'))")) is not False


class SkillRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def all(self) -> Sequence[Skill]:
        rows = await self._tx.execute(
            select(SkillRow, SkillVersionRow)
            .join(SkillVersionRow, SkillVersionRow.id == SkillRow.version_id)
            .order_by(SkillRow.slug)
        )
        return rows.all()

    async def get(self, key: str) -> Skill:
        """The skill with this id or slug. Raises NotFoundError."""
        rows = await self._tx.execute(
            select(SkillRow, SkillVersionRow)
            .join(SkillVersionRow, SkillVersionRow.id == SkillRow.version_id)
            .where(or_(SkillRow.id == key, SkillRow.slug == key))
        )
        found = rows.one_or_none()
        if found is None:
            raise NotFoundError(f"There is no skill with the id or slug {key[:100]!r}")
        return found

    async def install(self, new: NewVersion, *, now: datetime) -> Skill:
        """Create the skill, or update it to a new version. An update keeps `id`, `enabled` and `created_at`."""
        await self._tx.execute(text("SELECT pg_advisory_xact_lock(hashtext('skills'))"))
        skill = await self._tx.scalar(select(SkillRow).where(SkillRow.slug == new.slug))
        if skill is None and (await self._tx.scalar(select(func.count()).select_from(SkillRow)) or 0) >= MAX_SKILLS:
            raise ConflictError(f"At most {MAX_SKILLS} skills can be installed; delete one first")
        skill_id = skill.id if skill is not None else skill_id_of(new.slug, new.source_ref)
        version = await self._tx.get(SkillVersionRow, skill.version_id) if skill is not None else None
        if version is None or not new.is_same_as(version):
            version = new.row(skill_id)
            self._tx.add(version)
            await self._tx.flush()
        if skill is None:
            skill = SkillRow(id=skill_id, slug=new.slug, enabled=True, created_at=now)
            self._tx.add(skill)
        skill.version_id = version.id
        skill.source_type, skill.source_ref = new.source_type, new.source_ref
        skill.installed_by = new.installed_by
        skill.updated_at = now
        await self._tx.flush()
        return await self.get(skill_id)

    async def set_enabled(self, key: str, *, enabled: bool, now: datetime) -> None:
        skill, _ = await self.get(key)
        skill.enabled, skill.updated_at = enabled, now

    async def delete(self, key: str) -> str:
        """Delete the skill and return its id. Versions stay while sessions are pinned to them; see SkillUpkeep."""
        skill, _ = await self.get(key)
        await self._tx.delete(skill)
        await PreferenceRepository(self._tx).forget("skill", skill.id)
        return skill.id

    async def switched_off_by(self, user_id: UUID) -> set[str]:
        """Ids of the skills that this user has switched off."""
        preferences = await PreferenceRepository(self._tx).get(user_id, "skill")
        return {skill_id for skill_id, enabled in preferences.items() if not enabled}

    async def is_pinned(self, session_id: UUID) -> bool:
        return await self._tx.get(SessionPinningRow, session_id) is not None

    async def pin(self, session_id: UUID, pins: Sequence[tuple[str, UUID, str]]) -> None:
        """Pin skills (id, version, phase) to the session. Does nothing if its skills are pinned already."""
        created = await self._tx.scalar(
            text("INSERT INTO session_pinnings (session_id) VALUES (:id) ON CONFLICT DO NOTHING RETURNING session_id"),
            {"id": session_id},
        )
        if created is not None:
            self._tx.add_all(
                SessionSkillRow(
                    session_id=session_id, position=position, skill_id=skill_id, version_id=version_id, phase=phase
                )
                for position, (skill_id, version_id, phase) in enumerate(pins)
            )

    async def list_pinned(self, session_id: UUID) -> list[PinnedVersion]:
        """The pinned versions, in order of relevance."""
        rows = await self._tx.execute(
            select(SessionSkillRow, SkillVersionRow, SkillRow.enabled)
            .join(SkillVersionRow, SkillVersionRow.id == SessionSkillRow.version_id)
            .outerjoin(SkillRow, SkillRow.id == SessionSkillRow.skill_id)
            .where(SessionSkillRow.session_id == session_id)
            .order_by(SessionSkillRow.position)
        )
        return [
            PinnedVersion(
                skill_id=pin.skill_id,
                phase=pin.phase,
                digest=version.digest,
                manifest=version.manifest,
                context=version.context,
                risk=version.risk,
                enabled=bool(enabled),
            )
            for pin, version, enabled in rows
        ]

    async def mark_synced(self, skill_ids: Sequence[str], *, now: datetime) -> None:
        await self._tx.execute(update(SkillRow).where(SkillRow.id.in_(skill_ids)).values(last_sync_at=now))

    async def update_unused_since(self) -> None:
        """Store since when each version is unused; a version that is used again loses its time."""
        await self._tx.execute(text(UPDATE_UNUSED_SINCE))

    async def remove_unused(self, *, grace_seconds: float, limit: int) -> None:
        """Remove versions that are unused for this long."""
        ids = list(await self._tx.scalars(text(STALE), {"grace_seconds": grace_seconds, "limit": limit}))
        await self._tx.execute(text(DELETE_VERSIONS), {"ids": ids})

    async def unknown_digests(self, digests: Collection[str]) -> set[str]:
        """Return the digests that no stored version has."""
        known = await self._tx.scalars(
            text("SELECT digest FROM skill_versions WHERE digest = ANY(:digests)"), {"digests": list(digests)}
        )
        return set(digests) - set(known)
