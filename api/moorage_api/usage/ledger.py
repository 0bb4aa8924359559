"""Price model calls, store them in the transaction of their answer, and count them as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.agent.model.usage import ModelCall
from moorage_api.usage.repository import PricedCall, UsageRepository
from moorage_api.usage.schemas import ModelPrice

CALLS = Counter("moorage_model_calls", "Model calls in the ledger", ["model", "outcome"])
TOKENS = Counter(
    "moorage_model_tokens",
    "Tokens of model calls: input, cached (part of input), output, reasoning (part of output)",
    ["model", "kind"],
)
COST = Counter("moorage_model_cost", "Cost of model calls, in the currency of the admin's prices", ["model"])

MILLION = Decimal(1_000_000)


class PriceList:
    """The prices at one moment, by the name of the model."""

    def __init__(self, prices: Iterable[ModelPrice] = ()) -> None:
        self._prices: Mapping[str, ModelPrice] = {price.model_name: price for price in prices}

    def apply(self, call: ModelCall) -> PricedCall:
        price = self._prices.get(call.model)
        return PricedCall(call, None if price is None else cost_of(call, price))


def cost_of(call: ModelCall, price: ModelPrice) -> Decimal:
    """Cached input costs its own price, or the price of other input if it has none."""
    usage = call.usage
    whole = Decimal(str(price.input_per_million))
    cached = whole if price.cached_input_per_million is None else Decimal(str(price.cached_input_per_million))
    total = (usage.input_tokens - usage.cached_tokens) * whole + usage.cached_tokens * cached
    return (total + usage.output_tokens * Decimal(str(price.output_per_million))) / MILLION


async def store_calls(tx: AsyncSession, calls: Sequence[PricedCall], *, session_id: UUID, user_id: UUID) -> None:
    if calls:
        await UsageRepository(tx).add(calls, session_id=session_id, user_id=user_id)


def count_calls(calls: Iterable[PricedCall]) -> None:
    """Count calls in the metrics of this process. Called after their transaction."""
    for item in calls:
        model, usage = item.call.model, item.call.usage
        CALLS.labels(model, item.call.outcome).inc()
        TOKENS.labels(model, "input").inc(usage.input_tokens)
        TOKENS.labels(model, "cached").inc(usage.cached_tokens)
        TOKENS.labels(model, "output").inc(usage.output_tokens)
        TOKENS.labels(model, "reasoning").inc(usage.reasoning_tokens)
        COST.labels(model).inc(float(item.cost or 0))
