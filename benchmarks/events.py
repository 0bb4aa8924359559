"""Durable appends to the event log: PostgreSQL with fsync and synchronous_commit on, one writer.

Method: one session is filled to the given number of events; then 200 transactions (as the journal makes them: one
append each) are timed from `begin` to after `commit`, with 1 and with 10 events of about 200 bytes each.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from benchmarks.rows import Row
from moorage_api import migrations
from moorage_api.database import Database, create_database, create_engine, uuid7
from moorage_api.events.log import append
from moorage_api.events.schemas import ChatEvent, MessageEvent
from moorage_api.sessions.repository import create_session
from moorage_api.users.repository import UserRepository
from moorage_local.data.credentials import Credentials
from moorage_local.data.ports import PortBook
from moorage_local.servers.postgres import Postgres

TRANSACTIONS = 200
EVENT: ChatEvent = MessageEvent(role="assistant", message="x" * 120)


@asynccontextmanager
async def durable_postgres() -> AsyncIterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="moorage-bench-", dir=Path.home()))
    credentials = Credentials.load(directory / "secrets.json")
    postgres = Postgres(
        directory / "postgres",
        ports=PortBook(directory / "ports.json"),
        log=directory / "postgres.log",
        password=credentials.database_password,
        superuser_password=credentials.database_superuser_password,
    )
    await postgres.start()
    try:
        await migrations.upgrade(postgres.url())
        yield postgres.url()
    finally:
        await postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def measure(url: str) -> list[Row]:
    engine = create_engine(url)
    db = create_database(engine)
    rows = []
    for filled in (10, 1_000, 10_000):
        session_id = uuid7()
        async with db.begin() as tx:
            user_id = uuid7()
            await UserRepository(tx).add(user_id, username=str(user_id), email=None, password_hash="", nickname="")
        await create_session(db, session_id, owner_id=user_id)
        for _ in range(filled // 10):
            await _append(db, session_id, 10)
        for batch, aim in ((1, ""), (10, "<= 0.15")):
            samples = [await _append(db, session_id, batch) for _ in range(TRANSACTIONS)]
            name = f"append to a log of {filled:,}, {batch} a transaction"
            rows.append(Row(name, "ms/event", [seconds * 1000 / batch for seconds in samples], aim))
    await db.close()
    await engine.dispose()
    return rows


async def _append(db: Database, session_id: UUID, count: int) -> float:
    began = time.perf_counter()
    async with db.begin() as tx:
        await append(tx, session_id, [EVENT] * count)
    return time.perf_counter() - began


async def rows() -> list[Row]:
    async with durable_postgres() as url:
        return await measure(url)
