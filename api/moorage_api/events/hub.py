"""Live delivery: one Redis subscription and one poll for all streams of a process.

Redis carries newly committed events and may lose some of them (a writer is killed between commit and publish, or Redis
is unreachable). Therefore the hub queries the database every `poll_seconds`, once for all open streams: it reads the
newest seq of each session and whether each user still has access. A stream that is behind then reads the log. The log
is the source of truth; Redis only makes delivery fast.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from moorage_api.database import Database
from moorage_api.events.log import StoredEvent, read_watermarks
from moorage_api.events.subscription import GONE, LIST_CHANGED, Subscription, encode_events, encode_partial
from moorage_common.tasks import end_tasks

logger = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT_SECONDS = 1.0
RETRY_SECONDS = 0.5
IDLE_CHANNEL = "moorage:hub"
"""Keeps the subscription connection open while there is no open stream."""


def session_channel(session_id: UUID) -> str:
    return f"moorage:session:{session_id}"


def user_channel(user_id: UUID) -> str:
    return f"moorage:user:{user_id}"


class Hub:
    """Owns the listening and the polling task; use as an async context manager."""

    def __init__(self, redis: Redis, db: Database, *, poll_seconds: float = 2) -> None:
        self._redis = redis
        self._db = db
        self._poll_seconds = poll_seconds
        self._by_channel: dict[str, set[Subscription]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._pubsub: PubSub | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._commands: set[asyncio.Future[None]] = set()
        self.polls = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks([*self._tasks, *self._commands])

    @asynccontextmanager
    async def follow_session(self, session_id: UUID, *, user_id: UUID) -> AsyncIterator[Subscription]:
        """Receive what is appended to a session. Subscribe first and read the log second, so no event is missed."""
        async with self._follow(session_channel(session_id), Subscription(user_id, session_id)) as subscription:
            yield subscription

    @asynccontextmanager
    async def follow_user(self, user_id: UUID) -> AsyncIterator[Subscription]:
        """Receive a message each time the list of this user's sessions changes."""
        async with self._follow(user_channel(user_id), Subscription(user_id, None)) as subscription:
            yield subscription

    async def publish(self, events: list[StoredEvent]) -> None:
        """Send committed events to every replica. Nothing is raised if Redis is unreachable; streams then poll."""
        if events:
            await self._publish(session_channel(events[0].session_id), encode_events(events))

    async def publish_partial(self, session_id: UUID, data: dict[str, Any]) -> None:
        await self._publish(session_channel(session_id), encode_partial(data))

    async def publish_list_change(self, user_id: UUID) -> None:
        await self._publish(user_channel(user_id), LIST_CHANGED)

    async def publish_access_lost(self, user_id: UUID) -> None:
        """End the user's list streams and VNC connections now. Session streams end at their next poll."""
        await self._publish(user_channel(user_id), GONE)

    async def publish_deleted(self, session_id: UUID) -> None:
        await self._publish(session_channel(session_id), GONE)

    async def is_watched(self, session_id: UUID) -> bool:
        """Whether any replica has an open stream of this session. Redis drops the subscriptions of a dead replica."""
        try:
            counts = await self._redis.pubsub_numsub(session_channel(session_id))
        except (RedisError, OSError):
            return False
        return any(count > 0 for _, count in counts)

    async def _publish(self, channel: str, payload: str) -> None:
        try:
            await self._redis.publish(channel, payload)
        except (RedisError, OSError) as error:
            logger.warning("Could not publish to Redis; streams rely on polling: %s", type(error).__name__)

    @asynccontextmanager
    async def _follow(self, channel: str, subscription: Subscription) -> AsyncIterator[Subscription]:
        followers = self._by_channel.setdefault(channel, set())
        followers.add(subscription)
        try:
            await self._ensure_subscribed(channel)
            yield subscription
        finally:
            followers.discard(subscription)
            if not followers:
                self._by_channel.pop(channel, None)
                self._confirmed.pop(channel, None)
                if self._pubsub is not None:
                    await self._send(self._pubsub.unsubscribe(channel))
                if channel in self._by_channel:  # another follower was added during the unsubscribe
                    await self._ensure_subscribed(channel)

    async def _ensure_subscribed(self, channel: str) -> None:
        """Wait for Redis to confirm, at most SUBSCRIBE_TIMEOUT_SECONDS: without Redis a stream relies on polling."""
        if (confirmed := self._confirmed.get(channel)) is None:
            confirmed = self._confirmed[channel] = asyncio.Event()
            if self._pubsub is not None:
                await self._send(self._pubsub.subscribe(channel))
        with suppress(TimeoutError):
            # not wait_for: before Python 3.12 it swallows a cancellation that arrives together with the result
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_SECONDS if self._pubsub else 0):
                await confirmed.wait()

    async def _send(self, command: Awaitable[None]) -> None:
        """Run a command on the shared connection, in a task of its own.

        A follower that is cancelled while it writes would break the connection for all followers. And because the
        client library uses wait_for, the cancellation could be swallowed.
        """
        task = asyncio.ensure_future(command)
        self._commands.add(task)
        task.add_done_callback(self._forget_command)
        with suppress(RedisError, OSError, RuntimeError):
            await asyncio.shield(task)

    def _forget_command(self, task: asyncio.Future[None]) -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the follower that awaited it may be gone

    async def _listen(self) -> None:
        while True:
            pubsub = self._redis.pubsub()
            try:
                await pubsub.subscribe(IDLE_CHANNEL, *self._by_channel)
                self._pubsub = pubsub
                while True:
                    message = await pubsub.get_message(timeout=1.0)
                    if message is not None:
                        self._dispatch(message)
            except (RedisError, OSError) as error:
                logger.warning("Lost the connection to Redis; streams rely on polling: %s", type(error).__name__)
            finally:
                self._pubsub = None
                with suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(RETRY_SECONDS)

    def _dispatch(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode()
        if message["type"] == "subscribe":
            if channel in self._by_channel:
                self._confirmed.setdefault(channel, asyncio.Event()).set()
        elif message["type"] == "message":
            for subscription in self._by_channel.get(channel, ()):
                subscription.apply_message(message["data"])

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._compare_watermarks()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("Could not poll the database for new events; will retry: %s", type(error).__name__)

    async def _compare_watermarks(self) -> None:
        """Compare all open streams with the database in one query. Without streams there is no query."""
        subscriptions = [one for followers in self._by_channel.values() for one in followers]
        if not subscriptions:
            return
        users = {one.user_id for one in subscriptions}
        sessions = {one.session_id for one in subscriptions if one.session_id is not None}
        async with self._db() as tx:
            known = await read_watermarks(tx, sessions=sessions, users=users)
        self.polls += 1
        for one in subscriptions:
            subject = known.get(one.session_id or one.user_id)
            user = known.get(one.user_id)
            if subject is None or user is None or not user.is_allowed:
                one.end_stream()
            else:
                one.advance(subject.version)
