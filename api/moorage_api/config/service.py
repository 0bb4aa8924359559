"""Platform-wide configuration: what an admin stored, else the defaults of the settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr
from sqlalchemy import text

from moorage_api.config.schemas import AgentConfig, LlmConfigRead, LlmConfigUpdate
from moorage_api.database import Database
from moorage_api.outbound import Outbound
from moorage_api.settings import Settings

SkillPolicyMode = Literal["off", "enforce_confirmation"]

DEFAULT_TEMPERATURE = 0.7
DEFAULT_MAX_TOKENS = 8192


@dataclass(frozen=True)
class LlmConfig:
    """What the runner needs to reach a model."""

    base_url: str
    api_key: SecretStr
    model_name: str
    temperature: float
    max_tokens: int


class ConfigService:
    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings

    async def llm(self) -> LlmConfig:
        stored = await self._read("llm")
        return LlmConfig(
            base_url=stored.get("base_url", self._settings.llm_base_url),
            api_key=SecretStr(stored.get("api_key") or self._settings.llm_api_key.get_secret_value()),
            model_name=stored.get("model_name", self._settings.llm_model),
            temperature=stored.get("temperature", DEFAULT_TEMPERATURE),
            max_tokens=stored.get("max_tokens", DEFAULT_MAX_TOKENS),
        )

    async def update_llm(self, update: LlmConfigUpdate, *, outbound: Outbound) -> LlmConfigRead:
        """Raises OutboundRefusedError. A stored key never goes to another host: a new base URL drops it."""
        await outbound.check("llm", update.base_url)
        stored = await self._read("llm")
        before = stored.get("base_url", self._settings.llm_base_url)
        kept = stored.get("api_key", "") if before == update.base_url else ""
        value = update.model_dump(exclude={"api_key"})
        value["api_key"] = update.api_key.get_secret_value() or kept
        await self._write("llm", value)
        return shown(await self.llm())

    async def read_llm(self) -> LlmConfigRead:
        return shown(await self.llm())

    async def agent(self) -> AgentConfig:
        return AgentConfig.model_validate(await self._read("agent"))

    async def update_agent(self, config: AgentConfig) -> AgentConfig:
        await self._write("agent", config.model_dump())
        return config

    async def skill_policy(self) -> SkillPolicyMode:
        """Whether the tools of skills of high risk ask the user first."""
        stored = await self._read("skill_policy")
        return "enforce_confirmation" if stored.get("mode") == "enforce_confirmation" else "off"

    async def update_skill_policy(self, mode: SkillPolicyMode) -> None:
        await self._write("skill_policy", {"mode": mode})

    async def _read(self, name: str) -> dict[str, Any]:
        async with self._db() as tx:
            value = await tx.scalar(text("SELECT value FROM app_config WHERE name = :name"), {"name": name})
        return dict(value or {})

    async def _write(self, name: str, value: dict[str, Any]) -> None:
        async with self._db.begin() as tx:
            await tx.execute(
                text(
                    """
                    INSERT INTO app_config (name, value) VALUES (:name, CAST(:value AS jsonb))
                    ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = now()
                    """
                ),
                {"name": name, "value": json.dumps(value)},
            )


def shown(config: LlmConfig) -> LlmConfigRead:
    return LlmConfigRead(
        base_url=config.base_url,
        model_name=config.model_name,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
    )
