"""Which sandbox a session uses, and the notice for the model after a sandbox was replaced. Used by runs."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.errors import FencedError
from moorage_api.sandboxes.repository import KnownSandbox, SandboxRepository


async def find_known_sandbox(db: Database, session_id: UUID) -> KnownSandbox:
    """The sandbox that a session used last; the defaults if it has used none."""
    async with db() as tx:
        return await SandboxRepository(tx).find(session_id)


async def store_sandbox(db: Database, session_id: UUID, uid: str, *, epoch: int, notice: str) -> int:
    """Store the session's current sandbox. Returns the seq from which calls go to it. Raises FencedError.

    Calls with a smaller seq went to an earlier sandbox that is lost; `notice` is then stored for the model.
    """
    async with db.begin() as tx:
        since_seq = await SandboxRepository(tx).use(session_id, uid, epoch=epoch, notice=notice)
    if since_seq is None:
        raise FencedError
    return since_seq


async def clear_notice(tx: AsyncSession, session_id: UUID, *, notice: str) -> None:
    """Remove the notice in the transaction that stores the message with it, unless a newer one has replaced it."""
    await SandboxRepository(tx).clear_notice(session_id, notice=notice)
