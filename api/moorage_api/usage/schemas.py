"""Request and response bodies of the usage module."""

from __future__ import annotations

from datetime import date
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moorage_api.text import StorableText

Group = Literal["session", "user", "model", "day"]

MAX_PRICE = 1_000_000


class ModelPrice(BaseModel):
    """Prices for a million tokens. All prices are in one currency, which you choose."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: StorableText = Field(min_length=1, max_length=200)
    input_per_million: float = Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)
    cached_input_per_million: float | None = Field(default=None, ge=0, le=MAX_PRICE, allow_inf_nan=False)
    """Price of input that the server reads from its cache; without it they cost as much as other input."""
    output_per_million: float = Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)


class ModelPrices(BaseModel):
    prices: list[ModelPrice] = Field(max_length=500)

    @model_validator(mode="after")
    def check_names(self) -> Self:
        names = [price.model_name for price in self.prices]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"these models have two prices: {', '.join(twice)}")
        return self


class UsageTotals(BaseModel):
    """Cached tokens are a part of the input tokens, reasoning tokens a part of the output tokens."""

    calls: int
    estimated_calls: int
    """Calls whose server did not say the usage, so that the tokens are estimated."""
    unpriced_calls: int
    """Calls of models that had no price. They are not in the cost."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: float
    """By the prices at the time of each call, in the currency of the prices."""


class UsageRow(UsageTotals):
    """One group. Only the fields of the groups that were asked for are set."""

    session_id: UUID | None = None
    user_id: UUID | None = None
    model: str | None = None
    day: date | None = None


class UsageResponse(BaseModel):
    since: date
    until: date
    """The last day, which is included. Days are of UTC."""
    total: UsageTotals
    rows: list[UsageRow]
    row_count: int
    """The number of all groups."""
