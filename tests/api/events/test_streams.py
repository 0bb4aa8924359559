"""Streams deliver every event once and in order, even if Redis loses messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import pytest
from sqlalchemy import text

from moorage_api.database import uuid7
from moorage_api.events import log
from moorage_api.events.follow import Idle, Partial, follow_session
from moorage_api.events.log import StoredEvent
from moorage_api.events.schemas import TitleEvent
from moorage_api.sessions.repository import create_session
from moorage_api.settings import Settings
from moorage_api.users.repository import UserRepository
from moorage_api.wiring.resources import Resources, open_resources
from support.services import Services
from support.waiting import HANG_SECONDS, until

POLL_SECONDS = 0.3


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(
        settings.model_copy(update={"stream_poll_seconds": POLL_SECONDS}), issuer="api"
    ) as resources:
        yield resources


@pytest.fixture
async def ids(resources: Resources) -> tuple[UUID, UUID]:
    """A user and a session of theirs."""
    user_id, session_id = uuid7(), uuid7()
    async with resources.db.begin() as tx:
        await UserRepository(tx).add(user_id, username="alice", email=None, password_hash="", nickname="")
    await create_session(resources.db, session_id, owner_id=user_id)
    return user_id, session_id


async def say(resources: Resources, session_id: UUID, *titles: str, publish: bool = True) -> None:
    async with resources.db.begin() as tx:
        stored = await log.append(tx, session_id, [TitleEvent(title=title) for title in titles])
    if publish:
        await resources.hub.publish(stored)


async def collect(resources: Resources, ids: tuple[UUID, UUID], *, after: int, until: int) -> list[int]:
    """Follow from `after` until seq `until` is delivered; return the delivered seqs."""
    seen = []
    following = follow_session(resources.hub, resources.db, ids[1], user_id=ids[0], after=after, heartbeat_seconds=5)
    async with asyncio.timeout(HANG_SECONDS), aclosing(following):
        async for item in following:
            if isinstance(item, StoredEvent):
                seen.append(item.seq)
                if item.seq >= until:
                    break
    return seen


async def test_streams_from_any_cursor_deliver_every_event_once(resources: Resources, ids: tuple[UUID, UUID]) -> None:
    await say(resources, ids[1], *"abcdefghij")
    streams = [asyncio.create_task(collect(resources, ids, after=after, until=60)) for after in (0, 3, 10, 25)]
    for number in range(25):
        await say(resources, ids[1], f"{number}", f"{number}+", publish=number % 3 != 0)
    assert await asyncio.gather(*streams) == [list(range(after + 1, 61)) for after in (0, 3, 10, 25)]


async def test_events_that_were_never_published_are_delivered_by_polling(
    resources: Resources, ids: tuple[UUID, UUID]
) -> None:
    stream = asyncio.create_task(collect(resources, ids, after=0, until=2))
    await asyncio.sleep(0.05)
    await say(resources, ids[1], "a", "b", publish=False)
    assert await stream == [1, 2]


async def test_events_published_out_of_order_arrive_in_order(resources: Resources, ids: tuple[UUID, UUID]) -> None:
    stream = asyncio.create_task(collect(resources, ids, after=0, until=3))
    await asyncio.sleep(0.05)
    async with resources.db.begin() as tx:
        stored = await log.append(tx, ids[1], [TitleEvent(title=title) for title in "abc"])
    for event in (stored[2], stored[0], stored[1], stored[0]):
        await resources.hub.publish([event])
    assert await stream == [1, 2, 3]


async def test_a_slow_reader_loses_nothing(resources: Resources, ids: tuple[UUID, UUID]) -> None:
    """While the stream does not read, more events are published than its queue holds."""
    following = follow_session(resources.hub, resources.db, ids[1], user_id=ids[0], after=0, heartbeat_seconds=5)
    await say(resources, ids[1], "first")
    async with aclosing(following):
        first = await anext(following)
        assert isinstance(first, StoredEvent)
        for number in range(40):
            await say(resources, ids[1], *(f"{number}.{part}" for part in range(10)))
        seen = [first.seq]
        while seen[-1] < 401:
            event = await asyncio.wait_for(anext(following), HANG_SECONDS)
            assert isinstance(event, StoredEvent)
            seen.append(event.seq)
    assert seen == list(range(1, 402))


async def test_the_text_of_a_growing_message_is_delivered(resources: Resources, ids: tuple[UUID, UUID]) -> None:
    await say(resources, ids[1], "first")
    following = follow_session(resources.hub, resources.db, ids[1], user_id=ids[0], after=0, heartbeat_seconds=5)
    async with aclosing(following):
        await anext(following)
        await resources.hub.publish_partial(ids[1], {"stream_id": "m1", "message": "He"})
        await resources.hub.publish_partial(ids[1], {"stream_id": "m1", "message": "Hello"})
        shown = await asyncio.wait_for(anext(following), HANG_SECONDS)
        assert isinstance(shown, Partial)
        assert shown.data["message"] in ("He", "Hello")
        assert shown.last_seq == 1


async def test_a_banned_users_stream_ends(resources: Resources, ids: tuple[UUID, UUID]) -> None:
    async def follow() -> None:
        async for item in follow_session(
            resources.hub, resources.db, ids[1], user_id=ids[0], after=0, heartbeat_seconds=5
        ):
            assert isinstance(item, Idle)

    stream = asyncio.create_task(follow())
    await asyncio.sleep(0.5)
    assert not stream.done()
    async with resources.db.begin() as tx:
        await tx.execute(text("UPDATE users SET status = 'banned'"))
    await asyncio.wait_for(stream, HANG_SECONDS)


async def test_all_idle_list_streams_together_cost_one_query_per_poll(
    resources: Resources, ids: tuple[UUID, UUID]
) -> None:
    async with asyncio.TaskGroup() as group:
        held = asyncio.Event()

        async def hold() -> None:
            async with resources.hub.follow_user(ids[0]):
                await held.wait()

        for _ in range(200):
            group.create_task(hold())
        await until(lambda: resources.hub.polls > 0, "the hub polls")
        before, began = resources.hub.polls, time.monotonic()
        await until(lambda: resources.hub.polls - before >= 4, "the hub polls again and again")
        polls, seconds = resources.hub.polls - before, time.monotonic() - began
        held.set()
    assert polls <= seconds / POLL_SECONDS + 2, "one poll for all streams, not one for each"


async def test_streams_survive_a_restart_of_redis(
    resources: Resources, ids: tuple[UUID, UUID], services: Services
) -> None:
    stream = asyncio.create_task(collect(resources, ids, after=0, until=3))
    await say(resources, ids[1], "before")
    assert services.valkey.child is not None
    services.valkey.child.kill()
    await services.valkey.child.wait()
    try:
        await say(resources, ids[1], "while it is away")
        await asyncio.sleep(0.5)
    finally:
        await services.valkey.start()
    await say(resources, ids[1], "after")
    assert await stream == [1, 2, 3]


async def test_a_cancelled_follower_ends_even_if_redis_answers_at_that_moment(resources: Resources) -> None:
    """If Redis's confirmation swallowed the cancellation, a stream that has no reader would keep its lease."""

    async def follow() -> None:
        async with resources.hub.follow_user(uuid7()):
            await asyncio.Event().wait()

    for number in range(400):
        follower = asyncio.create_task(follow())
        for _ in range(number % 40):
            await asyncio.sleep(0)
        follower.cancel()
        await asyncio.wait({follower}, timeout=HANG_SECONDS)
        assert follower.done()
        assert follower.cancelled()
