"""Append to the event log and read from it. One SQL statement numbers the events, checks the epoch and inserts.

No other module writes `events` and `session_heads`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.errors import FencedError, NotFoundError
from moorage_api.events.schemas import ChatEvent


@dataclass(frozen=True)
class StoredEvent:
    """An event as stored in the log: `data` is the event without its type."""

    session_id: UUID
    seq: int
    type: str
    data: dict[str, Any]
    created_at: datetime


INSERT_HEAD = "INSERT INTO session_heads (session_id) SELECT id FROM session"
"""The part of the statement that creates a session, whose query `session` returns the new id."""

APPEND = text(
    """
    WITH head AS (
        UPDATE session_heads SET last_seq = last_seq + cardinality(:types)
        WHERE session_id = :session_id AND (CAST(:epoch AS bigint) IS NULL OR epoch = :epoch)
        RETURNING last_seq - cardinality(:types) AS base
    )
    INSERT INTO events (session_id, seq, type, data)
    SELECT :session_id, head.base + item.position, item.type, item.data::jsonb
    FROM head, unnest(:types, :documents) WITH ORDINALITY AS item(type, data, position)
    RETURNING seq, created_at
    """
).bindparams(
    bindparam("session_id", type_=PgUUID()),
    bindparam("epoch", type_=BigInteger()),
    bindparam("types", type_=ARRAY(Text())),
    bindparam("documents", type_=ARRAY(Text())),
)


def make_storable(value: Any) -> Any:
    """Replace characters that PostgreSQL's jsonb cannot store (NUL, lone surrogates) in all nested strings.

    Tools and models produce them.
    """
    if isinstance(value, str):
        if "\x00" in value:
            value = value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {make_storable(key): make_storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [make_storable(item) for item in value]
    return value


async def append(
    tx: AsyncSession, session_id: UUID, events: Sequence[ChatEvent], *, epoch: int | None = None
) -> list[StoredEvent]:
    """Append `events` in order, in the caller's transaction. The caller publishes them after the commit.

    With `epoch`, raises FencedError unless it is the session's current epoch. Without it (the api's own appends),
    raises NotFoundError if the session does not exist.
    """
    documents = [make_storable(event.model_dump(mode="json", exclude={"type"}, exclude_none=True)) for event in events]
    rows = (
        await tx.execute(
            APPEND,
            {
                "session_id": session_id,
                "epoch": epoch,
                "types": [event.type for event in events],
                "documents": [json.dumps(document, ensure_ascii=False) for document in documents],
            },
        )
    ).all()
    if not rows and epoch is not None:
        raise FencedError
    if not rows:
        raise NotFoundError("This session does not exist")
    return [
        StoredEvent(session_id, row.seq, event.type, document, row.created_at)
        for row, event, document in zip(sorted(rows, key=lambda row: row.seq), events, documents, strict=True)
    ]


READ = text(
    """
    SELECT seq, type, data, created_at FROM events
    WHERE session_id = :session_id AND seq > :after ORDER BY seq LIMIT :limit
    """
)


async def read(tx: AsyncSession, session_id: UUID, *, after: int, limit: int = 500) -> list[StoredEvent]:
    """Events with `seq` greater than `after`, oldest first, at most `limit`."""
    rows = await tx.execute(READ, {"session_id": session_id, "after": after, "limit": limit})
    return [StoredEvent(session_id, row.seq, row.type, row.data, row.created_at) for row in rows]


async def user_messages(tx: AsyncSession, session_id: UUID, *, after: int) -> list[StoredEvent]:
    """Messages of the user with `seq` greater than `after`, oldest first."""
    statement = text(
        """
        SELECT seq, type, data, created_at FROM events
        WHERE session_id = :session_id AND type = 'message' AND data->>'role' = 'user' AND seq > :after ORDER BY seq
        """
    )
    rows = await tx.execute(statement, {"session_id": session_id, "after": after})
    return [StoredEvent(session_id, row.seq, row.type, row.data, row.created_at) for row in rows]


async def calling_seq(tx: AsyncSession, session_id: UUID, *, tool_call_id: str) -> int | None:
    """The `seq` of the newest `calling` event of this tool call."""
    statement = text(
        """
        SELECT seq FROM events WHERE session_id = :session_id AND type = 'tool'
        AND data->>'status' = 'calling' AND data->>'tool_call_id' = :tool_call_id
        ORDER BY seq DESC LIMIT 1
        """
    )
    seq: int | None = await tx.scalar(statement, {"session_id": session_id, "tool_call_id": tool_call_id})
    return seq


ATTACHED = text(
    """
    SELECT DISTINCT CAST(jsonb_path_query(data, '$.attachments[*].id') #>> '{}' AS uuid) FROM events
    WHERE session_id = :session_id AND type = 'message'
    """
)


async def attached_files(tx: AsyncSession, session_id: UUID) -> set[UUID]:
    """Ids of all files that were attached to messages, deleted files included."""
    return set(await tx.scalars(ATTACHED, {"session_id": session_id}))


async def last_seq(tx: AsyncSession, session_id: UUID) -> int:
    """The newest `seq`, 0 for an empty log. Raises NotFoundError if the session does not exist."""
    seq = await tx.scalar(
        text("SELECT last_seq FROM session_heads WHERE session_id = :session_id"), {"session_id": session_id}
    )
    if seq is None:
        raise NotFoundError("This session does not exist")
    return int(seq)


async def lock_head(tx: AsyncSession, session_id: UUID) -> None:
    """Lock the session's head row, as every writer does first. A run that is being claimed is then visible or waits."""
    await tx.execute(text("SELECT FROM session_heads WHERE session_id = :id FOR UPDATE"), {"id": session_id})


async def hold_epoch(tx: AsyncSession, session_id: UUID, *, epoch: int) -> bool:
    """Whether the session's epoch is still this one; if so, it stays until the transaction ends."""
    held = text("SELECT true FROM session_heads WHERE session_id = :id AND epoch = :epoch FOR SHARE")
    return bool(await tx.scalar(held, {"id": session_id, "epoch": epoch}))


async def raise_epoch(tx: AsyncSession, session_id: UUID) -> int | None:
    """Raise the session's epoch and return it, so that every later write with an older epoch is refused.

    None if the session has been removed.
    """
    statement = text("UPDATE session_heads SET epoch = epoch + 1 WHERE session_id = :id RETURNING epoch")
    epoch: int | None = await tx.scalar(statement, {"id": session_id})
    return epoch


async def fence(tx: AsyncSession, session_ids: Sequence[UUID]) -> None:
    """Raise the epochs, so that no runner writes to these sessions any more."""
    await tx.execute(
        text("UPDATE session_heads SET epoch = epoch + 1 WHERE session_id = ANY(:ids)"), {"ids": list(session_ids)}
    )


WATERMARKS = text(
    """
    SELECT session_id AS id, last_seq AS version, true AS allowed
    FROM session_heads JOIN sessions ON sessions.id = session_id
    WHERE session_id = ANY(:sessions) AND deleted_at IS NULL
    UNION ALL
    SELECT users.id, coalesce(user_heads.version, 0), users.status = 'active'
    FROM users LEFT JOIN user_heads ON user_heads.user_id = users.id WHERE users.id = ANY(:users)
    """
)


@dataclass(frozen=True)
class Watermark:
    """The newest `seq` of a session, or the newest version of a user's session list."""

    version: int
    is_allowed: bool
    """False for a user who may no longer sign in."""


async def read_watermarks(
    tx: AsyncSession, *, sessions: Collection[UUID], users: Collection[UUID]
) -> dict[UUID, Watermark]:
    """Watermarks by the id of the session or user. Those that do not exist any more are left out."""
    rows = await tx.execute(WATERMARKS, {"sessions": list(sessions), "users": list(users)})
    return {row.id: Watermark(row.version, row.allowed) for row in rows}
