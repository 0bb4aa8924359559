"""Tables of MCP servers, A2A servers, A2A conversations and users' tool preferences."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, String, func
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class McpServerRow(Base):
    """`sealed` is the encrypted configuration of the connection. `probe` is the last probe's `{tools, error}`."""

    __tablename__ = "mcp_servers"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    transport: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(String(2000), server_default="")
    enabled: Mapped[bool]
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    probe: Mapped[dict[str, Any]]
    probed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class A2aServerRow(Base):
    """A remote agent. `card` is its agent card, as it was read last."""

    __tablename__ = "a2a_servers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    base_url: Mapped[str] = mapped_column(String(2048), unique=True)
    card: Mapped[dict[str, Any]]
    enabled: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class A2aConversationRow(Base):
    """The conversation of a session with a remote agent. `task_id` is "" unless the agent waits for an answer."""

    __tablename__ = "a2a_conversations"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    server_id: Mapped[UUID] = mapped_column(ForeignKey("a2a_servers.id", ondelete="CASCADE"), primary_key=True)
    context_id: Mapped[str] = mapped_column(String(500))
    task_id: Mapped[str] = mapped_column(String(500))
