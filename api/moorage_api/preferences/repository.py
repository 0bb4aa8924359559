"""SQL of preferences. A tool or skill without a row is switched on."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.preferences.models import ToolPreferenceRow

PreferenceKind = Literal["mcp", "a2a", "skill"]


class PreferenceRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def get(self, user_id: UUID, kind: PreferenceKind) -> dict[str, bool]:
        rows = await self._tx.execute(
            select(ToolPreferenceRow.tool_id, ToolPreferenceRow.enabled).where(
                ToolPreferenceRow.user_id == user_id, ToolPreferenceRow.kind == kind
            )
        )
        return {row.tool_id: row.enabled for row in rows}

    async def set(self, user_id: UUID, kind: PreferenceKind, tool_id: str, *, enabled: bool) -> None:
        values = {"user_id": user_id, "kind": kind, "tool_id": tool_id, "enabled": enabled}
        await self._tx.execute(
            insert(ToolPreferenceRow)
            .values(values)
            .on_conflict_do_update(index_elements=["user_id", "kind", "tool_id"], set_={"enabled": enabled})
        )

    async def forget(self, kind: PreferenceKind, tool_id: str) -> None:
        """Remove the preferences of all users for it."""
        await self._tx.execute(
            delete(ToolPreferenceRow).where(ToolPreferenceRow.kind == kind, ToolPreferenceRow.tool_id == tool_id)
        )
