"""The MCP servers, remote agents and skills that are on for one user: switched on for everyone and by the user."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text

from moorage_api.agent.ports import SwitchedKind
from moorage_api.database import Database

ON = """
    (
        SELECT 'mcp' AS kind, name AS tool_id FROM mcp_servers WHERE enabled
        UNION ALL SELECT 'a2a', id::text FROM a2a_servers WHERE enabled
        UNION ALL SELECT 'skill', id FROM skills WHERE enabled
    )
    EXCEPT SELECT kind, tool_id FROM tool_preferences WHERE user_id = :user_id AND NOT enabled
"""
"""One statement over the tables of two features, because it runs before every model call."""


class UserSwitches:
    """Implements the agent's port Switches. Before the first `refresh` everything counts as on."""

    def __init__(self, db: Database, user_id: UUID) -> None:
        self._db = db
        self._user_id = user_id
        self._on: frozenset[tuple[str, str]] | None = None

    async def refresh(self) -> None:
        async with self._db() as tx:
            rows = await tx.execute(text(ON), {"user_id": self._user_id})
            self._on = frozenset((row.kind, row.tool_id) for row in rows)

    def is_on(self, kind: SwitchedKind, tool_id: str) -> bool:
        return self._on is None or (kind, tool_id) in self._on
