"""The race of tasks that every process uses."""

from __future__ import annotations

import asyncio

import pytest

from moorage_common.tasks import end_tasks, get_error, race


async def wait_for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")


async def answer(value: int) -> int:
    return value


async def fail() -> None:
    raise LookupError("broken")


async def test_the_first_to_end_is_done_in_the_block_and_the_other_is_cancelled_behind_it() -> None:
    ended: list[str] = []
    async with race(answer(7), wait_for_ever(ended)) as (quick, slow):
        assert quick.result() == 7
        assert not slow.done()
    assert slow.cancelled()
    assert ended == ["cancelled"]


async def test_an_error_of_a_task_is_kept_for_the_caller_to_read() -> None:
    async with race(fail(), wait_for_ever([])) as (failing, waiting):
        pass
    assert isinstance(get_error(failing), LookupError)
    assert get_error(waiting) is None


async def test_when_the_time_is_over_no_task_is_done() -> None:
    async with race(wait_for_ever([]), wait_for_ever([]), timeout_seconds=0.01) as tasks:
        assert not any(task.done() for task in tasks)
    assert all(task.cancelled() for task in tasks)


async def test_cancelling_the_caller_cancels_every_task() -> None:
    ended: list[str] = []

    async def run() -> None:
        async with race(wait_for_ever(ended), wait_for_ever(ended)):
            raise AssertionError("no task has ended")

    caller = asyncio.create_task(run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["cancelled", "cancelled"]


async def test_a_task_that_swallows_its_first_cancellation_ends_all_the_same() -> None:
    cancellations = 0

    async def work() -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end_tasks([task], again_seconds=0.01)
    assert task.done()
    assert cancellations == 2
