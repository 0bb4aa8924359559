"""SQL of the stored configuration: one JSON object for each name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

WRITE = text(
    """
    INSERT INTO app_config (name, value) VALUES (:name, CAST(:value AS jsonb))
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = now()
    """
)
REPLACE = text(
    "UPDATE app_config SET value = CAST(:after AS jsonb) WHERE name = :name AND value = CAST(:before AS jsonb)"
)
MAKE_ROW = text("INSERT INTO app_config (name, value) VALUES (:name, '{}') ON CONFLICT (name) DO NOTHING")
ADD_MODEL_FACTS = text(
    """
    INSERT INTO app_config (name, value)
    VALUES ('model_facts', jsonb_build_object(CAST(:model AS text), CAST(:facts AS jsonb)))
    ON CONFLICT (name) DO UPDATE SET updated_at = now(), value = app_config.value || jsonb_build_object(
        CAST(:model AS text),
        COALESCE(app_config.value -> CAST(:model AS text), '{}') || CAST(:facts AS jsonb)
    )
    """
)

FORGET_MODEL_FACTS = text(
    "UPDATE app_config SET updated_at = now(), value = value - CAST(:model AS text) WHERE name = 'model_facts'"
)


class ConfigRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def read(self, name: str) -> dict[str, Any]:
        """Read one object; {} if nothing is stored."""
        value = await self._tx.scalar(text("SELECT value FROM app_config WHERE name = :name"), {"name": name})
        return dict(value or {})

    async def read_for_update(self, name: str) -> dict[str, Any]:
        """Read one object and keep others from changing it until the end of the transaction."""
        await self._tx.execute(MAKE_ROW, {"name": name})
        statement = text("SELECT value FROM app_config WHERE name = :name FOR UPDATE")
        return dict(await self._tx.scalar(statement, {"name": name}) or {})

    async def write(self, name: str, value: Mapping[str, Any]) -> None:
        await self._tx.execute(WRITE, {"name": name, "value": json.dumps(value)})

    async def replace(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Replace the value, but only if it is still `before`."""
        await self._tx.execute(REPLACE, {"name": name, "before": json.dumps(before), "after": json.dumps(after)})

    async def add_model_facts(self, model: str, facts: Mapping[str, Any]) -> None:
        """Add to what is known about a model. Facts that others add at the same time are kept."""
        await self._tx.execute(ADD_MODEL_FACTS, {"model": model, "facts": json.dumps(dict(facts))})

    async def forget_model_facts(self, model: str) -> None:
        await self._tx.execute(FORGET_MODEL_FACTS, {"model": model})
