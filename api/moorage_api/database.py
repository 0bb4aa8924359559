"""Access to PostgreSQL: the engine, the base class of tables, and the ids of rows."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
from sqlalchemy import URL, DateTime, MetaData, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

CLOSE_SECONDS = 2


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


def create_engine(url: str, *, pool_size: int = 10) -> AsyncEngine:
    """Create the engine. It opens connections when they are first used.

    `pool_timeout` limits the wait for a free connection, so an exhausted pool gives a 503 and does not hang. asyncpg's
    `timeout` limits connecting, and `command_timeout` limits every statement.
    """
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        connect_args={"timeout": 5, "command_timeout": 30},
    )
    event.listen(engine.sync_engine, "checkout", replace_closed)
    return engine


def replace_closed(connection: Any, *_: object) -> None:
    """Let the pool replace a connection that PostgreSQL has closed. It costs no round trip, unlike `pool_pre_ping`."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("PostgreSQL has closed this connection")


class Database:
    """`db.begin()` is one transaction. `db()` is for reads: each statement commits by itself, in one round trip.

    `db.fetch` is for the few statements that run in every request. It uses asyncpg directly, at a tenth of the cost.
    """

    def __init__(self, engine: AsyncEngine, *, direct: DirectPool | None = None) -> None:
        self._direct = direct or DirectPool(engine.url)
        self._writing = async_sessionmaker(engine, expire_on_commit=False)
        reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._reading = async_sessionmaker(reading, expire_on_commit=False)

    def __call__(self) -> AsyncSession:
        return self._reading()

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._writing.begin()

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement in its own transaction and return all rows. `$1` stands for the first argument."""
        return await self._direct.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        rows = await self._direct.fetch(statement, *arguments)
        return rows[0] if rows else None

    async def close(self) -> None:
        await self._direct.close()


class DirectPool:
    """A pool of asyncpg connections, created at first use. Statements leave no state, so connections are not reset."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        pool = self._pool or await self._open()
        return list(await pool.fetch(statement, *arguments))

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url, min_size=0, max_size=10, timeout=5, command_timeout=30, reset=_keep_as_it_is
                )
        return self._pool

    async def close(self) -> None:
        if self._pool is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()


async def _keep_as_it_is(_: object) -> None:
    return


def create_database(engine: AsyncEngine) -> Database:
    return Database(engine)


async def ping(connection: AsyncSession | AsyncConnection) -> str:
    """Return the version of PostgreSQL, such as "16.4". Raises if it does not answer."""
    return str(await connection.scalar(text("SHOW server_version"))).split()[0]


def uuid7() -> UUID:
    """Create a UUID that sorts by creation time (RFC 9562, section 5.7), so new rows are close in the index."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=value)
