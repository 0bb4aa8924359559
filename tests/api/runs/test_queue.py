"""A run is held by at most one runner. When that runner dies, another one takes the run over at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from sqlalchemy import text

from moorage_api.database import uuid7
from moorage_api.errors import FencedError
from moorage_api.events.schemas import DoneEvent, TitleEvent, WaitEvent
from moorage_api.runner.journal import UnreadMessagesError, open_journal
from moorage_api.runs import queue
from moorage_api.runs.queue import LeasedRun
from moorage_api.sessions.repository import create_session
from moorage_api.sessions.service import SessionService
from moorage_api.settings import Settings
from moorage_api.users.account import Account
from moorage_api.users.repository import UserRepository
from moorage_api.wiring.resources import Resources, open_resources
from support.waiting import HANG_SECONDS


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings, issuer="runner") as resources:
        yield resources


@pytest.fixture
async def alice(resources: Resources) -> Account:
    async with resources.db.begin() as tx:
        return await UserRepository(tx).add(uuid7(), username="alice", email=None, password_hash="", nickname="")


@pytest.fixture
def sessions(resources: Resources) -> SessionService:
    return SessionService(resources.db, resources.hub, resources.redis, resources.sandboxes, resources.blobs)


@pytest.fixture
async def session_id(resources: Resources, alice: Account) -> UUID:
    session_id = uuid7()
    await create_session(resources.db, session_id, owner_id=alice.id)
    return session_id


@asynccontextmanager
async def runner_alive(resources: Resources, number: int) -> AsyncIterator[None]:
    """Hold the advisory lock of a runner, as a living runner process does."""
    async with resources.engine.connect() as connection:
        await connection.execute(
            text("SELECT pg_advisory_lock(:lock_class, :number)"),
            {"lock_class": queue.RUNNER_LOCK_CLASS, "number": number},
        )
        await connection.commit()
        try:
            yield
        finally:
            await connection.invalidate()


async def claim(resources: Resources, *, runner: int = 1, lease_seconds: float = 15) -> LeasedRun | None:
    async with resources.db.begin() as tx:
        return await queue.claim(tx, runner_lock=runner, lease_seconds=lease_seconds)


async def claim_queued_run(resources: Resources, *, runner: int = 1, lease_seconds: float = 15) -> LeasedRun:
    run = await claim(resources, runner=runner, lease_seconds=lease_seconds)
    assert run is not None
    return run


async def say(sessions: SessionService, session_id: UUID, alice: Account, message: str = "hi") -> int:
    return (await sessions.post_message(session_id, reader=alice, message=message, attachments=[])).seq


async def test_only_one_of_many_runners_gets_the_run(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        claims = await asyncio.gather(*(claim(resources) for _ in range(8)))
    assert sum(run is not None for run in claims) == 1


async def test_the_run_of_a_living_runner_cannot_be_claimed(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        await claim_queued_run(resources)
        assert await claim(resources, runner=2) is None


async def test_the_run_of_a_dead_runner_can_be_claimed_at_once_and_its_late_writes_are_refused(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        first = await claim_queued_run(resources, runner=1)
        journal = await open_journal(resources.db, resources.hub, first)
        await journal.record(TitleEvent(title="first"), messages=[{"role": "user", "content": "hi"}], state={"n": 1})
    async with asyncio.timeout(HANG_SECONDS):
        while (second := await claim(resources, runner=2)) is None:
            await asyncio.sleep(0.01)
    assert (second.id, second.epoch, second.attempts) == (first.id, first.epoch + 1, 2)
    for stale in (
        journal.record(TitleEvent(title="late")),
        journal.record(state={"n": 2}),
        journal.record(DoneEvent()),
    ):
        with pytest.raises(FencedError):
            await stale
    with pytest.raises(FencedError):
        async with resources.db.begin() as tx:
            await queue.renew(tx, first, lease_seconds=15)
    successor = await open_journal(resources.db, resources.hub, second)
    assert (list(successor.transcript), successor.state) == ([{"role": "user", "content": "hi"}], {"n": 1})


async def test_the_run_of_a_hanging_runner_can_be_claimed_when_its_lease_expires(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1), runner_alive(resources, 2):
        await claim_queued_run(resources, lease_seconds=0.2)
        await asyncio.sleep(0.3)
        assert (await claim_queued_run(resources, runner=2)).attempts == 2


async def test_a_message_during_a_run_is_read_by_that_run(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice, "one")
    async with runner_alive(resources, 1):
        journal = await open_journal(resources.db, resources.hub, await claim_queued_run(resources))
        read = await journal.unread_messages()
        await journal.record(consumed_seq=read[-1].seq)
        await say(sessions, session_id, alice, "two")
        assert await claim(resources, runner=2) is None
        with pytest.raises(UnreadMessagesError):
            await journal.record(DoneEvent())
        assert not journal.finished
        more = await journal.unread_messages()
        await journal.record(WaitEvent(), consumed_seq=more[-1].seq)
    assert ([message.text for message in read], [message.text for message in more]) == (["one"], ["two"])
    assert journal.finished
    await say(sessions, session_id, alice, "three")
    assert (await claim_queued_run(resources)).id != journal.run.id


async def test_a_stopped_run_ends_even_with_unread_messages(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        run = await claim_queued_run(resources)
        await sessions.stop(session_id, reader=alice)
        async with resources.db.begin() as tx:
            assert (await queue.renew(tx, run, lease_seconds=15)).stop_requested
        journal = await open_journal(resources.db, resources.hub, run)
        assert journal.stop_requested
        await journal.record(DoneEvent())
        assert journal.finished


async def test_a_stop_ends_a_turn_that_waits_for_the_user(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    """Otherwise the question stays open, and the next "yes" would confirm an action that the user wanted to stop."""
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        journal = await open_journal(resources.db, resources.hub, await claim_queued_run(resources))
        await journal.record(WaitEvent(), consumed_seq=1)
        for _ in range(2):
            await sessions.stop(session_id, reader=alice)
        run = await claim_queued_run(resources)
        assert await claim(resources) is None, "the second stop must not create another run"
        journal = await open_journal(resources.db, resources.hub, run)
        assert journal.stop_requested
        assert await journal.unread_messages() == []
        await journal.record(DoneEvent())
        assert (await sessions.get(session_id, reader=alice)).status == "completed"
        await sessions.stop(session_id, reader=alice)
        assert await claim(resources) is None, "a stop without an active run must not create a run"


async def test_a_message_after_a_stop_is_read_by_the_run_that_the_stop_created(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        journal = await open_journal(resources.db, resources.hub, await claim_queued_run(resources))
        await journal.record(WaitEvent(), consumed_seq=1)
        await sessions.stop(session_id, reader=alice)
        answer = await say(sessions, session_id, alice, "after all")
        journal = await open_journal(resources.db, resources.hub, await claim_queued_run(resources))
        assert not journal.stop_requested
        assert [message.seq for message in await journal.unread_messages()] == [answer]


async def test_a_run_of_a_deleted_session_can_neither_write_nor_be_claimed(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        journal = await open_journal(resources.db, resources.hub, await claim_queued_run(resources))
        await sessions.delete(session_id, reader=alice)
        with pytest.raises(FencedError):
            await journal.record(TitleEvent(title="late"))
        assert await claim(resources, runner=2) is None


async def test_a_failed_record_stores_nothing(
    resources: Resources, sessions: SessionService, session_id: UUID, alice: Account
) -> None:
    await say(sessions, session_id, alice)
    async with runner_alive(resources, 1):
        journal = await open_journal(resources.db, resources.hub, await claim_queued_run(resources))
        await say(sessions, session_id, alice, "again")
        with pytest.raises(UnreadMessagesError):
            await journal.record(
                TitleEvent(title="t"), DoneEvent(), messages=[{"role": "user", "content": "x"}], state={"n": 1}
            )
        assert (list(journal.transcript), journal.state) == ([], {})
        assert await sessions.last_seq(session_id) == 2
