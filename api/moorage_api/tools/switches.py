"""The MCP servers, remote agents and skills that are on for one user: switched on for everyone and by the user."""

from __future__ import annotations

from uuid import UUID

from moorage_api.agent.ports import SwitchedKind
from moorage_api.database import Database
from moorage_api.tools.repository import ToolRepository


class UserSwitches:
    """Implements the agent's port Switches. Before the first `refresh` everything counts as on."""

    def __init__(self, db: Database, user_id: UUID) -> None:
        self._db = db
        self._user_id = user_id
        self._on: frozenset[tuple[str, str]] | None = None

    async def refresh(self) -> None:
        async with self._db() as tx:
            self._on = await ToolRepository(tx).switched_on(self._user_id)

    def is_on(self, kind: SwitchedKind, tool_id: str) -> bool:
        return self._on is None or (kind, tool_id) in self._on
