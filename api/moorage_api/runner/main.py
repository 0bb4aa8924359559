"""Entry point of the runner: `python -m moorage_api.runner.main`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage_api.agent.model.incoming.answers import AnswerLimits
from moorage_api.agent.model.patience import Timing
from moorage_api.agent.model.servers.listing import ListingFailures
from moorage_api.agent.ports import AgentLimits
from moorage_api.config.service import ConfigService
from moorage_api.files.service import FileService
from moorage_api.http.internal import serve_beside
from moorage_api.runner.attachments import AttachmentStores
from moorage_api.runner.health import Health, create_health_app
from moorage_api.runner.pictures import PictureLimits
from moorage_api.runner.runner import Runner
from moorage_api.runner.sandbox_link import SandboxLinks
from moorage_api.runner.sweep import Sweep
from moorage_api.runner.turn import Turns
from moorage_api.sandboxes.upkeep import Upkeep
from moorage_api.sessions.service import SessionService
from moorage_api.settings import Settings
from moorage_api.skill_runs.run import SkillRuns
from moorage_api.skills.upkeep import SkillUpkeep
from moorage_api.tools.a2a.service import A2aService
from moorage_api.tools.mcp.service import McpService
from moorage_api.usage.service import UsageService
from moorage_api.wiring.loggers import CHATTY_LOGGERS, SILENT_LOGGERS
from moorage_api.wiring.resources import Resources, open_resources
from moorage_api.wiring.services import build_services
from moorage_common.logging_setup import configure_logging

PROBES = 20
"""Most concurrent requests. The only clients are a kubelet and a Prometheus."""


async def serve(settings: Settings) -> None:
    async with open_resources(settings, issuer="runner") as resources:
        health = Health()
        runner = build_runner(resources, health)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, runner.stop)
        async with health_port(settings.runner_host, settings.runner_port, health):
            await runner.run()


def build_runner(resources: Resources, health: Health) -> Runner:
    settings, services = resources.settings, build_services(resources)
    turns = Turns(
        db=resources.db,
        config=services.get(ConfigService),
        usage=services.get(UsageService),
        mcp=services.get(McpService),
        a2a=services.get(A2aService),
        skills=services.get(SkillRuns),
        links=SandboxLinks(
            resources.db,
            resources.sandboxes,
            resources.signer,
            patience_seconds=settings.sandbox_patience_seconds,
        ),
        stores=AttachmentStores(
            services.get(FileService),
            resources.blobs,
            pictures=PictureLimits(settings.llm_picture_bytes, settings.llm_picture_pixels),
        ),
        outbound=resources.outbound,
        limits=AgentLimits(
            max_model_calls=settings.agent_max_model_calls,
            max_repeats=settings.agent_max_repeats,
            max_failed_steps=settings.agent_max_failed_steps,
            max_pictures=settings.llm_max_pictures,
            max_functions=settings.llm_max_functions,
            max_result_chars=settings.llm_result_chars,
            max_calls=settings.llm_max_calls,
            max_steps=settings.agent_max_steps,
        ),
        searxng_url=settings.searxng_url,
        timing=Timing(
            first_byte=settings.llm_first_byte_seconds,
            idle=settings.llm_idle_seconds,
            patience=settings.llm_patience_seconds,
        ),
        context_tokens=settings.llm_context_tokens,
        answer_limits=AnswerLimits(settings.llm_answer_chars, settings.llm_repeated_chars),
        listing_failures=ListingFailures(settings.llm_list_retry_seconds),
    )
    return Runner(
        engine=resources.engine,
        db=resources.db,
        hub=resources.hub,
        redis=resources.redis,
        turns=turns,
        sweep=Sweep(
            services.get(SessionService),
            services.get(Upkeep),
            services.get(SkillUpkeep),
            interval_seconds=settings.sweep_seconds,
        ),
        health=health,
        concurrency=settings.runner_concurrency,
        lease_seconds=settings.lease_seconds,
    )


@asynccontextmanager
async def health_port(host: str, port: int, health: Health) -> AsyncIterator[None]:
    """Serve the probes while the block runs, if a port is configured."""
    if not port:
        yield
        return
    async with serve_beside(create_health_app(health), host=host, port=port, concurrency=PROBES):
        yield


def main() -> None:
    configure_logging(quiet=CHATTY_LOGGERS, silent=SILENT_LOGGERS)
    asyncio.run(serve(Settings()))


if __name__ == "__main__":
    main()
