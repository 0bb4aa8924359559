"""What holds of every owner of sandboxes, asked of both."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from moorage_api.errors import UnavailableError
from moorage_sandbox.protocol import GateError
from support.waiting import until

from .conftest import Heard, Home

OWNER = uuid4()

pytestmark = pytest.mark.timeout(15 * 60)


async def test_registering_and_looking_start_nothing(home: Home, session_id: UUID) -> None:
    await home.sandboxes.register(session_id, owner_id=OWNER)
    await home.other.register(session_id, owner_id=OWNER)
    assert await home.sandboxes.find(session_id) is None
    assert await home.other.find(session_id) is None
    assert await home.sandboxes.suspend(session_id) is False


async def test_the_first_need_makes_a_sandbox_whose_gate_takes_the_session(
    home: Home, session_id: UUID, heard: Heard
) -> None:
    await home.sandboxes.register(session_id, owner_id=OWNER)
    sandbox = await home.sandboxes.ensure(session_id, owner_id=OWNER, report=heard.report)
    assert (heard.phases[0], heard.phases[-1]) == ("starting", "ready")
    assert "failed" not in heard.phases
    async with home.client(sandbox, session_id) as client:
        await client.bind()
    async with home.client(sandbox, session_id, uid=str(uuid4())) as stranger:
        with pytest.raises(GateError):
            await stranger.bind()


async def test_a_session_that_was_never_registered_gets_one_too(home: Home, session_id: UUID) -> None:
    assert await home.sandboxes.ensure(session_id, owner_id=OWNER)


async def test_two_replicas_at_once_get_the_same_one(home: Home, session_id: UUID) -> None:
    await home.sandboxes.register(session_id, owner_id=OWNER)
    first, second = await asyncio.gather(
        home.sandboxes.ensure(session_id, owner_id=OWNER), home.other.ensure(session_id, owner_id=OWNER)
    )
    assert first == second == await home.sandboxes.ensure(session_id, owner_id=OWNER)

    async def is_seen() -> bool:
        return await home.other.find(session_id) == first

    await until(is_seen, "the other replica finds it")


async def test_a_suspended_one_is_gone_and_the_next_need_makes_another(home: Home, session_id: UUID) -> None:
    first = await home.sandboxes.ensure(session_id, owner_id=OWNER)
    assert await home.other.suspend(session_id) is True
    assert await home.other.suspend(session_id) is False

    async def is_gone() -> bool:
        return await home.sandboxes.find(session_id) is None

    await until(is_gone, "it is not found any more")
    assert (await home.sandboxes.ensure(session_id, owner_id=OWNER)).uid != first.uid


async def test_a_deleted_one_is_gone_and_deleting_again_is_fine(home: Home, session_id: UUID) -> None:
    first = await home.sandboxes.ensure(session_id, owner_id=OWNER)
    await home.sandboxes.delete(session_id)
    await home.other.delete(session_id)

    async def is_gone() -> bool:
        return await home.sandboxes.find(session_id) is None

    await until(is_gone, "it is not found any more")
    assert (await home.other.ensure(session_id, owner_id=OWNER)).uid != first.uid


async def test_an_owner_that_is_away_is_said_to_be(home: Home, session_id: UUID, heard: Heard) -> None:
    with pytest.raises(UnavailableError):
        await home.away.ensure(session_id, owner_id=OWNER, report=heard.report)
    assert heard.phases[-1] == "failed"
    assert heard[-1].reason
    await home.sandboxes.ping()
    for asked in (
        home.away.find(session_id),
        home.away.suspend(session_id),
        home.away.delete(session_id),
        home.away.ping(),
    ):
        with pytest.raises(UnavailableError):
            await asked
    assert await home.away.unregistered([session_id]) == []
