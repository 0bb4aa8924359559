"""Leases of connections: they count how many streams and VNC connections a user has open on all replicas together.

A lease is a member of the user's sorted set in Redis. Its score is the time at which it expires unless it is renewed. A
killed replica renews nothing, so its leases expire by themselves after `lease_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import NamedTuple, Self
from uuid import UUID, uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from moorage_api.errors import LimitedError, UnavailableError
from moorage_api.limits.request_windows import PATIENCE_SECONDS

logger = logging.getLogger(__name__)

TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 4, #ARGV do
    redis.call('ZREM', KEYS[1], ARGV[i])
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
    return math.max(1, first[2] and first[2] - now or 1)
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
"""
"""Returns 0 if the lease was taken, else the milliseconds until the first of the other leases can expire.

It first removes leases that this process has released but not yet returned, so a client that closes one stream can open
another at once.
"""

RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, now + ARGV[1], ARGV[i + 1])
    redis.call('PEXPIRE', key, ARGV[1])
end
return 0
"""
"""Also restores a lease that expired while Redis was unreachable, because its connection is still open."""

RENEWED_AT_ONCE = 500
"""Most leases that one script call renews, so that it does not block Redis for long."""


class ConnectionKind(StrEnum):
    """Kind of a connection; each kind has its own limit."""

    STREAM = "stream"
    SCREEN = "screen"


class ConnectionLease(NamedTuple):
    key: str
    member: str


class Leases:
    """Owns the task that renews and returns this process's leases; use as an async context manager."""

    def __init__(self, redis: Redis, limits: Mapping[ConnectionKind, int], *, lease_seconds: float) -> None:
        self._redis = redis
        self._take = redis.register_script(TAKE)
        self._renew = redis.register_script(RENEW)
        self._limits = limits
        self._seconds = lease_seconds
        self._milliseconds = int(lease_seconds * 1000)
        self._held: set[ConnectionLease] = set()
        self._returned: list[ConnectionLease] = []
        self._wake = asyncio.Event()
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._renew_and_return(), name="leases of connections")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._ending = True  # the task is not cancelled: the Redis client can swallow a cancellation during a command
        self._wake.set()
        with suppress(RedisError, OSError):  # the leases then expire by themselves
            async with asyncio.timeout(1):
                await self._task
                self._returned += self._held
                await self._return()

    @asynccontextmanager
    async def hold(self, kind: ConnectionKind, user_id: UUID) -> AsyncIterator[None]:
        """Count one connection of the user during the block. Raises LimitedError, or UnavailableError without Redis."""
        lease = ConnectionLease(f"moorage:leases:{kind}:{user_id}", uuid4().hex)
        try:
            await self._acquire(lease, self._limits[kind])
            self._held.add(lease)
            yield
        finally:  # must not await anything, because the holder may have been cancelled
            self._held.discard(lease)
            self._returned.append(lease)
            self._wake.set()

    async def _acquire(self, lease: ConnectionLease, limit: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                released = [other.member for other in self._returned if other.key == lease.key]
                left = int(
                    await self._take(keys=[lease.key], args=[lease.member, self._milliseconds, limit, *released])
                )
        except (RedisError, OSError) as error:
            raise UnavailableError("Redis is not available; try again shortly") from error
        if left > 0:
            raise LimitedError(retry_after_seconds=math.ceil(left / 1000))

    async def _renew_and_return(self) -> None:
        """Return released leases to Redis at once, and renew the held ones after each third of `lease_seconds`."""
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while not self._ending:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(renewed_at + self._seconds / 3):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._return()
                if loop.time() - renewed_at >= self._seconds / 3:
                    renewed_at = loop.time()
                    await self._renew_held()
            except (RedisError, OSError) as error:
                logger.warning("Could not renew the leases of open streams; will retry: %s", type(error).__name__)

    async def _return(self) -> None:
        """Remove released leases from Redis. If this fails, they expire by themselves."""
        returned = list(self._returned)
        if not returned:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for lease in returned:
            pipeline.zrem(lease.key, lease.member)
        try:
            await pipeline.execute()
        finally:
            del self._returned[: len(returned)]  # further leases may have been appended meanwhile

    async def _renew_held(self) -> None:
        held = list(self._held)
        for start in range(0, len(held), RENEWED_AT_ONCE):
            some = held[start : start + RENEWED_AT_ONCE]
            await self._renew(
                keys=[lease.key for lease in some], args=[self._milliseconds, *(lease.member for lease in some)]
            )
