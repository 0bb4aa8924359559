"""Migrations of the database schema (Alembic), and the function that applies them."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

LOCK_KEY = 0x6D6F6F72
"""Key of the advisory lock that makes replicas that start at the same time migrate one after the other."""


def config(connection: Connection) -> Config:
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent))
    alembic.attributes["connection"] = connection
    return alembic


async def upgrade(url: str) -> None:
    """Upgrade the database at `url` to the newest revision. Safe to repeat and to run in several processes at once."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
            await connection.commit()
            try:
                await connection.run_sync(lambda sync: command.upgrade(config(sync), "head"))
                await connection.commit()
            finally:
                await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
                await connection.commit()
    finally:
        await engine.dispose()
