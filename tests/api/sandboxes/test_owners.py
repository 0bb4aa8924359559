"""Behaviour of every implementation of `Sandboxes`. Each test runs with the local host and with a cluster."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from moorage_api.errors import UnavailableError
from moorage_sandbox.protocol import GateError
from support.waiting import until

from .conftest import Home, ReportedStates

OWNER = uuid4()

pytestmark = pytest.mark.timeout(15 * 60)


async def test_register_and_find_start_no_sandbox(home: Home, session_id: UUID) -> None:
    await home.sandboxes.register(session_id, owner_id=OWNER)
    await home.other.register(session_id, owner_id=OWNER)
    assert await home.sandboxes.find(session_id) is None
    assert await home.other.find(session_id) is None
    assert await home.sandboxes.suspend(session_id) is False


async def test_ensure_creates_a_sandbox_whose_gate_accepts_the_session(
    home: Home, session_id: UUID, reported: ReportedStates
) -> None:
    await home.sandboxes.register(session_id, owner_id=OWNER)
    sandbox = await home.sandboxes.ensure(session_id, owner_id=OWNER, report=reported.report)
    assert (reported.phases[0], reported.phases[-1]) == ("starting", "ready")
    assert "failed" not in reported.phases
    async with home.client(sandbox, session_id) as client:
        await client.bind()
    async with home.client(sandbox, session_id, uid=str(uuid4())) as stranger:
        with pytest.raises(GateError):
            await stranger.bind()


async def test_ensure_works_for_a_session_that_was_never_registered(home: Home, session_id: UUID) -> None:
    assert await home.sandboxes.ensure(session_id, owner_id=OWNER)


async def test_two_simultaneous_replicas_get_the_same_sandbox(home: Home, session_id: UUID) -> None:
    await home.sandboxes.register(session_id, owner_id=OWNER)
    first, second = await asyncio.gather(
        home.sandboxes.ensure(session_id, owner_id=OWNER), home.other.ensure(session_id, owner_id=OWNER)
    )
    assert first == second == await home.sandboxes.ensure(session_id, owner_id=OWNER)

    async def is_seen() -> bool:
        return await home.other.find(session_id) == first

    await until(is_seen, "the other replica finds it")


async def test_after_a_suspension_ensure_creates_another_sandbox(home: Home, session_id: UUID) -> None:
    first = await home.sandboxes.ensure(session_id, owner_id=OWNER)
    assert await home.other.suspend(session_id) is True
    assert await home.other.suspend(session_id) is False

    async def is_gone() -> bool:
        return await home.sandboxes.find(session_id) is None

    await until(is_gone, "it is not found any more")
    assert (await home.sandboxes.ensure(session_id, owner_id=OWNER)).uid != first.uid


async def test_a_sandbox_can_be_deleted_twice(home: Home, session_id: UUID) -> None:
    first = await home.sandboxes.ensure(session_id, owner_id=OWNER)
    await home.sandboxes.delete(session_id)
    await home.other.delete(session_id)

    async def is_gone() -> bool:
        return await home.sandboxes.find(session_id) is None

    await until(is_gone, "it is not found any more")
    assert (await home.other.ensure(session_id, owner_id=OWNER)).uid != first.uid


async def test_an_unreachable_host_or_cluster_is_reported(
    home: Home, session_id: UUID, reported: ReportedStates
) -> None:
    with pytest.raises(UnavailableError):
        await home.away.ensure(session_id, owner_id=OWNER, report=reported.report)
    assert reported.phases[-1] == "failed"
    assert reported[-1].reason
    await home.sandboxes.ping()
    for asked in (
        home.away.find(session_id),
        home.away.suspend(session_id),
        home.away.delete(session_id),
        home.away.ping(),
    ):
        with pytest.raises(UnavailableError):
            await asked
    assert await home.away.find_unregistered([session_id]) == []
