"""Entry point of the runner: `python -m moorage_api.runner.main`."""

from __future__ import annotations

import asyncio
import logging
import signal

from moorage_api.main import quiet_libraries
from moorage_api.resources import open_resources
from moorage_api.runner.worker import Runner
from moorage_api.settings import Settings


async def serve(settings: Settings) -> None:
    async with open_resources(settings, issuer="runner") as resources:
        runner = Runner(resources)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, runner.stop)
        await runner.run()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    quiet_libraries()
    asyncio.run(serve(Settings()))


if __name__ == "__main__":
    main()
