"""Probes and metrics, served from the first moment: a standby is healthy too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

LONGEST_STALL_SECONDS = 60


class Heartbeat:
    """Whether the event loop still turns. What it waits for, such as the API server, is no reason to be restarted."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = now()

    def beat(self) -> None:
        self._last = self._now()

    @property
    def is_alive(self) -> bool:
        return self._now() - self._last < LONGEST_STALL_SECONDS

    async def keep(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(LONGEST_STALL_SECONDS / 4)


@asynccontextmanager
async def served(*, host: str, port: int, is_alive: Callable[[], bool]) -> AsyncIterator[int]:
    """`/healthz`, `/readyz` and `/metrics`; yields the port, which the kernel chose for 0."""

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok") if is_alive() else web.Response(status=503, text="stalled")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", health), web.get("/readyz", health), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
