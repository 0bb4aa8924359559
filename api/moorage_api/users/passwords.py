"""Password hashes: argon2id, computed in threads, only a few at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext

from moorage_api.errors import LimitedError
from moorage_api.text import is_storable

T = TypeVar("T")

MAX_WAITING = 100
"""Most requests that may wait for a hash, each about 0.15 s of a core. Further ones get 429 and may retry later."""

CONTEXT = CryptContext(schemes=["argon2", "bcrypt_sha256", "bcrypt"], deprecated="auto")
"""New hashes are argon2id. The other kinds, from imported accounts, are accepted and replaced at the next login."""


class Passwords:
    """Computes hashes in threads, at most `concurrency` at once: each takes 64 MiB and a core. Close after use."""

    def __init__(self, *, concurrency: int) -> None:
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="passwords")
        self._waiting = 0
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        return await self._run(lambda: str(CONTEXT.hash(password)))

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Return whether the password is correct, and a new hash if the stored one is of an old kind.

        Without a stored hash the result is False after the same time, so timing does not reveal which accounts exist.
        """
        return await self._run(lambda: self._verify(password, hashed))

    def _verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        if not is_storable(password):
            password, hashed = "", None  # such a password cannot be registered, and some hash functions raise for it
        if hashed is None:
            self._dummy = self._dummy or CONTEXT.hash("password of no account")
            CONTEXT.verify(password, self._dummy)
            return False, None
        right, replacement = CONTEXT.verify_and_update(password, hashed)
        return bool(right), replacement

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise LimitedError(retry_after_seconds=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
