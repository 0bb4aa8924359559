"""Store model calls when they begin and in the transaction of their answer, and count them as metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.usage.pricing import PricedCall
from moorage_api.usage.repository import BEGIN, UsageRepository

logger = logging.getLogger(__name__)

CALLS = Counter("moorage_model_calls", "Model calls in the ledger", ["model", "outcome"])
TOKENS = Counter(
    "moorage_model_tokens",
    "Tokens of model calls: input, cached (part of input), output, reasoning (part of output)",
    ["model", "kind"],
)
COST = Counter("moorage_model_cost", "Cost of model calls, in the currency of the admin's prices", ["model"])


async def begin_call(db: Database, item: PricedCall, *, session_id: UUID, user_id: UUID) -> None:
    """Store a call that is sent next, so that it is counted even if this process is killed. One round trip.

    The call is sent also when this fails: its end is stored in any case.
    """
    call = item.call
    try:
        await db.fetch(
            BEGIN, call.id, session_id, user_id, call.model, call.base_url, call.usage.input_tokens, item.cost
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        logger.warning("A model call is stored only when it has ended: %s", type(error).__name__)


async def store_calls(tx: AsyncSession, calls: Sequence[PricedCall], *, session_id: UUID, user_id: UUID) -> None:
    """Store calls that have ended. Refused ones do not count."""
    if ended := [item for item in calls if item.call.outcome != "refused"]:
        await UsageRepository(tx).add(ended, session_id=session_id, user_id=user_id)
    if refused := [item.call.id for item in calls if item.call.outcome == "refused"]:
        await UsageRepository(tx).remove(refused)


def count_calls(calls: Iterable[PricedCall]) -> None:
    """Count calls in the metrics of this process. Called after their transaction."""
    for item in calls:
        if item.call.outcome == "refused":
            continue
        model, usage = item.call.model, item.call.usage
        CALLS.labels(model, item.call.outcome).inc()
        TOKENS.labels(model, "input").inc(usage.input_tokens)
        TOKENS.labels(model, "cached").inc(usage.cached_tokens)
        TOKENS.labels(model, "output").inc(usage.output_tokens)
        TOKENS.labels(model, "reasoning").inc(usage.reasoning_tokens)
        COST.labels(model).inc(float(item.cost or 0))
