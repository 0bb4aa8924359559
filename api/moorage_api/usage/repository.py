"""SQL of model calls and prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.usage.pricing import PricedCall
from moorage_api.usage.schemas import Group, ModelPrice, UsageRow, UsageTotals

COLUMNS: dict[Group, tuple[str, str]] = {
    "day": ("day", "CAST(created_at AT TIME ZONE 'UTC' AS date)"),
    "user": ("user_id", "user_id"),
    "session": ("session_id", "session_id"),
    "model": ("model", "model"),
}
"""Name and SQL of each group's column, in the order in which rows are sorted."""

TOTALS = """
    count(*) AS calls,
    count(*) FILTER (WHERE is_estimated) AS estimated_calls,
    count(*) FILTER (WHERE cost IS NULL) AS unpriced_calls,
    coalesce(sum(input_tokens), 0) AS input_tokens,
    coalesce(sum(cached_tokens), 0) AS cached_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(reasoning_tokens), 0) AS reasoning_tokens,
    coalesce(sum(cost), 0) AS cost
"""

CHOSEN = """
    FROM model_calls
    WHERE created_at >= CAST(:since AS date) AT TIME ZONE 'UTC'
    AND created_at < (CAST(:until AS date) + 1) AT TIME ZONE 'UTC'
    AND (CAST(:user_id AS uuid) IS NULL OR user_id = :user_id)
    AND (CAST(:session_id AS uuid) IS NULL OR session_id = :session_id)
"""

STORE = text(
    """
    INSERT INTO model_calls (call_id, session_id, user_id, model, base_url, outcome, input_tokens, cached_tokens,
        output_tokens, reasoning_tokens, is_estimated, cost)
    VALUES (:call_id, :session_id, :user_id, :model, :base_url, :outcome, :input_tokens, :cached_tokens,
        :output_tokens, :reasoning_tokens, :is_estimated, :cost)
    ON CONFLICT (call_id) DO UPDATE SET outcome = excluded.outcome, input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, output_tokens = excluded.output_tokens,
        reasoning_tokens = excluded.reasoning_tokens, is_estimated = excluded.is_estimated, cost = excluded.cost
    """
)
BEGIN = """
    WITH without_waiting_for_the_disk AS (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO model_calls (call_id, session_id, user_id, model, base_url, outcome, input_tokens, cached_tokens,
        output_tokens, reasoning_tokens, is_estimated, cost)
    SELECT $1, $2, $3, $4, $5, 'started', $6, 0, 0, 0, true, CAST($7 AS numeric) FROM without_waiting_for_the_disk
"""
"""A crash of the database may lose the row, but it matters only if the runner is killed at the same time."""


@dataclass(frozen=True)
class Selection:
    """Which calls to add up. `user_id` None means the calls of all users, so it is for admins only."""

    user_id: UUID | None
    session_id: UUID | None
    since: date
    until: date


class UsageRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def add(self, calls: Sequence[PricedCall], *, session_id: UUID, user_id: UUID) -> None:
        """Store calls that have ended. Those that were stored when they began are completed."""
        rows = [
            {
                "call_id": item.call.id,
                "session_id": session_id,
                "user_id": user_id,
                "model": item.call.model,
                "base_url": item.call.base_url,
                "outcome": item.call.outcome,
                "input_tokens": item.call.usage.input_tokens,
                "cached_tokens": item.call.usage.cached_tokens,
                "output_tokens": item.call.usage.output_tokens,
                "reasoning_tokens": item.call.usage.reasoning_tokens,
                "is_estimated": item.call.usage.is_estimated,
                "cost": item.cost,
            }
            for item in calls
        ]
        await self._tx.execute(STORE, rows)

    async def remove(self, call_ids: Sequence[UUID]) -> None:
        """Remove calls that were stored when they began and then refused."""
        await self._tx.execute(text("DELETE FROM model_calls WHERE call_id = ANY(:ids)"), {"ids": list(call_ids)})

    async def total(self, chosen: Selection) -> UsageTotals:
        row = (await self._tx.execute(text(f"SELECT {TOTALS} {CHOSEN}"), vars(chosen))).one()
        return UsageTotals.model_validate(dict(row._mapping))

    async def list_groups(
        self, chosen: Selection, *, by: Sequence[Group], skip: int, limit: int
    ) -> tuple[list[UsageRow], int]:
        """Return a page of the groups, newest day first, and the number of all groups."""
        columns = [COLUMNS[group] for group in COLUMNS if group in by]
        named = ", ".join(f"{sql} AS {name}" for name, sql in columns)
        order = ", ".join(f"{name} DESC" if name == "day" else name for name, _ in columns)
        grouped = f"SELECT {named}, {TOTALS} {CHOSEN} GROUP BY {', '.join(sql for _, sql in columns)}"
        rows = await self._tx.execute(
            text(f"{grouped} ORDER BY {order} OFFSET :skip LIMIT :limit"), vars(chosen) | {"skip": skip, "limit": limit}
        )
        counted = f"SELECT count(*) FROM (SELECT DISTINCT {named} {CHOSEN}) AS groups"  # noqa: S608
        count = await self._tx.scalar(text(counted), vars(chosen))
        return [UsageRow.model_validate(dict(row._mapping)) for row in rows], int(count or 0)

    async def list_prices(self) -> list[ModelPrice]:
        rows = await self._tx.execute(
            text(
                """
                SELECT model_name, input_per_million, cached_input_per_million, output_per_million
                FROM model_prices ORDER BY model_name
                """
            )
        )
        return [ModelPrice.model_validate(dict(row._mapping)) for row in rows]

    async def replace_prices(self, prices: Sequence[ModelPrice]) -> None:
        await self._tx.execute(text("DELETE FROM model_prices"))
        rows: list[dict[str, Any]] = [_to_decimals(price.model_dump()) for price in prices]
        if rows:
            await self._tx.execute(
                text(
                    """
                    INSERT INTO model_prices (model_name, input_per_million, cached_input_per_million,
                        output_per_million)
                    VALUES (:model_name, :input_per_million, :cached_input_per_million, :output_per_million)
                    """
                ),
                rows,
            )


def _to_decimals(values: dict[str, Any]) -> dict[str, Any]:
    return {name: Decimal(str(value)) if isinstance(value, float) else value for name, value in values.items()}
