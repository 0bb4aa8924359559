"""Table of users' preferences."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class ToolPreferenceRow(Base):
    """A user's switch of a tool or skill. Without a row it is on.

    `tool_id` is the name of an MCP server, or the id of an A2A server or a skill.
    """

    __tablename__ = "tool_preferences"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    tool_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    enabled: Mapped[bool]
