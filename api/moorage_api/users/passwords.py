"""Password hashes: argon2id, made off the event loop and few at a time."""

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
"""Each takes about 0.15 s of a core: whoever would wait longer than this queue is told to come back."""

CONTEXT = CryptContext(schemes=["argon2", "bcrypt_sha256", "bcrypt"], deprecated="auto")
"""New hashes are argon2id; the others are read, for accounts that come from elsewhere, and then replaced."""


class Passwords:
    """A hash takes 64 MiB and a core: `concurrency` of them run at once. Close when done."""

    def __init__(self, *, concurrency: int) -> None:
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="passwords")
        self._waiting = 0
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        return await self._run(lambda: str(CONTEXT.hash(password)))

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Whether it is right, and a new hash where the stored one is of an old kind.

        Without a stored hash it takes the same time and is wrong: timing tells nobody which accounts exist.
        """
        return await self._run(lambda: self._verify(password, hashed))

    def _verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        if not is_storable(password):
            password, hashed = "", None  # never registered, and not every kind of hash can be asked
        if hashed is None:
            self._dummy = self._dummy or CONTEXT.hash("nobody's password")
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
