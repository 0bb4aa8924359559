"""SQL of MCP servers, A2A servers and users' tool preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import uuid7
from moorage_api.errors import ConflictError, NotFoundError
from moorage_api.preferences.repository import PreferenceRepository
from moorage_api.tools.models import A2aConversationRow, A2aServerRow, McpServerRow

SWITCHED_ON = """
    (
        SELECT 'mcp' AS kind, name AS tool_id FROM mcp_servers WHERE enabled
        UNION ALL SELECT 'a2a', id::text FROM a2a_servers WHERE enabled
        UNION ALL SELECT 'skill', id FROM skills WHERE enabled
    )
    EXCEPT SELECT kind, tool_id FROM tool_preferences WHERE user_id = :user_id AND NOT enabled
"""
"""One statement that reads the tables of three features, because it runs before every model call."""


class ToolRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def switched_on(self, user_id: UUID) -> frozenset[tuple[str, str]]:
        """Kind and id of the tools and skills that are on for everyone and that this user has not switched off."""
        rows = await self._tx.execute(text(SWITCHED_ON), {"user_id": user_id})
        return frozenset((row.kind, row.tool_id) for row in rows)

    async def mcp_servers(self) -> Sequence[McpServerRow]:
        """Ordered by name: if two tools have the same function name, the first keeps it and the other gets a hash."""
        return (await self._tx.scalars(select(McpServerRow).order_by(McpServerRow.name))).all()

    async def mcp_server(self, name: str) -> McpServerRow:
        row = await self._tx.get(McpServerRow, name)
        if row is None:
            raise NotFoundError("There is no MCP server with that name")
        return row

    async def put_mcp_server(
        self, name: str, *, transport: str, description: str, enabled: bool, sealed: bytes
    ) -> None:
        """Add a server, or replace the server with that name and forget its tools."""
        values = {
            "transport": transport,
            "description": description,
            "enabled": enabled,
            "sealed": sealed,
            "probe": {},
            "probed_at": None,
        }
        await self._tx.execute(
            insert(McpServerRow).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
        )

    async def count_mcp_servers(self, *, besides: Sequence[str]) -> int:
        query = select(func.count()).select_from(McpServerRow).where(McpServerRow.name.not_in(besides))
        return int(await self._tx.scalar(query) or 0)

    async def set_probe(self, name: str, *, sealed: bytes, probe: Mapping[str, Any]) -> None:
        """Store the result of a probe, unless the server's configuration was replaced during the probe."""
        await self._tx.execute(
            update(McpServerRow)
            .where(McpServerRow.name == name, McpServerRow.sealed == sealed)
            .values(probe=dict(probe), probed_at=func.now())
        )

    async def set_mcp_enabled(self, name: str, *, enabled: bool) -> None:
        row = await self.mcp_server(name)
        row.enabled = enabled

    async def delete_mcp_server(self, name: str) -> None:
        await self._tx.delete(await self.mcp_server(name))
        await PreferenceRepository(self._tx).forget("mcp", name)

    async def a2a_servers(self) -> Sequence[A2aServerRow]:
        return (await self._tx.scalars(select(A2aServerRow).order_by(A2aServerRow.created_at, A2aServerRow.id))).all()

    async def a2a_server(self, server_id: UUID) -> A2aServerRow:
        row = await self._tx.get(A2aServerRow, server_id)
        if row is None:
            raise NotFoundError("There is no A2A server with that id")
        return row

    async def add_a2a_server(self, base_url: str, *, card: dict[str, Any]) -> None:
        """Raises ConflictError if there is a server with this URL."""
        self._tx.add(A2aServerRow(id=uuid7(), base_url=base_url, card=card, enabled=True))
        try:
            await self._tx.flush()
        except IntegrityError as error:
            raise ConflictError(f"An A2A server with the base URL {base_url} exists already") from error

    async def update_a2a_server(self, server_id: UUID, *, enabled: bool, card: dict[str, Any]) -> None:
        row = await self.a2a_server(server_id)
        row.enabled, row.card = enabled, card

    async def delete_a2a_server(self, server_id: UUID) -> None:
        await self._tx.delete(await self.a2a_server(server_id))
        await PreferenceRepository(self._tx).forget("a2a", str(server_id))

    async def a2a_conversation(self, session_id: UUID, server_id: UUID) -> tuple[str, str]:
        """Context and task of what the session and the agent talked about last; two empty texts for nothing."""
        row = await self._tx.get(A2aConversationRow, (session_id, server_id))
        return (row.context_id, row.task_id) if row is not None else ("", "")

    async def set_a2a_conversation(self, session_id: UUID, server_id: UUID, *, context_id: str, task_id: str) -> None:
        values = {"context_id": context_id, "task_id": task_id}
        await self._tx.execute(
            insert(A2aConversationRow)
            .values(session_id=session_id, server_id=server_id, **values)
            .on_conflict_do_update(index_elements=["session_id", "server_id"], set_=values)
        )
