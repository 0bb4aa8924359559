"""Entry point of the runner: `python -m moorage_api.runner.main`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage_api.http.internal import serve_beside
from moorage_api.main import CHATTY_LOGGERS, SILENT_LOGGERS
from moorage_api.resources import open_resources
from moorage_api.runner.health import Health, create_health_app
from moorage_api.runner.worker import Runner
from moorage_api.settings import Settings
from moorage_common.logs import configure_logging

PROBES = 20
"""Most concurrent requests. The only clients are a kubelet and a Prometheus."""


async def serve(settings: Settings) -> None:
    async with open_resources(settings, issuer="runner") as resources:
        health = Health()
        runner = Runner(resources, health)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, runner.stop)
        async with health_port(settings.runner_host, settings.runner_port, health):
            await runner.run()


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
