"""A session's skills are pinned at its first message and copied into its sandbox, the most relevant first."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from moorage_api.clock import utc_now
from moorage_api.database import Database, create_database, create_engine
from moorage_api.objects.keys import skill_archive_key
from moorage_api.skill_runs.sync import NOT_YET, SkillSync
from moorage_api.skills.pins import SessionSkills
from moorage_api.skills.store import SkillArchives
from moorage_api.wiring.resources import blobs_of
from support.accounts import data
from support.gate import FakeBox, Gate, running_gate
from support.skills import brand_report, skill_md, write_skill
from support.waiting import HANG_SECONDS

from .conftest import Admin, SkillApi


@pytest.fixture
async def db(skill_api: SkillApi) -> AsyncIterator[Database]:
    engine = create_engine(skill_api.platform.database_url)
    db = create_database(engine)
    yield db
    await db.close()
    await engine.dispose()


@pytest.fixture
def sessions(db: Database) -> SessionSkills:
    return SessionSkills(db, utc_now)


@pytest.fixture
async def session_id(boss: Admin) -> UUID:
    return UUID(await boss.person.create_session())


@pytest.fixture
def folder(skill_api: SkillApi, tmp_path: Path) -> Path:
    return skill_api.roots / tmp_path.name


async def install(boss: Admin, folder: Path, *names: str, description: str = "Does it.") -> None:
    for name in names:
        source = write_skill(folder / name, {"SKILL.md": skill_md(name, description).encode()})
        await boss.install_skill("local", source)


async def test_the_twelve_most_relevant_skills_are_initial(
    boss: Admin, folder: Path, sessions: SessionSkills, session_id: UUID
) -> None:
    await install(boss, folder, *(f"skill-{number:02}" for number in range(14)))
    await install(boss, folder, "zebra-report", description="Counts zebras.")
    owner = UUID(boss.person.id)
    data(await boss.person.client.post("/api/v2/skills/skill-03/enabled", json={"enabled": False}))
    await sessions.pin(session_id, owner, message="How many zebras are there?")
    pins = await sessions.pins_for(session_id)
    assert [pin.phase for pin in pins] == ["initial"] * 12 + ["backfill"] * 2
    assert pins[0].id.startswith("zebra-report--")
    assert [pin.id[:8] for pin in pins[1:4]] == ["skill-00", "skill-01", "skill-02"]
    assert not any(pin.id.startswith("skill-03") for pin in pins)
    assert pins[0].digest == f"sha256:{(await boss.skills())['zebra-report']['digest']}"


async def test_a_session_keeps_its_versions_and_gets_no_new_skills(
    boss: Admin, folder: Path, sessions: SessionSkills, session_id: UUID
) -> None:
    await install(boss, folder, "one", "two")
    owner = UUID(boss.person.id)
    await asyncio.gather(*(sessions.pin(session_id, owner, message=f"message {number}") for number in range(5)))
    before = await sessions.pins_for(session_id)
    await install(boss, folder, "one", "three", description="Another version.")
    await sessions.pin(session_id, owner, message="three")
    assert await sessions.pins_for(session_id) == before
    usable = {skill.manifest.slug: skill for skill in await sessions.list_usable(session_id, owner)}
    assert sorted(usable) == ["one", "two"]
    assert usable["one"].manifest.description == "Does it."
    data(await boss.person.client.post("/api/v2/skills/one/enabled", json={"enabled": False}))
    data(await boss.person.client.delete("/api/v2/skills/two"))
    assert await sessions.list_usable(session_id, owner) == [], "disabled and deleted skills cannot be used"
    assert await sessions.pins_for(session_id) == before, "skills are never removed from the resource"


async def test_a_session_pinned_without_skills_gets_no_skills_later(
    boss: Admin, folder: Path, sessions: SessionSkills, session_id: UUID
) -> None:
    owner = UUID(boss.person.id)
    await sessions.pin(session_id, owner, message="hello")
    await install(boss, folder, "late")
    await sessions.pin(session_id, owner, message="late")
    assert await sessions.pins_for(session_id) == []
    assert await sessions.pins_for(uuid4()) == []


async def test_a_session_gets_no_skill_that_its_user_has_switched_off(
    boss: Admin, folder: Path, sessions: SessionSkills, session_id: UUID, db: Database
) -> None:
    await install(boss, folder, "one", "two")
    owner = UUID(boss.person.id)
    await sessions.pin(session_id, owner, message="hello")
    await db.fetch(
        "INSERT INTO tool_preferences (user_id, kind, tool_id, enabled) VALUES ($1, 'skill', $2, false)",
        owner,
        (await boss.skills())["one"]["id"],
    )
    assert [skill.manifest.slug for skill in await sessions.list_usable(session_id, owner)] == ["two"]
    another = UUID(await boss.person.create_session())
    await sessions.pin(another, owner, message="hello")
    assert [pin.id[:3] for pin in await sessions.pins_for(another)] == ["two"]


@pytest.fixture
async def pair(short_directory: Path) -> AsyncIterator[tuple[Gate, FakeBox]]:
    async with running_gate(short_directory) as pair:
        yield pair


async def test_only_skills_that_a_sandbox_does_not_have_are_sent(
    boss: Admin,
    folder: Path,
    sessions: SessionSkills,
    session_id: UUID,
    pair: tuple[Gate, FakeBox],
    skill_api: SkillApi,
) -> None:
    gate, box = pair
    await boss.install_skill("local", write_skill(folder / "brand-report", brand_report()))
    await install(boss, folder, "lost", "two")
    owner = UUID(boss.person.id)
    await sessions.pin(session_id, owner, message="brand report")
    skills = await sessions.list_usable(session_id, owner)
    store = blobs_of(skill_api.platform.settings())
    lost = next(skill for skill in skills if skill.manifest.slug == "lost")
    await store.put(skill_archive_key(lost.digest), b"damaged", content_type="application/gzip")
    archives = SkillArchives(store, folder / "cache")
    async with gate.client() as client:
        await client.bind()
        sync = SkillSync(skills, archives, sessions)
        assert await sync.problem_with(skills[0].id, seconds=5) == NOT_YET, "the sync has not started"
        sync.start(client)
        problems = {skill.manifest.slug: await sync.problem_with(skill.id, seconds=HANG_SECONDS) for skill in skills}
        assert (problems["brand-report"], problems["two"]) == ("", "")
        assert "damaged" in problems["lost"]
        assert {skill_id: hashlib.sha256(box.files[skill_id]).hexdigest() for skill_id in box.skills} == box.skills
        assert sync.sent_bytes == sum(len(content) for content in box.files.values())
        await sync.stop()
        synced = {slug: skill["last_sync_at"] is not None for slug, skill in (await boss.skills()).items()}
        assert synced == {"brand-report": True, "two": True, "lost": False}, (
            "a stop does not lose the sync time of copied skills"
        )
        box.files.clear()
        again = SkillSync([skill for skill in skills if skill is not lost], archives, sessions)
        again.start(client)
        assert [await again.problem_with(skill_id, seconds=HANG_SECONDS) for skill_id in box.skills] == ["", ""]
        assert (again.sent_bytes, box.files) == (0, {})
        box.skills.clear()
        again.start(client)
        assert await again.problem_with(skills[0].id, seconds=HANG_SECONDS) == "", "a new sandbox gets all skills again"
        await again.wait_until_finished()
        assert box.files
    await store.close()
