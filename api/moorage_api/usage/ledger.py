"""Store model calls in the transaction of their answer, and count them as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.usage.pricing import PricedCall
from moorage_api.usage.repository import UsageRepository

CALLS = Counter("moorage_model_calls", "Model calls in the ledger", ["model", "outcome"])
TOKENS = Counter(
    "moorage_model_tokens",
    "Tokens of model calls: input, cached (part of input), output, reasoning (part of output)",
    ["model", "kind"],
)
COST = Counter("moorage_model_cost", "Cost of model calls, in the currency of the admin's prices", ["model"])


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
