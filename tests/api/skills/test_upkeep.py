"""Upkeep removes an archive from the object store when no skill and no session needs it, and not earlier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from moorage_api.clock import utc_now
from moorage_api.database import create_database, create_engine, uuid7
from moorage_api.errors import NotFoundError, UnavailableError
from moorage_api.objects.keys import SKILL_ARCHIVES, skill_archive_key
from moorage_api.outbound import Outbound
from moorage_api.sessions.repository import create_session
from moorage_api.settings import Settings
from moorage_api.skills.pins import SessionSkills
from moorage_api.skills.repository import lock_archives
from moorage_api.skills.schemas import SkillInstallRequest
from moorage_api.skills.service import SkillService, Sources
from moorage_api.skills.store import SkillArchives
from moorage_api.skills.upkeep import SkillUpkeep
from moorage_api.users.models import UserRow
from moorage_api.wiring.resources import blobs_of
from support.processes import Platform
from support.skills import skill_md, write_skill
from support.waiting import HANG_SECONDS


@dataclass
class SkillsBench:
    """A separate database and bucket, and the services that use them."""

    settings: Settings
    folder: Path
    owner_id: UUID = field(default_factory=uuid7)

    async def open(self) -> None:
        self.engine = create_engine(self.settings.database_url.get_secret_value())
        self.db = create_database(self.engine)
        self.store = blobs_of(self.settings).in_bucket(f"skills-{uuid4().hex[:8]}")
        await self.store.ensure_bucket()
        sources = Sources((self.folder,), "", Outbound())
        self.service = SkillService(self.db, SkillArchives(self.store, self.folder / "cache"), sources, utc_now)
        self.sessions = SessionSkills(self.db, utc_now)
        async with self.db.begin() as tx:
            tx.add(UserRow(id=self.owner_id, username="alice"))

    async def close(self) -> None:
        await self.db.close()
        await self.engine.dispose()
        await self.store.close()

    async def install(self, name: str, description: str = "Does it.") -> str:
        """Install a skill and return its digest."""
        source = write_skill(self.folder / name, {"SKILL.md": skill_md(name, description).encode()})
        request = SkillInstallRequest.model_validate({"source_type": "local", "source_ref": str(source)})
        return (await self.service.install(request, installed_by=self.owner_id)).digest

    async def pinned_session(self) -> UUID:
        session_id = uuid7()
        await create_session(self.db, session_id, owner_id=self.owner_id)
        await self.sessions.pin(session_id, self.owner_id, message="hello")
        return session_id

    def upkeep(self, *, grace_seconds: float = 0) -> SkillUpkeep:
        return SkillUpkeep(self.db, self.store, utc_now, grace_seconds=grace_seconds)

    async def stored_digests(self) -> set[str]:
        keys = await self.store.keys(SKILL_ARCHIVES, before=datetime.max.replace(tzinfo=utc_now().tzinfo))
        return {key.removeprefix(SKILL_ARCHIVES).removesuffix(".tar.gz") for key in keys}

    async def versions(self) -> set[str]:
        async with self.db() as tx:
            return set(await tx.scalars(text("SELECT digest FROM skill_versions")))


@pytest.fixture
async def bench(settings: Settings, tmp_path: Path) -> AsyncIterator[SkillsBench]:
    bench = SkillsBench(settings, tmp_path)
    await bench.open()
    yield bench
    await bench.close()


async def test_unused_archives_and_versions_are_removed(bench: SkillsBench) -> None:
    first = await bench.install("report")
    session_id = await bench.pinned_session()
    second = await bench.install("report", "Another version.")
    third = await bench.install("report", "The third.")
    await bench.store.put(
        skill_archive_key("f" * 64), b"of an installation that failed", content_type="application/gzip"
    )
    await bench.store.put(f"{SKILL_ARCHIVES}README", b"not ours", content_type="text/plain")
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == {first, third, "README"}, f"neither a skill nor a session uses {second}"
    assert await bench.versions() == {first, third}
    await bench.service.delete("report")
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == {first, "README"}, "the session is pinned to it"
    async with bench.db.begin() as tx:
        await tx.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": session_id})
    await bench.upkeep().remove_unused()
    assert (await bench.stored_digests(), await bench.versions()) == ({"README"}, set())


async def test_nothing_is_removed_before_the_grace_time(bench: SkillsBench) -> None:
    digest = await bench.install("report")
    await bench.service.delete("report")
    await bench.upkeep(grace_seconds=3600).remove_unused()
    assert (await bench.stored_digests(), await bench.versions()) == ({digest}, {digest})
    async with bench.db.begin() as tx:
        await tx.execute(text("UPDATE skill_versions SET unused_since = now() - interval '2 hours'"))
    await bench.upkeep(grace_seconds=3600).remove_unused()
    assert (await bench.stored_digests(), await bench.versions()) == ({digest}, set()), (
        "the object itself is younger than the grace time"
    )


async def test_a_version_that_is_pinned_after_its_skill_was_deleted_is_kept(bench: SkillsBench) -> None:
    """The session reads the versions, the skill is deleted, upkeep marks the version, then the session is pinned."""
    digest = await bench.install("report")
    async with bench.db() as tx:
        version_id = await tx.scalar(text("SELECT version_id FROM skills"))
    await bench.service.delete("report")
    await bench.upkeep(grace_seconds=3600).remove_unused()
    session_id = uuid7()
    await create_session(bench.db, session_id, owner_id=bench.owner_id)
    async with bench.db.begin() as tx:
        await tx.execute(
            text("INSERT INTO session_skills VALUES (:session_id, 0, 'report--x', :version_id, 'initial')"),
            {"session_id": session_id, "version_id": version_id},
        )
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == {digest}
    assert [pin.digest for pin in await bench.sessions.pins_for(session_id)] == [f"sha256:{digest}"]
    async with bench.db() as tx:
        assert await tx.scalar(text("SELECT count(unused_since) FROM skill_versions")) == 0, "the mark is removed"


async def test_an_archive_is_kept_while_one_of_its_two_versions_is_used(bench: SkillsBench) -> None:
    digest = await bench.install("report")
    async with bench.db.begin() as tx:
        await tx.execute(
            text(
                """
                INSERT INTO skill_versions
                    (id, skill_id, digest, manifest, context, risk, file_count, reference_count, unused_since)
                SELECT gen_random_uuid(), skill_id, digest, manifest, context, risk, file_count, reference_count, now()
                FROM skill_versions
                """
            )
        )
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == {digest}
    async with bench.db() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM skill_versions")) == 1


async def test_concurrent_upkeep_and_installations_lose_no_archive(bench: SkillsBench) -> None:
    async def install_and_delete(name: str) -> None:
        for _ in range(8):
            digest = await bench.install(name)
            assert digest in await bench.stored_digests()
            await bench.service.delete(name)
        await bench.install(name)

    async def clean() -> None:
        while not done.is_set():
            await bench.upkeep().remove_unused()

    done = asyncio.Event()
    replicas = [asyncio.create_task(clean()) for _ in range(2)]
    await asyncio.gather(install_and_delete("one"), install_and_delete("two"))
    done.set()
    await asyncio.gather(*replicas)
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == await bench.versions()
    assert len(await bench.stored_digests()) == 2


async def test_no_archive_is_removed_during_an_installation(bench: SkillsBench) -> None:
    await bench.store.put(
        skill_archive_key("f" * 64), b"its version is not stored yet", content_type="application/gzip"
    )
    async with bench.db.begin() as tx:
        await lock_archives(tx)
        await bench.upkeep().remove_unused()
        assert await bench.stored_digests() == {"f" * 64}
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == set()
    with pytest.raises(NotFoundError):
        await bench.store.get(skill_archive_key("f" * 64))


async def test_archives_are_removed_later_if_the_object_store_is_unavailable(
    bench: SkillsBench, settings: Settings
) -> None:
    digest = await bench.install("report")
    await bench.service.delete("report")
    away = blobs_of(settings.model_copy(update={"s3_secret_key": settings.jwt_secret}))
    with pytest.raises(UnavailableError):
        await away.keys(SKILL_ARCHIVES, before=utc_now())
    await SkillUpkeep(bench.db, away, utc_now, grace_seconds=0).remove_unused()
    await away.close()
    assert (await bench.stored_digests(), await bench.versions()) == ({digest}, set())
    await bench.upkeep().remove_unused()
    assert await bench.stored_digests() == set()


async def test_a_runner_removes_unused_versions_periodically(bench: SkillsBench, platform: Platform) -> None:
    digest = await bench.install("report")
    await bench.service.delete("report")
    async with bench.db.begin() as tx:
        await tx.execute(text("UPDATE skill_versions SET unused_since = now() - interval '2 hours'"))
    platform.changes["sweep_seconds"] = 0.1
    await platform.start_runner()
    async with asyncio.timeout(HANG_SECONDS):
        while await bench.versions() == {digest}:
            await asyncio.sleep(0.05)
    assert await bench.versions() == set()
