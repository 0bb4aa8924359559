"""What model calls add up to, for users and for admins, and the prices that admins set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from uuid import UUID

from moorage_api.database import Database
from moorage_api.errors import InvalidError
from moorage_api.usage.pricing import PriceList
from moorage_api.usage.repository import Selection, UsageRepository
from moorage_api.usage.schemas import Group, ModelPrices, UsageResponse

DEFAULT_DAYS = 30


class UsageService:
    def __init__(self, db: Database, now: Callable[[], datetime]) -> None:
        self._db = db
        self._now = now

    async def summarise(
        self,
        *,
        user_id: UUID | None,
        session_id: UUID | None,
        since: date | None,
        until: date | None,
        by: Sequence[Group],
        skip: int,
        limit: int,
    ) -> UsageResponse:
        """Add up the calls of one user, or of all users if `user_id` is None.

        Without `until` the last day is today, and without `since` the first is 29 days before it.
        """
        last = until or self._now().date()
        first = since or date.fromordinal(max(1, last.toordinal() - DEFAULT_DAYS + 1))
        if first > last:
            raise InvalidError(f"`since` ({first}) is after `until` ({last}); exchange them")
        chosen = Selection(user_id, session_id, first, last)
        async with self._db() as tx:
            usage = UsageRepository(tx)
            rows, count = await usage.list_groups(chosen, by=by, skip=skip, limit=limit)
            total = await usage.total(chosen)
        return UsageResponse(since=first, until=last, total=total, rows=rows, row_count=count)

    async def prices(self) -> ModelPrices:
        async with self._db() as tx:
            return ModelPrices(prices=await UsageRepository(tx).list_prices())

    async def price_list(self) -> PriceList:
        """The prices for the calls of a run."""
        return PriceList((await self.prices()).prices)

    async def replace_prices(self, prices: ModelPrices) -> ModelPrices:
        """Replace all prices. They apply to runs that begin from now on; earlier calls keep their cost."""
        async with self._db.begin() as tx:
            await UsageRepository(tx).replace_prices(prices.prices)
        return await self.prices()
