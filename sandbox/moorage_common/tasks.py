"""Run several coroutines side by side until the first of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")


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


def get_error(task: asyncio.Task[Any]) -> BaseException | None:
    """The exception that a task which has ended raised; None if it returned or was cancelled."""
    return None if task.cancelled() else task.exception()
