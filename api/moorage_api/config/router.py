"""HTTP endpoints of the app-config module. Reads are public; changes need an admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from moorage_api.config.client import ModelTester
from moorage_api.config.options import LlmOptionsRead, LlmOptionsUpdate, LlmTestRequest, LlmTestResult
from moorage_api.config.schemas import AgentConfig, LlmConfigRead, LlmConfigUpdate
from moorage_api.config.service import ConfigService
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.users.callers import ConfigWriter

router = APIRouter(prefix="/app-config", tags=["app-config"])


Config = Annotated[ConfigService, Depends(provide(ConfigService))]
Tester = Annotated[ModelTester, Depends(provide(ModelTester))]


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


@router.get("/llm/options", dependencies=[ConfigWriter])
async def get_llm_options(config: Config) -> Envelope[LlmOptionsRead]:
    """Get the additions to the model's configuration: headers (names only), body fields, window and time limits."""
    return ok(await config.options())


@router.post("/llm/options", dependencies=[ConfigWriter])
async def update_llm_options(body: LlmOptionsUpdate, config: Config) -> Envelope[LlmOptionsRead]:
    """Change the additions to the model's configuration, for runs that begin from now on.

    Fields that are missing stay as they are, and null goes back to the default. `headers` replaces all headers, and a
    header whose value is null keeps its stored value. Headers and time limits apply while `base_url` is the same, the
    other fields while `model_name` is the same, too. 409: `base_url` or `model_name` is not the configured one.
    """
    return ok(await config.update_options(body))


@router.post("/llm/test", dependencies=[ConfigWriter])
async def try_llm(tester: Tester, body: LlmTestRequest | None = None) -> Envelope[LlmTestResult]:
    """Try the configured model, or another one without storing it: a plan, a tool call, streaming, a picture, a window.

    Each part says in words whether it works and why not. The whole takes a few minutes at most.
    """
    return ok(await tester.test(body or LlmTestRequest()))


@router.get("/agent")
async def get_agent_config(config: Config) -> Envelope[AgentConfig]:
    """Get the limits of the agent: model turns, retries and search results."""
    return ok(await config.agent())


@router.post("/agent", dependencies=[ConfigWriter])
async def update_agent_config(body: AgentConfig, config: Config) -> Envelope[AgentConfig]:
    """Set the limits of the agent for runs that begin from now on."""
    return ok(await config.update_agent(body))
