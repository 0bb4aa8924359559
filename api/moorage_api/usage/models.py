"""Tables of model calls and of prices."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Numeric, String, func
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class ModelCallRow(Base):
    """One request to a model. Written before it is sent, and completed in the transaction of its answer.

    A row outlives its session and its user, because the call was paid for. It then belongs to nobody.
    """

    __tablename__ = "model_calls"
    __table_args__ = (Index("ix_model_calls_user_created", "user_id", "created_at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    call_id: Mapped[UUID | None] = mapped_column(unique=True)
    """Null in rows of versions that wrote a call once, at its end."""
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("sessions.id", ondelete="SET NULL"), index=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    model: Mapped[str] = mapped_column(String(200))
    base_url: Mapped[str] = mapped_column(String(2048))
    outcome: Mapped[str] = mapped_column(String(20))
    """`answered`, `failed`, `interrupted` or `started`. A row stays `started` if its runner was killed."""
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    """The part of the input tokens that the server read from its cache."""
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    """The part of the output tokens that the model used to think."""
    is_estimated: Mapped[bool]
    """The server did not say how many tokens it counted."""
    cost: Mapped[Decimal | None] = mapped_column(Numeric(24, 12))
    """By the prices at the time of the call; null if the model had no price then."""


class ModelPriceRow(Base):
    """Prices of one model for a million tokens, in the currency of the admin's choice."""

    __tablename__ = "model_prices"

    model_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    input_per_million: Mapped[Decimal] = mapped_column(Numeric(18, 6))
    cached_input_per_million: Mapped[Decimal | None] = mapped_column(Numeric(18, 6))
    """Null if cached tokens cost as much as others."""
    output_per_million: Mapped[Decimal] = mapped_column(Numeric(18, 6))
