"""Run several coroutines side by side until the first of them ends, and end tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")

CANCEL_AGAIN_SECONDS = 5.0


@overload
def race(
    first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B], /, *, timeout_seconds: float | None = None
) -> AbstractAsyncContextManager[tuple[asyncio.Task[A], asyncio.Task[B]]]: ...


@overload
def race(
    *coroutines: Coroutine[Any, Any, A], timeout_seconds: float | None = None
) -> AbstractAsyncContextManager[tuple[asyncio.Task[A], ...]]: ...


def race(*coroutines: Coroutine[Any, Any, Any], timeout_seconds: float | None = None) -> Any:
    """Start `coroutines` as tasks and wait until one of them ends, or until `timeout_seconds` have passed.

    The block under `async with` then runs; in it `task.done()` tells which task ended first. When the block is left,
    and also when the caller is cancelled while it waits, the tasks that still run are cancelled and awaited. Errors of
    the tasks are not raised here: call `result()`, or `get_error` after the block.
    """
    return _race(coroutines, timeout_seconds)


@asynccontextmanager
async def _race(
    coroutines: tuple[Coroutine[Any, Any, Any], ...], timeout_seconds: float | None
) -> AsyncIterator[tuple[asyncio.Task[Any], ...]]:
    tasks = tuple(asyncio.create_task(coroutine) for coroutine in coroutines)
    try:
        await asyncio.wait(tasks, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def end_tasks(tasks: Collection[asyncio.Future[Any]], *, again_seconds: float = CANCEL_AGAIN_SECONDS) -> None:
    """Cancel the tasks and wait until all have ended. Their errors are not raised.

    A library can swallow a cancellation that arrives at the moment of a result, and a task that works in a loop then
    goes on for ever. So what has not ended after `again_seconds` is cancelled again.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_seconds)
    await asyncio.gather(*tasks, return_exceptions=True)


def get_error(task: asyncio.Task[Any]) -> BaseException | None:
    """The exception that a task which has ended raised; None if it returned or was cancelled."""
    return None if task.cancelled() else task.exception()
