"""Tables of runs, and of what another runner needs to continue a run."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class RunRow(Base):
    """One turn of a chat. At most one per session is active (queued or running)."""

    __tablename__ = "runs"
    __table_args__ = (
        Index(
            "uq_runs_active_session",
            "session_id",
            unique=True,
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index("ix_runs_open", "created_at", postgresql_where=text("status IN ('queued', 'running')")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(20), server_default="queued")
    """Active: queued, running. Ended: done, waiting (for the user), failed, stopped."""
    first_seq: Mapped[int] = mapped_column(BigInteger)
    """Seq of the user message that started this run. A stream of this run starts there."""
    inbox_seq: Mapped[int] = mapped_column(BigInteger)
    """Seq of the newest user message that this run has to answer."""
    consumed_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Seq of the newest user message that this run has read. A run ends only when it has read all of them."""
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    runner_lock: Mapped[int | None] = mapped_column(BigInteger)
    """Number of the advisory lock that the runner holds while its database connection lives."""
    lease_expires_at: Mapped[datetime | None]
    stop_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class AgentStateRow(Base):
    """The agent's progress in a session: plan, step, counters, an open question. Written together with its events."""

    __tablename__ = "agent_states"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[dict[str, Any]]


class TranscriptRow(Base):
    """One message as the model sees it. Append-only; the agent's state records which messages compaction leaves out."""

    __tablename__ = "transcript"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message: Mapped[dict[str, Any]]
