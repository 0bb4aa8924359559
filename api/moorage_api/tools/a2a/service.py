"""A2A servers: remote agents that an admin adds and that runs send messages to."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from moorage_api.database import Database
from moorage_api.errors import InvalidError
from moorage_api.outbound import Outbound
from moorage_api.preferences.repository import PreferenceRepository
from moorage_api.tools.models import A2aServerRow
from moorage_api.tools.repository import ToolRepository
from moorage_api.tools.schemas import A2aServerList, A2aServerRead, ToolList, ToolWithPreference

if TYPE_CHECKING:
    from moorage_api.tools.a2a.client import Reply

MAX_SERVERS = 50
CLIENT_MODULE = "moorage_api.tools.a2a.client"
"""Imports the A2A project's SDK, which takes most of a second. It is imported at its first use, in a thread."""


@dataclass(frozen=True)
class OfferedAgent:
    """A remote agent that a run may use."""

    id: UUID
    base_url: str
    card: dict[str, Any]


class A2aService:
    def __init__(self, db: Database, outbound: Outbound) -> None:
        self._db = db
        self._outbound = outbound

    async def read_all(self) -> A2aServerList:
        async with self._db() as tx:
            rows = await ToolRepository(tx).a2a_servers()
        return A2aServerList(a2a_servers=[to_read(row) for row in rows])

    async def create(self, base_url: str) -> None:
        """Read the agent's card and add the agent.

        Raises InvalidError if it cannot be reached and ConflictError if it was added before.
        """
        card = await self._fetch_card(base_url)
        async with self._db.begin() as tx:
            if len(await ToolRepository(tx).a2a_servers()) >= MAX_SERVERS:
                raise InvalidError(f"At most {MAX_SERVERS} A2A servers can be configured; delete one first")
            await ToolRepository(tx).add_a2a_server(base_url, card=card)

    async def _fetch_card(self, base_url: str) -> dict[str, Any]:
        card = await (await client_module()).fetch_card(self._outbound, base_url)
        return dict(card)

    async def delete(self, server_id: UUID) -> None:
        async with self._db.begin() as tx:
            await ToolRepository(tx).delete_a2a_server(server_id)

    async def set_enabled(self, server_id: UUID, *, enabled: bool) -> None:
        """Enabling reads the card again; if the agent cannot be reached, the old card stays. Raises NotFoundError."""
        async with self._db() as tx:
            row = await ToolRepository(tx).a2a_server(server_id)
        card = row.card
        if enabled:
            with suppress(InvalidError):
                card = await self._fetch_card(row.base_url)
        async with self._db.begin() as tx:
            await ToolRepository(tx).update_a2a_server(server_id, enabled=enabled, card=card)

    async def list_for_user(self, user_id: UUID) -> ToolList:
        async with self._db() as tx:
            repository = ToolRepository(tx)
            rows, wanted = await repository.a2a_servers(), await PreferenceRepository(tx).get(user_id, "a2a")
        return ToolList(
            tools=[
                ToolWithPreference(
                    tool_id=str(row.id),
                    tool_name=row.card.get("name", ""),
                    description=row.card.get("description", ""),
                    enabled_global=row.enabled,
                    enabled_user=wanted.get(str(row.id), True),
                )
                for row in rows
            ]
        )

    async def set_preference(self, user_id: UUID, server_id: UUID, *, enabled: bool) -> None:
        """Raises NotFoundError."""
        async with self._db.begin() as tx:
            repository = ToolRepository(tx)
            await repository.a2a_server(server_id)
            await PreferenceRepository(tx).set(user_id, "a2a", str(server_id), enabled=enabled)

    async def list_for_run(self, user_id: UUID) -> Sequence[OfferedAgent]:
        async with self._db() as tx:
            repository = ToolRepository(tx)
            rows, wanted = await repository.a2a_servers(), await PreferenceRepository(tx).get(user_id, "a2a")
        return [
            OfferedAgent(row.id, row.base_url, row.card)
            for row in rows
            if row.enabled and wanted.get(str(row.id), True)
        ]

    async def send(self, agent: OfferedAgent, session_id: UUID, query: str) -> Reply:
        """Continue the session's conversation with the agent. Raises what RemoteAgent.send raises."""
        async with self._db() as tx:
            context_id, task_id = await ToolRepository(tx).a2a_conversation(session_id, agent.id)
        remote = (await client_module()).RemoteAgent(self._outbound, agent.base_url, agent.card)
        reply: Reply = await remote.send(query, context_id=context_id, task_id=task_id)
        async with self._db.begin() as tx:
            await ToolRepository(tx).set_a2a_conversation(
                session_id, agent.id, context_id=reply.context_id[:500], task_id=reply.task_id[:500]
            )
        return reply


async def client_module() -> Any:
    return await asyncio.to_thread(importlib.import_module, CLIENT_MODULE)


def to_read(row: A2aServerRow) -> A2aServerRead:
    card, capabilities = row.card, row.card.get("capabilities", {})
    return A2aServerRead(
        id=row.id,
        name=card.get("name", ""),
        description=card.get("description", ""),
        input_modes=card.get("defaultInputModes", []),
        output_modes=card.get("defaultOutputModes", []),
        streaming=capabilities.get("streaming", False),
        push_notifications=capabilities.get("pushNotifications", False),
        enabled=row.enabled,
    )
