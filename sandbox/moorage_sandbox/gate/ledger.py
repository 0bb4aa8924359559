"""What must outlive the gate's process: the binding, and what became of every call.

SQLite in a directory of the gate's own. Whatever decides that something may happen (the binding, "this call was sent
to the box") is on the disk before it happens; a result need only survive the process, since a machine that loses power
loses the box with it.
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

from moorage_sandbox.gate.errors import RefusedError

T = TypeVar("T")

KEPT_RESULTS = 64
"""Finished calls whose answer is kept. A caller asks again for its last call only; of older ones we know they ran."""

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
    """`started`: sent to the box that had `boot_id`. `finished`: `answer` is kept. `forgotten`: it ran, that is all."""

    digest: str
    boot_id: str
    state: Literal["started", "finished", "forgotten"]
    answer: str | None


def digest_of(function: str, args: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([function, args], sort_keys=True).encode()).hexdigest()


class CallLedger:
    """All its work happens on one thread of its own, so a slow disk never holds up the event loop."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / "ledger.db"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._connection: sqlite3.Connection | None = None

    async def bind(self, session_id: str, epoch: int) -> None:
        """Tie this sandbox to `session_id` for good and note the newest epoch.

        Raises RefusedError: `forbidden` once it is another session's, `stale_epoch` for an older runner.
        """
        await self._run(lambda db: bind(db, session_id, epoch))

    async def check(self, session_id: str, epoch: int) -> None:
        """Raises RefusedError unless this session is bound. `epoch` 0 is a reader's: it is not compared."""
        await self._run(lambda db: check(db, session_id, epoch))

    async def find(self, key: str) -> CallRecord | None:
        return await self._run(lambda db: find(db, key))

    async def start(self, key: str, *, digest: str, boot_id: str) -> None:
        """Note, on the disk, that the call is now sent to the box with `boot_id`."""
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
        raise RefusedError("not_bound", "This sandbox is not bound to a session yet")
    if row[0] != session_id:
        raise RefusedError("forbidden", "This sandbox belongs to another session")
    if epoch and epoch < row[1]:
        raise RefusedError("stale_epoch", "A newer runner works on this session")
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
    db.execute("PRAGMA synchronous = NORMAL")  # in WAL mode: no wait for the disk
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
