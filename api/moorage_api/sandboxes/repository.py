"""SQL of the sandboxes that sessions use. No other module reads or writes `session_sandboxes`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

IDLE = """
    SELECT session_id FROM session_sandboxes AS known
    WHERE suspended_at IS NULL
        AND NOT EXISTS (
            SELECT FROM runs WHERE runs.session_id = known.session_id
                AND (status IN ('queued', 'running') OR finished_at > now() - make_interval(secs => :idle_seconds))
        )
    LIMIT :limit
"""

SUSPENDED = """
    UPDATE session_sandboxes SET suspended_at = now() WHERE session_id = :session_id AND suspended_at IS NULL
        AND NOT EXISTS (
            SELECT FROM runs WHERE runs.session_id = :session_id AND status IN ('queued', 'running')
        )
    RETURNING session_id
"""

RECENT = """
    SELECT id, owner_id FROM sessions
    WHERE deleted_at IS NULL AND id BETWEEN :oldest AND :newest ORDER BY id DESC LIMIT :limit
"""
"""Ids begin with the creation time, so this reads a range of the primary key. Older sessions are registered, or will be
when they need a sandbox. The newest ones are left out, because the api is registering them now."""

USE = """
    INSERT INTO session_sandboxes AS known (session_id, uid, since_seq, notice)
    SELECT session_id, :uid, 0, '' FROM session_heads
    WHERE session_id = :session_id AND epoch = :epoch FOR SHARE
    ON CONFLICT (session_id) DO UPDATE SET
        notice = CASE WHEN known.uid = excluded.uid THEN known.notice ELSE :notice END,
        since_seq = CASE WHEN known.uid = excluded.uid THEN known.since_seq ELSE
            (SELECT last_seq + 1 FROM session_heads WHERE session_id = known.session_id) END,
        uid = excluded.uid,
        suspended_at = NULL
    RETURNING since_seq
"""


@dataclass(frozen=True)
class KnownSandbox:
    notice: str = ""
    """Text for the model about a replaced sandbox."""
    is_suspended: bool = False


class SandboxRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def use(self, session_id: UUID, uid: str, *, epoch: int, notice: str) -> int | None:
        """Store the session's current sandbox. Returns the seq from which calls go to it, or None for an old epoch.

        `notice` is stored if another sandbox was used before.
        """
        parameters = {"session_id": session_id, "uid": uid, "epoch": epoch, "notice": notice}
        since_seq: int | None = await self._tx.scalar(text(USE), parameters)
        return since_seq

    async def find(self, session_id: UUID) -> KnownSandbox:
        """The sandbox that the session used last; the defaults if it has used none."""
        statement = text("SELECT notice, suspended_at FROM session_sandboxes WHERE session_id = :id")
        row = (await self._tx.execute(statement, {"id": session_id})).first()
        return KnownSandbox(row.notice, row.suspended_at is not None) if row else KnownSandbox()

    async def clear_notice(self, session_id: UUID, *, notice: str) -> None:
        """Empty the notice, unless a newer one has replaced it."""
        await self._tx.execute(
            text("UPDATE session_sandboxes SET notice = '' WHERE session_id = :id AND notice = :notice"),
            {"id": session_id, "notice": notice},
        )

    async def owners_of_sessions(self, oldest: UUID, newest: UUID, *, limit: int) -> dict[UUID, UUID]:
        """Return the owners, by session, of the sessions with ids between these two."""
        rows = await self._tx.execute(text(RECENT), {"oldest": oldest, "newest": newest, "limit": limit})
        return {row.id: row.owner_id for row in rows}

    async def idle_sessions(self, *, idle_seconds: float, limit: int) -> list[UUID]:
        """List sessions that have a sandbox but had no run for this long."""
        return list(await self._tx.scalars(text(IDLE), {"idle_seconds": idle_seconds, "limit": limit}))

    async def mark_suspended(self, session_id: UUID) -> bool:
        """Mark the sandbox as suspended. False if a run is active or it is already marked.

        The caller holds the lock of the session's head row.
        """
        return (await self._tx.execute(text(SUSPENDED), {"session_id": session_id})).first() is not None
