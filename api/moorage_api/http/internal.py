"""Serve a small HTTP app on its own port, in the process and event loop of another server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette

STOP_GRACE_SECONDS = 2


class InternalServer(uvicorn.Server):
    """A server that does not handle signals, because it runs beside another part of the process that does."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_beside(app: Starlette, *, host: str, port: int, concurrency: int) -> AsyncIterator[None]:
    """Serve `app` while the block runs. If more than `concurrency` requests run at once, further ones get 503."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        limit_concurrency=concurrency,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
        server_header=False,
    )
    server = InternalServer(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(), name="internal port")
        try:
            yield
        finally:
            server.should_exit = True
