"""Claim runs and carry out several at a time. Each run is held under a lease until it ends or the lease is lost."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from moorage_api.database import Database, ping
from moorage_api.errors import FencedError
from moorage_api.events.hub import Hub
from moorage_api.events.schemas import ErrorEvent
from moorage_api.runner.health import CLAIMS, RUNS, Health
from moorage_api.runner.journal import RunJournal, UnreadMessagesError, open_journal
from moorage_api.runner.sweep import Sweep
from moorage_api.runner.turn import Turns
from moorage_api.runs import queue
from moorage_api.runs.queue import LeasedRun
from moorage_common.logging_setup import log_context
from moorage_common.tasks import end_tasks, get_error, race

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Longest time that a queued or orphaned run waits for an idle runner if the wake-up was lost."""


@asynccontextmanager
async def run_in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` in a task while the block runs, then cancel it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end_tasks([task])


class Runner:
    """One runner process. `run()` returns after `stop()` was called and all its runs were released."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        db: Database,
        hub: Hub,
        redis: Redis,
        turns: Turns,
        sweep: Sweep,
        health: Health,
        concurrency: int,
        lease_seconds: float,
    ) -> None:
        self._engine = engine
        self._db = db
        self._hub = hub
        self._redis = redis
        self._turns = turns
        self._sweep = sweep
        self._health = health
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._lock_number = secrets.randbelow(2**31 - 1) + 1
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._journals: dict[UUID, RunJournal] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        async with run_in_background(self._listen()), run_in_background(self._sweep.run()):
            while not self._stopping.is_set():
                try:
                    async with self._hold_lock():
                        await self._claim_until_lost()
                except (SQLAlchemyError, OSError) as error:
                    logger.warning("Could not reach the database; will retry: %s", type(error).__name__)
                    self._health.on_iteration()
                    await self._pause(POLL_SECONDS)
        for task in self._tasks:
            task.cancel()  # this runner's lock is free now, so another runner claims these runs at once
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def _hold_lock(self) -> AsyncIterator[None]:
        """Hold this runner's advisory lock on its own connection. PostgreSQL releases it when the process dies."""
        async with self._engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
            self._lock_connection = connection
            await queue.hold_runner_lock(connection, runner_lock=self._lock_number)
            try:
                yield
            finally:
                await connection.invalidate()  # must not return to the pool, because it still holds the lock

    async def _claim_until_lost(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            while len(self._tasks) < self._concurrency and await self._claim_one():
                pass
            await ping(self._lock_connection)
            self._health.on_database_answered()
            await self._pause(POLL_SECONDS)

    async def _claim_one(self) -> bool:
        async with self._db.begin() as tx:
            run = await queue.claim(tx, runner_lock=self._lock_number, lease_seconds=self._lease_seconds)
        if run is None:
            return False
        with log_context(session_id=str(run.session_id)):  # the task and its callback keep it
            task = asyncio.create_task(self._work_while_leased(run), name=f"run {run.id}")
            self._tasks.add(task)
            task.add_done_callback(self._release)
        CLAIMS.inc()
        RUNS.set(len(self._tasks))
        return True

    def _release(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        RUNS.set(len(self._tasks))
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "A run failed unexpectedly; another runner can claim it when its lease expires", exc_info=error
            )

    async def _work_while_leased(self, run: LeasedRun) -> None:
        """Work on the run while its lease is held, and cancel the work as soon as the lease is lost."""
        try:
            journal = await open_journal(self._db, self._hub, run)
        except FencedError:
            return
        self._journals[run.session_id] = journal
        try:
            async with race(self._work(journal), self._keep_lease(journal)) as tasks:
                pass
        finally:
            self._journals.pop(run.session_id, None)
            await journal.store_left_calls()
        for task in tasks:
            error = get_error(task)
            if error is not None and not isinstance(error, FencedError):
                raise error

    async def _work(self, journal: RunJournal) -> None:
        if journal.run.attempts > queue.MAX_ATTEMPTS:
            message = (
                f"This task was stopped because {queue.MAX_ATTEMPTS} runners in a row could not finish it. "
                "Send a message to try again"
            )
            await journal.record(ErrorEvent(error=message, code="run_abandoned"))
            return
        while not journal.finished:
            with suppress(UnreadMessagesError):
                await self._turns.work_on(journal)

    async def _keep_lease(self, journal: RunJournal) -> None:
        """Renew the lease after each third of its time. Raises FencedError when the lease is lost or has expired."""
        lease_seconds = self._lease_seconds
        held_until = time.monotonic() + lease_seconds
        while True:
            await asyncio.sleep(lease_seconds / 3 if held_until - time.monotonic() > lease_seconds / 2 else 0.5)
            asked_at = time.monotonic()
            try:
                async with asyncio.timeout(lease_seconds / 3), self._db.begin() as tx:
                    journal.apply_signals(await queue.renew(tx, journal.run, lease_seconds=lease_seconds))
                held_until = asked_at + lease_seconds
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                logger.warning("Could not renew the lease of a run; will retry: %s", type(error).__name__)
                if time.monotonic() > held_until:
                    raise FencedError("The lease expired because it could not be renewed") from error

    async def _listen(self) -> None:
        """Wait for Redis messages: a run was queued, or the row of a run has changed. Polling works without them."""
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(queue.WAKE_CHANNEL)
                    await pubsub.psubscribe(queue.control_channel_pattern())
                    while True:
                        message = await pubsub.get_message(timeout=1.0)
                        if message is not None and message["type"] == "message":
                            self._wake.set()
                        elif message is not None and message["type"] == "pmessage":
                            await self._read_signals(UUID(message["channel"].decode().rpartition(":")[2]))
            except (RedisError, OSError, SQLAlchemyError) as error:
                logger.warning("Lost the connection to Redis; polling every second: %s", type(error).__name__)
                await asyncio.sleep(POLL_SECONDS)

    async def _read_signals(self, session_id: UUID) -> None:
        if (journal := self._journals.get(session_id)) is None:
            return
        with suppress(FencedError):  # the lease keeper also notices and ends the run
            async with self._db() as tx:
                journal.apply_signals(await queue.read_signals(tx, journal.run))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for could swallow a cancellation, see events.hub
                await self._wake.wait()
