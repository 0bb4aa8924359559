"""HTTP endpoints of the app-config module. Reads are public; changes need an admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from moorage_api.config.schemas import AgentConfig, LlmConfigRead, LlmConfigUpdate
from moorage_api.config.service import ConfigService
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provided
from moorage_api.users.callers import ConfigWriter

router = APIRouter(prefix="/app-config", tags=["app-config"])


Config = Annotated[ConfigService, Depends(provided(ConfigService))]


@router.get("/llm")
async def get_llm_config(config: Config) -> Envelope[LlmConfigRead]:
    """Get the model that agents use. The response never contains its API key."""
    return ok(await config.read_llm())


@router.post("/llm", dependencies=[ConfigWriter])
async def update_llm_config(body: LlmConfigUpdate, config: Config) -> Envelope[LlmConfigRead]:
    """Set the model: any OpenAI-compatible endpoint.

    Without `api_key`, the stored key is kept if `base_url` is the same, and removed if it changes.
    """
    return ok(await config.update_llm(body))


@router.get("/agent")
async def get_agent_config(config: Config) -> Envelope[AgentConfig]:
    """Get the limits of the agent: model turns, retries and search results."""
    return ok(await config.agent())


@router.post("/agent", dependencies=[ConfigWriter])
async def update_agent_config(body: AgentConfig, config: Config) -> Envelope[AgentConfig]:
    """Set the limits of the agent for runs that begin from now on."""
    return ok(await config.update_agent(body))
