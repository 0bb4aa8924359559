"""The queue of runs: create, claim, renew, finish. Each function runs SQL in the caller's transaction.

Row locks are always taken in the order run, session head, session, user head, so two writers cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from moorage_api.database import uuid7
from moorage_api.errors import FencedError
from moorage_api.events import log

RUNNER_LOCK_CLASS = 0x4D4F4F52
"""First key of the advisory lock that each runner holds on its own connection; the second key is its number."""

MAX_ATTEMPTS = 50
"""A run is abandoned after this many claims, because it probably kills each runner that works on it."""

WAKE_CHANNEL = "moorage:runs"
"""Redis channel that tells idle runners to look for runs. They also look every second without it."""

FinalStatus = Literal["done", "waiting", "failed", "stopped"]


def control_channel(session_id: UUID) -> str:
    """Redis channel that tells the runner of a session to read the run's row now (stop request, new message)."""
    return f"moorage:control:{session_id}"


def control_channel_pattern() -> str:
    return "moorage:control:*"


@dataclass(frozen=True)
class ActiveRun:
    """The run that receives a message. If `is_new`, it was created just now and no runner has claimed it."""

    id: UUID
    is_new: bool


@dataclass(frozen=True)
class LeasedRun:
    id: UUID
    session_id: UUID
    epoch: int
    attempts: int
    first_seq: int


@dataclass(frozen=True)
class RunView:
    """What a stream needs to know about a session's newest run."""

    first_seq: int
    is_active: bool


async def lock_active_run(tx: AsyncSession, session_id: UUID) -> ActiveRun:
    """Find and lock the session's active run, or create a queued one. The caller then calls `deliver`."""
    row = (
        await tx.execute(
            text(
                """
                INSERT INTO runs (id, session_id, first_seq, inbox_seq) VALUES (:id, :session_id, 0, 0)
                ON CONFLICT (session_id) WHERE status IN ('queued', 'running')
                DO UPDATE SET inbox_seq = runs.inbox_seq
                RETURNING id
                """
            ),
            {"id": (new_id := uuid7()), "session_id": session_id},
        )
    ).one()
    return ActiveRun(row.id, row.id == new_id)


async def deliver(tx: AsyncSession, run: ActiveRun, *, seq: int) -> None:
    """Put the user message `seq` into the run's inbox."""
    await tx.execute(
        text(
            """
            UPDATE runs SET inbox_seq = :seq, first_seq = CASE WHEN first_seq = 0 THEN :seq ELSE first_seq END,
                stop_requested = false
            WHERE id = :id
            """
        ),
        {"id": run.id, "seq": seq},
    )


async def newest_run(tx: AsyncSession, session_id: UUID) -> RunView | None:
    row = (
        await tx.execute(
            text(
                """
                SELECT first_seq, status IN ('queued', 'running') AS is_active FROM runs
                WHERE session_id = :session_id ORDER BY first_seq DESC LIMIT 1
                """
            ),
            {"session_id": session_id},
        )
    ).first()
    return RunView(row.first_seq, row.is_active) if row else None


async def request_stop(tx: AsyncSession, session_id: UUID) -> bool:
    """Ask the session's run to stop. False if there is nothing to stop.

    If there is no active run but the session waits for the user, a run is created whose only purpose is to stop.
    If no runner has claimed the run yet, the runner that claims it stops it.
    """
    parameters = {"session_id": session_id, "new_id": uuid7()}
    for statement in (
        """
        UPDATE runs SET stop_requested = true
        WHERE session_id = :session_id AND status IN ('queued', 'running') RETURNING id
        """,
        """
        INSERT INTO runs (id, session_id, first_seq, inbox_seq, stop_requested)
        SELECT :new_id, sessions.id, session_heads.last_seq + 1, 0, true
        FROM sessions JOIN session_heads ON session_heads.session_id = sessions.id
        WHERE sessions.id = :session_id AND sessions.status = 'waiting'
        ON CONFLICT (session_id) WHERE status IN ('queued', 'running') DO NOTHING RETURNING id
        """,
    ):
        if (await tx.execute(text(statement), parameters)).first() is not None:
            return True
    return False


async def end_all(tx: AsyncSession, session_ids: Sequence[UUID]) -> None:
    """End the active runs of sessions that are being deleted. The caller also raises the epochs."""
    await tx.execute(
        text(
            """
            UPDATE runs SET status = 'stopped', finished_at = now()
            WHERE session_id = ANY(:ids) AND status IN ('queued', 'running')
            """
        ),
        {"ids": list(session_ids)},
    )


async def hold_runner_lock(connection: AsyncConnection, *, runner_lock: int) -> None:
    """Take the advisory lock of a runner. It is held as long as this connection lives."""
    await connection.execute(
        text("SELECT pg_advisory_lock(:lock_class, :number)"),
        {"lock_class": RUNNER_LOCK_CLASS, "number": runner_lock},
    )


