"""Table of sandboxes that sessions use."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class SandboxRow(Base):
    """The sandbox that receives a session's calls. Calls older than `since_seq` went to an earlier, lost sandbox."""

    __tablename__ = "session_sandboxes"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    uid: Mapped[str] = mapped_column(String(100))
    since_seq: Mapped[int] = mapped_column(BigInteger)
    notice: Mapped[str] = mapped_column(server_default="")
    """Text for the model about a replaced sandbox. Emptied when the messages that contain it are stored."""
    suspended_at: Mapped[datetime | None]
    """When the sandbox was suspended because it was idle; null while it is not suspended. The next use resets it."""
