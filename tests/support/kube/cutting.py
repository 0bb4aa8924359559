"""A faulty proxy that can also cut open watches. `FaultyProxy` alone affects only later requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from support.kube.control_plane import ControlPlane
from support.kube.faults import FaultyProxy


class CuttingProxy(FaultyProxy):
    def __init__(self) -> None:
        super().__init__()
        self._watches: dict[asyncio.Task[object], web.Request] = {}

    @classmethod
    @asynccontextmanager
    async def before(cls, control_plane: ControlPlane, directory: Path) -> AsyncIterator[CuttingProxy]:
        async with super().before(control_plane, directory) as proxy:
            assert isinstance(proxy, CuttingProxy)
            try:
                yield proxy
            finally:
                proxy.cut_watches()  # otherwise the server waits a minute for watches whose client has left

    def cut_watches(self) -> None:
        """Close the connections of all open watches."""
        for task, request in self._watches.items():
            if request.transport is not None:
                request.transport.abort()
            task.cancel()

    async def _handle(self, request: web.Request, session: aiohttp.ClientSession, server: str) -> web.StreamResponse:
        task = asyncio.current_task()
        if request.query.get("watch") != "true" or task is None:
            return await super()._handle(request, session, server)
        self._watches[task] = request
        try:
            return await super()._handle(request, session, server)
        except ConnectionError:  # cut_watches closed it
            return web.Response()
        finally:
            del self._watches[task]
