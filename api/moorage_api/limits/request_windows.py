"""Fixed windows that count requests. One atomic Redis script counts, and all replicas share the counters."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from enum import StrEnum
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from moorage_api.errors import LimitedError, UnavailableError

PATIENCE_SECONDS = 3.0
"""Longest time that a request waits for Redis; after it the response is 503."""

SPEND = """
local longest = 0
for _, key in ipairs(KEYS) do
    local count = redis.call('INCR', key)
    local left = redis.call('PTTL', key)
    if left < 0 then
        redis.call('PEXPIRE', key, ARGV[1])
        left = tonumber(ARGV[1])
    end
    if count > tonumber(ARGV[2]) and left > longest then
        longest = left
    end
end
return longest
"""
"""Counts one request for each key. Returns 0, or the milliseconds until the last window over its limit ends."""


class Bucket(StrEnum):
    """Requests that are counted together. A route without a bucket is unlimited."""

    READS = "reads"
    WRITES = "writes"
    CHATS = "chats"
    PICTURES = "pictures"
    MODEL_TESTS = "model tests"


def user_subject(user_id: UUID) -> str:
    return f"user:{user_id}"


def address_subject(address: str) -> str:
    return f"address:{address}"


def account_subject(name: str) -> str:
    """Subject of a login name. Redis stores only a hash, because the name may identify a person."""
    return f"account:{hashlib.sha256(name.casefold().encode()).hexdigest()[:32]}"


class Windows:
    def __init__(self, redis: Redis, limits: Mapping[Bucket, int], *, window_seconds: int) -> None:
        self._spend = redis.register_script(SPEND)
        self._limits = limits
        self._window_milliseconds = window_seconds * 1000

    async def spend(self, bucket: Bucket, *subjects: str) -> None:
        """Count one request for each subject. Raises LimitedError, or UnavailableError without Redis.

        A window begins with its first request. Refused requests do not extend it.
        """
        keys = [f"moorage:window:{bucket}:{subject}" for subject in subjects]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                left = int(await self._spend(keys=keys, args=[self._window_milliseconds, self._limits[bucket]]))
        except (RedisError, OSError) as error:
            raise UnavailableError("Redis is not available; try again shortly") from error
        if left > 0:
            raise LimitedError(retry_after_seconds=math.ceil(left / 1000))
