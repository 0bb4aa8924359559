"""The engine, the declarative base and the ids that rows are given."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import DateTime, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

Database = async_sessionmaker[AsyncSession]


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
    """Open nothing yet: connections are made at first use.

    `pool_timeout` bounds the wait for a connection, so an exhausted pool is a 503 and not a hang. asyncpg's
    `timeout` bounds connecting, `command_timeout` every statement.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        connect_args={"timeout": 5, "command_timeout": 30},
    )


def create_database(engine: AsyncEngine) -> Database:
    return async_sessionmaker(engine, expire_on_commit=False)


def uuid7() -> UUID:
    """A UUID that sorts by creation time (RFC 9562, section 5.7), so primary keys stay local in their index."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=value)
