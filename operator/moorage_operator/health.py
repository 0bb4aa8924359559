"""Serves the probes and metrics. A standby replica serves them too, because it is healthy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

LONGEST_STALL_SECONDS = 60
"""An event loop that does not run for so long counts as stalled, and Kubernetes restarts the pod."""


class Heartbeat:
    """Tells whether the event loop still runs. Waiting for the API server is no reason for a restart."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = now()

    def beat(self) -> None:
        self._last = self._now()

    @property
    def is_alive(self) -> bool:
        return self._now() - self._last < LONGEST_STALL_SECONDS

    async def run(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(LONGEST_STALL_SECONDS / 4)


@asynccontextmanager
async def serve_health(*, host: str, port: int, is_alive: Callable[[], bool]) -> AsyncIterator[int]:
    """Serve `/healthz`, `/readyz` and `/metrics`. Yields the port; for port 0 the kernel chooses one."""

    async def respond_health(_: web.Request) -> web.Response:
        return web.Response(text="ok") if is_alive() else web.Response(status=503, text="stalled")

    async def respond_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get(path, respond_health) for path in ("/healthz", "/readyz")])
    app.add_routes([web.get("/metrics", respond_metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
