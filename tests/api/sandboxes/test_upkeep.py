"""Periodic upkeep by runners: register sessions whose registration failed, suspend idle sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import text

from moorage_api.database import uuid7
from moorage_api.errors import UnavailableError
from moorage_api.sandboxes.provider import Report, Sandbox, report_nothing
from moorage_api.sandboxes.upkeep import Upkeep
from moorage_api.sessions.repository import create_session
from moorage_api.settings import Settings
from moorage_api.wiring.resources import Resources, open_resources
from moorage_crds.types import SkillPin


@dataclass
class MemorySandboxes:
    """An implementation of `Sandboxes` in memory."""

    known: set[UUID] = field(default_factory=set)
    live: set[UUID] = field(default_factory=set)
    is_away: bool = False
    refused: set[UUID] = field(default_factory=set)

    async def register(self, session_id: UUID, *, owner_id: UUID) -> None:
        self._answer()
        if session_id in self.refused:
            raise UnavailableError("not this one")
        self.known.add(session_id)

    async def ensure(
        self,
        session_id: UUID,
        *,
        owner_id: UUID,
        skills: Sequence[SkillPin] = (),
        report: Report = report_nothing,
    ) -> Sandbox:
        self._answer()
        self.live.add(session_id)
        return Sandbox(str(session_id), "http://127.0.0.1:9")

    async def find(self, session_id: UUID) -> Sandbox | None:
        return Sandbox(str(session_id), "http://127.0.0.1:9") if session_id in self.live else None

    async def ping(self) -> None:
        self._answer()

    async def suspend(self, session_id: UUID) -> bool:
        self._answer()
        was_live = session_id in self.live
        self.live.discard(session_id)
        return was_live

    async def delete(self, session_id: UUID) -> None:
        self._answer()
        self.live.discard(session_id)

    async def find_unregistered(self, sessions: Sequence[UUID]) -> Sequence[UUID]:
        return [one for one in sessions if one not in self.known]

    def _answer(self) -> None:
        if self.is_away:
            raise UnavailableError("the cluster does not answer")


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings, issuer="api") as opened:
        yield opened


def id_made(seconds_ago: int) -> UUID:
    new = uuid7().int
    return UUID(int=new - ((seconds_ago * 1000) << 80))


async def session(resources: Resources, *, made_seconds_ago: int = 60) -> UUID:
    owner_id, session_id = uuid7(), id_made(made_seconds_ago)
    async with resources.db.begin() as tx:
        await tx.execute(
            text("INSERT INTO users (id, username) VALUES (:id, :name)"),
            {"id": owner_id, "name": str(owner_id)[-20:]},
        )
    await create_session(resources.db, session_id, owner_id=owner_id)
    return session_id


async def store_run(resources: Resources, session_id: UUID, *, status: str, ended_seconds_ago: int) -> None:
    """Store a run that used the sandbox."""
    async with resources.db.begin() as tx:
        await tx.execute(
            text(
                """
                INSERT INTO runs (id, session_id, first_seq, inbox_seq, status, finished_at)
                VALUES (:id, :session, 1, 1, CAST(:status AS text),
                    CASE WHEN CAST(:status AS text) <> 'running' THEN now() - make_interval(secs => :ago) END)
                """
            ),
            {"id": uuid7(), "session": session_id, "status": status, "ago": ended_seconds_ago},
        )
        await tx.execute(
            text(
                "INSERT INTO session_sandboxes (session_id, uid, since_seq) VALUES (:id, 'u', 0) "
                "ON CONFLICT (session_id) DO UPDATE SET suspended_at = NULL"
            ),
            {"id": session_id},
        )


async def suspended_events(resources: Resources, session_id: UUID) -> int:
    async with resources.db() as tx:
        found = await tx.scalar(
            text("SELECT count(*) FROM events WHERE session_id = :id AND data->>'phase' = 'suspended'"),
            {"id": session_id},
        )
    return int(found or 0)


async def test_a_failed_registration_is_repeated_later(resources: Resources) -> None:
    recent, new, old = [await session(resources, made_seconds_ago=ago) for ago in (60, 1, 3 * 24 * 3600)]
    owner = MemorySandboxes(is_away=True)
    upkeep = Upkeep(resources.db, resources.hub, owner, idle_seconds=0)
    await upkeep.register_missing()
    assert owner.known == set()
    owner.is_away = False
    await upkeep.register_missing()
    assert owner.known == {recent}
    assert {new, old} & owner.known == set()


async def test_a_refused_registration_does_not_block_the_others(resources: Resources) -> None:
    older, refused, newer = [await session(resources, made_seconds_ago=ago) for ago in (90, 60, 30)]
    owner = MemorySandboxes(refused={refused})
    await Upkeep(resources.db, resources.hub, owner, idle_seconds=0).register_missing()
    assert owner.known == {older, newer}


async def test_idle_sandboxes_are_suspended_once_and_busy_ones_are_not(resources: Resources) -> None:
    idle, busy, just_used = [await session(resources) for _ in range(3)]
    await store_run(resources, idle, status="done", ended_seconds_ago=100)
    await store_run(resources, busy, status="done", ended_seconds_ago=100)
    await store_run(resources, busy, status="running", ended_seconds_ago=0)
    await store_run(resources, just_used, status="waiting", ended_seconds_ago=10)
    owner = MemorySandboxes(live={idle, busy, just_used})

    await Upkeep(resources.db, resources.hub, owner, idle_seconds=0).suspend_idle()
    assert owner.live == {idle, busy, just_used}

    owner.is_away = True
    two = [Upkeep(resources.db, resources.hub, owner, idle_seconds=60) for _ in range(2)]
    await two[0].suspend_idle()
    assert await suspended_events(resources, idle) == 0
    owner.is_away = False
    for upkeep in two:
        await upkeep.suspend_idle()
    assert owner.live == {busy, just_used}
    assert [await suspended_events(resources, one) for one in (idle, busy, just_used)] == [1, 0, 0]
