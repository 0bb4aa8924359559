"""Tables of runs and of what a run needs to go on elsewhere."""

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
    """queued, running; then done, waiting (for the user), failed or stopped."""
    first_seq: Mapped[int] = mapped_column(BigInteger)
    """The event of the message that asked for this run: where a stream of this run starts."""
    inbox_seq: Mapped[int] = mapped_column(BigInteger)
    """The newest user message that this run has to answer."""
    consumed_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The newest user message that it has read. A run ends only when it has read them all."""
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    runner_lock: Mapped[int | None] = mapped_column(BigInteger)
    """Key of the advisory lock that the runner holds for as long as its connection lives."""
    lease_expires_at: Mapped[datetime | None]
    stop_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class AgentStateRow(Base):
    """Where the agent of a session stands: plan, step, counters, a question that waits. Written with its events."""

    __tablename__ = "agent_states"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[dict[str, Any]]


class SandboxRow(Base):
    """Which sandbox a session's calls go to. A call older than `since_seq` went to one that is gone."""

    __tablename__ = "session_sandboxes"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    uid: Mapped[str] = mapped_column(String(100))
    since_seq: Mapped[int] = mapped_column(BigInteger)
    notice: Mapped[str] = mapped_column(server_default="")
    """What the model has yet to be told about a sandbox that was replaced; emptied with the messages that tell it."""
    suspended_at: Mapped[datetime | None]
    """Since when it has none because nobody needed it; the next need sets it back."""


class TranscriptRow(Base):
    """One message as the model sees it; append-only. What compaction leaves out, the agent's state says."""

    __tablename__ = "transcript"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message: Mapped[dict[str, Any]]
