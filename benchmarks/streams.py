"""A thousand idle list streams on one api.

Method: 1,000 users (made in the database) each hold POST /api/sessions/stream open; after all have their first frame
and a rest, the database's count of transactions is read twice, 10 s apart, less those that an api without streams
makes, and the api's resident memory is compared with that before them. The rest is longer than the time for which an
idle connection may keep its counts to itself.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.rows import Row
from moorage_api.database import uuid7
from moorage_api.settings import Settings
from moorage_api.users.tokens import Tokens

STREAMS = 1000
WINDOW_SECONDS = 10
REPORT_SECONDS = 12
"""More than PostgreSQL's PGSTAT_IDLE_INTERVAL of 10 s (src/backend/utils/activity/pgstat.c)."""


async def measure(url: str, pid: int, engine: AsyncEngine, settings: Settings) -> list[Row]:
    tokens = await make_users(engine, settings)
    host, port = url.removeprefix("http://").split(":")
    process = psutil.Process(pid)
    idle_rate = await transactions_a_second(engine)
    before = process.memory_info().rss
    writers = []
    for start in range(0, STREAMS, 50):
        writers += await asyncio.gather(*(open_stream(host, int(port), token) for token in tokens[start : start + 50]))
    rate = await transactions_a_second(engine) - idle_rate
    memory = (process.memory_info().rss - before) / STREAMS / 1024
    for writer in writers:
        writer.close()
    note = f"{STREAMS:,} idle list streams, one api"
    return [
        Row("idle list streams: queries a second, all together", "1/s", [max(rate, 0)], "<= 0.5", note),
        Row("idle list streams: memory a stream", "KiB", [memory], "", note),
    ]


async def open_stream(host: str, port: int, token: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(host, port)
    head = ["POST /api/sessions/stream HTTP/1.1", "Host: x", "Content-Length: 0", f"Authorization: Bearer {token}"]
    writer.write("\r\n".join([*head, "", ""]).encode())
    await asyncio.wait_for(reader.readuntil(b"event: sessions"), 30)
    return writer


async def transactions_a_second(engine: AsyncEngine) -> float:
    async def count_committed() -> int:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            value = await connection.scalar(
                text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
            )
            return int(value or 0)

    await asyncio.sleep(REPORT_SECONDS)  # by now the statistics include all earlier transactions
    first = await count_committed()
    await asyncio.sleep(WINDOW_SECONDS)
    return (await count_committed() - first) / WINDOW_SECONDS


async def make_users(engine: AsyncEngine, settings: Settings) -> list[str]:
    now = datetime.now(UTC)
    tokens = Tokens(settings.jwt_secret.get_secret_value(), access_seconds=3600, refresh_seconds=3600)
    made = []
    async with engine.begin() as connection:
        for _ in range(STREAMS):
            user, family = uuid7(), uuid7()
            pair = tokens.issue(user, family, now=now)
            await connection.execute(
                text("INSERT INTO users (id, username) VALUES (:id, :name)"), {"id": user, "name": str(user)}
            )
            await connection.execute(
                text("INSERT INTO token_families VALUES (:id, :user, :jti, :at)"),
                {"id": family, "user": user, "jti": pair.refresh_jti, "at": now + timedelta(hours=1)},
            )
            made.append(pair.access_token)
    return made
