"""Tables of skills, their versions, and the versions pinned to sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class SkillVersionRow(Base):
    """One installed version. It is kept while a skill or a session uses it, and for some time after that."""

    __tablename__ = "skill_versions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    skill_id: Mapped[str] = mapped_column(String(100), index=True)
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the archive in hexadecimal. The key of the object contains it."""
    manifest: Mapped[dict[str, Any]]
    context: Mapped[str]
    risk: Mapped[dict[str, Any]]
    file_count: Mapped[int]
    reference_count: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    unused_since: Mapped[datetime | None]
    """When upkeep first found that the version is unused; NULL while it is used."""


class SkillRow(Base):
    __tablename__ = "skills"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("skill_versions.id"))
    source_type: Mapped[str] = mapped_column(String(10))
    source_ref: Mapped[str] = mapped_column(String(2048))
    enabled: Mapped[bool]
    installed_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_sync_at: Mapped[datetime | None]


class SessionPinningRow(Base):
    """Marks a session whose skills are pinned, also if it has no skills."""

    __tablename__ = "session_pinnings"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SessionSkillRow(Base):
    """One skill of a session. `position` starts at 0 with the skill most relevant to the first message."""

    __tablename__ = "session_skills"
    __table_args__ = (Index("uq_session_skills_skill", "session_id", "skill_id", unique=True),)

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    skill_id: Mapped[str] = mapped_column(String(100))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("skill_versions.id"), index=True)
    phase: Mapped[str] = mapped_column(String(10))
