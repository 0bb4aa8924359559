"""The gate's SQLite database: the session that the sandbox is bound to, and the state of every call.

The binding and the fact that a call is sent are on the disk before the call is sent. A result need only survive the
process: when the machine loses power, the box is lost too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from moorage_sandbox.gate.errors import RefusalError

T = TypeVar("T")

KEPT_RESULTS = 64
"""How many answers are kept. A caller asks again only for its last call; of older calls only the fact that they ran."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS binding (
    only INTEGER PRIMARY KEY CHECK (only = 1), session_id TEXT NOT NULL, epoch INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS calls (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, boot_id TEXT NOT NULL,
    state TEXT NOT NULL, answer TEXT
);
"""


@dataclass(frozen=True)
class CallRecord:
    """The state of a call.

    `started`: it was sent to the box with `boot_id`. `finished`: `answer` is stored. `forgotten`: it ran, and its
    answer is no longer stored.
    """

    digest: str
    boot_id: str
    state: Literal["started", "finished", "forgotten"]
    answer: str | None


def digest_of(function: str, args: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([function, args], sort_keys=True).encode()).hexdigest()


class CallLedger:
    """Runs all queries on its own thread, so a slow disk does not block the event loop."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / "ledger.db"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._connection: sqlite3.Connection | None = None

    async def bind(self, session_id: str, epoch: int) -> None:
        """Bind this sandbox to `session_id` forever and store the newest epoch.

        Raises RefusalError: `forbidden` if it is bound to another session, `stale_epoch` for an older runner.
        """
        await self._run(lambda db: bind(db, session_id, epoch))

    async def check(self, session_id: str, epoch: int) -> None:
        """Raise RefusalError unless the sandbox is bound to this session. Readers have `epoch` 0, which is accepted."""
        await self._run(lambda db: check(db, session_id, epoch))

    async def find(self, key: str) -> CallRecord | None:
        return await self._run(lambda db: find(db, key))

    async def start(self, key: str, *, digest: str, boot_id: str) -> None:
        """Store on the disk that the call is now sent to the box with `boot_id`."""
        await self._run(lambda db: start(db, key, digest, boot_id))

    async def finish(self, key: str, answer: str) -> None:
        await self._run(lambda db: finish(db, key, answer))

    def close(self) -> None:
        if self._connection is not None:
            self._thread.submit(self._connection.close).result()
        self._thread.shutdown()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._open()))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(SCHEMA)
            self._connection = connection
        return self._connection


def bind(db: sqlite3.Connection, session_id: str, epoch: int) -> None:
    row = db.execute("SELECT session_id, epoch FROM binding").fetchone()
    if row is None:
        db.execute("INSERT INTO binding VALUES (1, ?, ?)", (session_id, epoch))
        return
    check(db, session_id, epoch)


def check(db: sqlite3.Connection, session_id: str, epoch: int) -> None:
    row = db.execute("SELECT session_id, epoch FROM binding").fetchone()
    if row is None:
        raise RefusalError("not_bound", "This sandbox is not bound to a session yet")
    if row[0] != session_id:
        raise RefusalError("forbidden", "This sandbox belongs to another session")
    if epoch and epoch < row[1]:
        raise RefusalError("stale_epoch", "A newer runner works on this session")
    if epoch > row[1]:
        db.execute("UPDATE binding SET epoch = ?", (epoch,))


def find(db: sqlite3.Connection, key: str) -> CallRecord | None:
    row = db.execute("SELECT digest, boot_id, state, answer FROM calls WHERE key = ?", (key,)).fetchone()
    return CallRecord(*row) if row else None


def start(db: sqlite3.Connection, key: str, digest: str, boot_id: str) -> None:
    db.execute(
        """
        INSERT INTO calls (key, digest, boot_id, state) VALUES (?, ?, ?, 'started')
        ON CONFLICT (key) DO UPDATE SET boot_id = excluded.boot_id
        """,
        (key, digest, boot_id),
    )


def finish(db: sqlite3.Connection, key: str, answer: str) -> None:
    db.execute("PRAGMA synchronous = NORMAL")  # in WAL mode this does not wait for the disk
    try:
        db.execute("UPDATE calls SET state = 'finished', answer = ? WHERE key = ?", (answer, key))
        db.execute(
            """
            UPDATE calls SET state = 'forgotten', answer = NULL
            WHERE state = 'finished' AND number <= (SELECT max(number) FROM calls) - ?
            """,
            (KEPT_RESULTS,),
        )
    finally:
        db.execute("PRAGMA synchronous = FULL")