async def has_runner(connection: AsyncConnection) -> bool:
    """Whether any runner holds its advisory lock."""
    statement = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :number")
    return bool(await connection.scalar(statement, {"number": RUNNER_LOCK_CLASS}))


async def claim(tx: AsyncSession, *, runner_lock: int, lease_seconds: float) -> LeasedRun | None:
    """Take the oldest run without a living owner. None if every run has one.

    That is a queued run, a run whose runner is dead (its advisory lock is free), or one whose lease has expired.
    The epoch in the session's head row is raised, so every later write of the previous runner is refused.
    """
    candidate = (
        await tx.execute(
            text(
                """
                SELECT id, session_id FROM runs
                WHERE status = 'queued' OR (status = 'running' AND (
                    lease_expires_at < clock_timestamp() OR NOT EXISTS (
                        SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
                        AND classid = CAST(:lock_class AS bigint) AND objid = runs.runner_lock
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))))
                ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
                """
            ),
            {"lock_class": RUNNER_LOCK_CLASS},
        )
    ).first()
    if candidate is None:
        return None
    epoch = await log.raise_epoch(tx, candidate.session_id)
    if epoch is None:
        return None
    statement = text(
        """
        UPDATE runs SET status = 'running', epoch = :epoch, runner_lock = :runner_lock, attempts = attempts + 1,
            lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
        WHERE id = :id RETURNING attempts, first_seq
        """
    )
    parameters = {"id": candidate.id, "epoch": epoch, "runner_lock": runner_lock, "lease_seconds": lease_seconds}
    row = (await tx.execute(statement, parameters)).one()
    return LeasedRun(candidate.id, candidate.session_id, epoch, row.attempts, row.first_seq)


@dataclass(frozen=True)
class Signals:
    """What users have asked of a run since its runner last read the row."""

    stop_requested: bool
    has_unread: bool


async def renew(tx: AsyncSession, run: LeasedRun, *, lease_seconds: float) -> Signals:
    """Extend the lease to `lease_seconds` from now and read the signals.

    Raises FencedError if another runner has taken the run over.
    """
    row = (
        await tx.execute(
            text(
                """
                UPDATE runs SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
                WHERE id = :id AND epoch = :epoch AND status = 'running'
                RETURNING stop_requested, inbox_seq > consumed_seq AS has_unread
                """
            ),
            {"id": run.id, "epoch": run.epoch, "lease_seconds": lease_seconds},
        )
    ).first()
    if row is None:
        raise FencedError
    return Signals(row.stop_requested, row.has_unread)


async def read_signals(tx: AsyncSession, run: LeasedRun) -> Signals:
    """Like `renew`, but does not extend the lease. Used after a wake-up."""
    row = (
        await tx.execute(
            text(
                """
                SELECT stop_requested, inbox_seq > consumed_seq AS has_unread FROM runs
                WHERE id = :id AND epoch = :epoch AND status = 'running'
                """
            ),
            {"id": run.id, "epoch": run.epoch},
        )
    ).first()
    if row is None:
        raise FencedError
    return Signals(row.stop_requested, row.has_unread)


async def consumed_seq(tx: AsyncSession, run: LeasedRun) -> int:
    """The `seq` of the newest user message that the run has read, 0 if it has read none."""
    statement = text("SELECT consumed_seq FROM runs WHERE id = :id")
    return int(await tx.scalar(statement, {"id": run.id}) or 0)


async def mark_read(tx: AsyncSession, run: LeasedRun, *, seq: int) -> None:
    """Record that the run has read the user messages up to `seq`. Raises FencedError."""
    result = await tx.execute(
        text(
            "UPDATE runs SET consumed_seq = :seq WHERE id = :id AND epoch = :epoch AND status = 'running' RETURNING 1"
        ),
        {"id": run.id, "epoch": run.epoch, "seq": seq},
    )
    if result.first() is None:
        raise FencedError


async def finish(tx: AsyncSession, run: LeasedRun, *, status: FinalStatus, consumed_seq: int | None) -> bool:
    """End the run. Returns False and changes nothing if a message is unread and no stop was requested.

    Raises FencedError. Afterwards the caller appends the run's last event in the same transaction.
    """
    row = (
        await tx.execute(
            text(
                """
                SELECT inbox_seq > greatest(consumed_seq, CAST(:consumed_seq AS bigint)) AND NOT stop_requested
                    AS has_unread
                FROM runs WHERE id = :id AND epoch = :epoch AND status = 'running' FOR UPDATE
                """
            ),
            {"id": run.id, "epoch": run.epoch, "consumed_seq": consumed_seq or 0},
        )
    ).first()
    if row is None:
        raise FencedError
    if row.has_unread:
        return False
    await tx.execute(
        text("UPDATE runs SET status = :status, finished_at = now(), consumed_seq = inbox_seq WHERE id = :id"),
        {"id": run.id, "status": status},
    )
    return True
