"""SQL of what runs store for the next run of their session: the conversation with the model and the agent's state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.events.log import make_storable

ADD_MESSAGES = text(
    """
    INSERT INTO transcript (session_id, position, message)
    SELECT :session_id, CAST(:first_position AS bigint) + item.position, item.message::jsonb
    FROM unnest(CAST(:messages AS text[])) WITH ORDINALITY AS item(message, position)
    """
)
WRITE_STATE = text(
    """
    INSERT INTO agent_states (session_id, state) VALUES (:session_id, CAST(:state AS jsonb))
    ON CONFLICT (session_id) DO UPDATE SET state = excluded.state
    """
)


class ConversationRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def messages(self, session_id: UUID) -> list[dict[str, Any]]:
        """All messages as the model sees them, oldest first."""
        statement = text("SELECT message FROM transcript WHERE session_id = :id ORDER BY position")
        return list(await self._tx.scalars(statement, {"id": session_id}))

    async def add_messages(self, session_id: UUID, messages: Sequence[Mapping[str, Any]], *, stored_count: int) -> None:
        """Append messages to a conversation that has `stored_count` messages."""
        documents = [json.dumps(make_storable(dict(message)), ensure_ascii=False) for message in messages]
        parameters = {"session_id": session_id, "first_position": stored_count, "messages": documents}
        await self._tx.execute(ADD_MESSAGES, parameters)

    async def state(self, session_id: UUID) -> dict[str, Any]:
        """The agent's state; {} before the first run."""
        statement = text("SELECT state FROM agent_states WHERE session_id = :id")
        return dict(await self._tx.scalar(statement, {"id": session_id}) or {})

    async def write_state(self, session_id: UUID, state: Mapping[str, Any]) -> None:
        document = json.dumps(make_storable(dict(state)), ensure_ascii=False)
        await self._tx.execute(WRITE_STATE, {"session_id": session_id, "state": document})
