"""What a model call costs by the admin's prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from moorage_api.agent.model.incoming.usage import ModelCall
from moorage_api.usage.schemas import ModelPrice

MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class PricedCall:
    call: ModelCall
    cost: Decimal | None
    """None if the model has no price."""


class PriceList:
    """The prices at one moment, by the name of the model."""

    def __init__(self, prices: Iterable[ModelPrice] = ()) -> None:
        self._prices: Mapping[str, ModelPrice] = {price.model_name: price for price in prices}

    def apply(self, call: ModelCall) -> PricedCall:
        price = self._prices.get(call.model)
        return PricedCall(call, None if price is None else cost_of(call, price))


def cost_of(call: ModelCall, price: ModelPrice) -> Decimal:
    """Cached input costs its own price, or the price of other input if `price` does not name one."""
    usage = call.usage
    whole = Decimal(str(price.input_per_million))
    cached = whole if price.cached_input_per_million is None else Decimal(str(price.cached_input_per_million))
    total = (usage.input_tokens - usage.cached_tokens) * whole + usage.cached_tokens * cached
    return (total + usage.output_tokens * Decimal(str(price.output_per_million))) / MILLION
