"""Tables of sessions: what a list shows about each one, and the version of each list. The log has the history."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class SessionRow(Base):
    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_owner_latest", "owner_id", "latest_message_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200), server_default="")
    latest_message: Mapped[str] = mapped_column(String(500), server_default="")
    latest_message_at: Mapped[datetime | None]
    status: Mapped[Literal["pending", "running", "waiting", "completed"]] = mapped_column(
        String(20), server_default="pending"
    )
    unread_message_count: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    """Set when the user deletes the session. The row itself is removed later, after its sandbox and its objects."""


class UserHeadRow(Base):
    """Counts the changes of a user's session list, so that all idle list streams together need one small query."""

    __tablename__ = "user_heads"
    __table_args__ = {"postgresql_with": {"fillfactor": 50}}  # noqa: RUF012 - SQLAlchemy's own form

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(server_default="0")
