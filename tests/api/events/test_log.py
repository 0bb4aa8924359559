"""The log has no gaps, refuses writers with an old epoch, and stores any text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from moorage_api.database import Database, create_database, create_engine, uuid7
from moorage_api.errors import FencedError, NotFoundError
from moorage_api.events.log import append, last_seq, read
from moorage_api.events.schemas import DoneEvent, MessageEvent, TitleEvent
from moorage_api.sessions.repository import create_session
from moorage_api.users.repository import UserRepository


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    engine = create_engine(database_url, pool_size=10)
    db = create_database(engine)
    yield db
    await db.close()
    await engine.dispose()


@pytest.fixture
async def session_id(db: Database) -> UUID:
    user_id, session_id = uuid7(), uuid7()
    async with db.begin() as tx:
        await UserRepository(tx).add(user_id, username="alice", email=None, password_hash="", nickname="")
    await create_session(db, session_id, owner_id=user_id)
    return session_id


async def test_many_writers_leave_no_gap_and_no_reader_sees_one(db: Database, session_id: UUID) -> None:
    writing = True

    async def write(number: int) -> None:
        for turn in range(20):
            async with db.begin() as tx:
                await append(tx, session_id, [TitleEvent(title=f"{number}.{turn}")] * (1 + turn % 3))

    async def watch() -> int:
        cursor = 0
        while writing or cursor < await _last(db, session_id):
            async with db() as tx:
                for event in await read(tx, session_id, after=cursor):
                    assert event.seq == cursor + 1
                    cursor = event.seq
        return cursor

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(write(number) for number in range(7)))
    writing = False
    assert await watching == await _last(db, session_id) == 7 * sum(1 + turn % 3 for turn in range(20))


async def _last(db: Database, session_id: UUID) -> int:
    async with db() as tx:
        return await last_seq(tx, session_id)


async def test_a_rolled_back_append_leaves_no_hole(db: Database, session_id: UUID) -> None:
    async with db.begin() as tx:
        await append(tx, session_id, [DoneEvent()])
        await tx.rollback()
    async with db.begin() as tx:
        stored = await append(tx, session_id, [DoneEvent()])
    assert [event.seq for event in stored] == [1]


async def test_only_the_holder_of_the_epoch_writes(db: Database, session_id: UUID) -> None:
    async with db.begin() as tx:
        await tx.execute(text("UPDATE session_heads SET epoch = 3"))
    for epoch in (2, 4):
        with pytest.raises(FencedError):
            async with db.begin() as tx:
                await append(tx, session_id, [DoneEvent()], epoch=epoch)
    async with db.begin() as tx:
        assert [event.seq for event in await append(tx, session_id, [DoneEvent()], epoch=3)] == [1]
        assert [event.seq for event in await append(tx, session_id, [DoneEvent()])] == [2]


async def test_a_session_that_does_not_exist_has_no_log(db: Database) -> None:
    async with db.begin() as tx:
        with pytest.raises(NotFoundError):
            await append(tx, uuid4(), [DoneEvent()])


@pytest.mark.parametrize("said", ["\x00", "a\ud800b", "\N{GRINNING FACE}", "'; DROP TABLE events; --", "\\u0000", ""])
async def test_any_text_is_kept_or_made_storable(db: Database, session_id: UUID, said: str) -> None:
    async with db.begin() as tx:
        stored = await append(tx, session_id, [MessageEvent(role="assistant", message=said)])
    async with db() as tx:
        read_back = await read(tx, session_id, after=0)
    assert read_back[0].data == stored[0].data
    assert read_back[0].data["message"].isprintable() or said == ""
