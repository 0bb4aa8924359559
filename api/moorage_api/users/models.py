"""Tables of accounts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class UserRow(Base):
    """An account. `password_hash` is null if the user logs in through another provider only.

    Names and e-mail addresses are unique without regard to case.
    """

    __tablename__ = "users"
    __table_args__ = (
        Index("uq_users_username_lower", text("lower(username)"), unique=True),
        Index("uq_users_email_lower", text("lower(email)"), unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    username: Mapped[str | None] = mapped_column(String(50))
    email: Mapped[str | None] = mapped_column(String(254))
    password_hash: Mapped[str | None]
    nickname: Mapped[str] = mapped_column(String(100), server_default="")
    avatar: Mapped[str] = mapped_column(String(2048), server_default="")
    role: Mapped[str] = mapped_column(String(20), server_default="user")
    status: Mapped[str] = mapped_column(String(20), server_default="active")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UserIdentityRow(Base):
    """An identity at another provider that logs in to one of our accounts.

    A WeChat user has up to two: the openid and the unionid.
    """

    __tablename__ = "user_identities"

    provider: Mapped[str] = mapped_column(String(50), primary_key=True)
    subject: Mapped[str] = mapped_column(String(200), primary_key=True)
    """The user's id at the provider."""
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TokenFamilyRow(Base):
    """One login. All its tokens carry the family's id. Deleting the row ends them (reactivation, new password)."""

    __tablename__ = "token_families"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    newest_jti: Mapped[UUID]
    """Id of the newest refresh token. With single use, only this one is accepted."""
    expires_at: Mapped[datetime] = mapped_column(index=True)
