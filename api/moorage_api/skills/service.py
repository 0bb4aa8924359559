"""Installs, lists, switches and deletes skills for admins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from moorage_api.clock import Clock
from moorage_api.database import Database
from moorage_api.outbound import Outbound
from moorage_api.skills.bundles.archive import Archive, pack
from moorage_api.skills.bundles.bundle import Bundle
from moorage_api.skills.bundles.context import Context, context_of
from moorage_api.skills.bundles.github import load_github
from moorage_api.skills.bundles.local import load_local
from moorage_api.skills.bundles.manifest import Manifest, parse_manifest
from moorage_api.skills.bundles.risk import RiskReport, risk_report
from moorage_api.skills.repository import NewVersion, Skill, SkillRepository, lock_archives
from moorage_api.skills.schemas import SkillInstallRequest, SkillItem
from moorage_api.skills.store import SkillArchives


@dataclass(frozen=True)
class Sources:
    """Where skills may be installed from."""

    local_roots: tuple[Path, ...]
    github_archive_url: str
    outbound: Outbound


class SkillService:
    def __init__(self, db: Database, archives: SkillArchives, sources: Sources, now: Clock) -> None:
        self._db = db
        self._archives = archives
        self._sources = sources
        self._now = now

    async def read_all(self) -> list[SkillItem]:
        async with self._db() as tx:
            return [to_item(skill) for skill in await SkillRepository(tx).all()]

    async def install(self, request: SkillInstallRequest, *, installed_by: UUID) -> SkillItem:
        """Load, check and store a skill and its risk report.

        If the slug exists, this is a new version of that skill. Raises SkillRefusedError, SkillTooLargeError,
        OutboundRefusedError and UnavailableError.
        """
        source_ref = request.source_ref.strip().rstrip("/")
        if request.source_type == "local":
            bundle = await asyncio.to_thread(load_local, source_ref, roots=self._sources.local_roots)
        else:
            bundle = await load_github(
                source_ref, base_url=self._sources.github_archive_url, outbound=self._sources.outbound
            )
        prepared = await asyncio.to_thread(prepare, bundle, request)
        async with self._db.begin() as tx:
            # not SQL, but inside the transaction: without its row, upkeep would remove the archive as unused
            await lock_archives(tx)
            await self._archives.put(prepared.archive)
            skill = await SkillRepository(tx).install(
                NewVersion(
                    slug=prepared.manifest.slug,
                    source_type=request.source_type,
                    source_ref=source_ref,
                    installed_by=installed_by,
                    digest=prepared.archive.digest,
                    manifest=prepared.manifest.model_dump(mode="json"),
                    context=prepared.context.blob,
                    risk=prepared.risk.model_dump(mode="json"),
                    file_count=prepared.file_count,
                    reference_count=len(prepared.context.references),
                ),
                now=self._now(),
            )
            return to_item(skill)

    async def set_enabled(self, key: str, *, enabled: bool) -> None:
        """Raises NotFoundError. Sessions notice the change at their next turn."""
        async with self._db.begin() as tx:
            await SkillRepository(tx).set_enabled(key, enabled=enabled, now=self._now())

    async def delete(self, key: str) -> None:
        """Raises NotFoundError. The archive is removed when no session needs it; see SkillUpkeep."""
        async with self._db.begin() as tx:
            await SkillRepository(tx).delete(key)


@dataclass(frozen=True)
class PreparedSkill:
    manifest: Manifest
    risk: RiskReport
    context: Context
    archive: Archive
    file_count: int


def prepare(bundle: Bundle, request: SkillInstallRequest) -> PreparedSkill:
    """Compute everything that is stored, from the files and the request. Blocking."""
    if request.skill_md and request.skill_md.strip():
        bundle = bundle.with_skill_md(request.skill_md)
    manifest = parse_manifest(bundle.skill_md, folder=bundle.folder, overrides=request.manifest or {})
    return PreparedSkill(manifest, risk_report(manifest, bundle), context_of(bundle), pack(bundle), len(bundle.files))


def to_item(skill: Skill) -> SkillItem:
    row, version = skill
    manifest = Manifest.model_validate(version.manifest)
    return SkillItem(
        id=row.id,
        slug=row.slug,
        name=manifest.name,
        description=manifest.description,
        version=manifest.version,
        source_type="local" if row.source_type == "local" else "github",
        source_ref=row.source_ref,
        runtime_type=manifest.runtime_type,
        enabled=row.enabled,
        installed_by=str(row.installed_by) if row.installed_by else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        bundle_file_count=version.file_count,
        context_ref_count=version.reference_count,
        last_sync_at=row.last_sync_at.isoformat() if row.last_sync_at else None,
        digest=version.digest,
        risk=RiskReport.model_validate(version.risk),
    )
