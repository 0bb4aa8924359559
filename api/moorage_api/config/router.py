"""HTTP of the app-config module: reads are public, changes are an admin's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from moorage_api.config.schemas import AgentConfig, LlmConfigRead, LlmConfigUpdate
from moorage_api.config.service import ConfigService
from moorage_api.dependencies import ConfigWriter, ResourcesDep
from moorage_api.http.envelope import Envelope, ok

router = APIRouter(prefix="/app-config", tags=["app-config"])


async def config_service(resources: ResourcesDep) -> ConfigService:
    return ConfigService(resources.db, resources.settings, resources.sealing)


Config = Annotated[ConfigService, Depends(config_service)]


@router.get("/llm")
async def get_llm_config(config: Config) -> Envelope[LlmConfigRead]:
    """Which model the agents use; never its key."""
    return ok(await config.read_llm())


@router.post("/llm", dependencies=[ConfigWriter])
async def update_llm_config(body: LlmConfigUpdate, config: Config, resources: ResourcesDep) -> Envelope[LlmConfigRead]:
    """Any OpenAI-compatible endpoint. Without `api_key` the stored one stays, as long as `base_url` does."""
    return ok(await config.update_llm(body, outbound=resources.outbound))


@router.get("/agent")
async def get_agent_config(config: Config) -> Envelope[AgentConfig]:
    """How long an agent goes on, and how often it tries."""
    return ok(await config.agent())


@router.post("/agent", dependencies=[ConfigWriter])
async def update_agent_config(body: AgentConfig, config: Config) -> Envelope[AgentConfig]:
    """For runs that begin from now on."""
    return ok(await config.update_agent(body))
