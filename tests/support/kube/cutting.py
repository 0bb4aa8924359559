"""A faulty proxy that also ends the watches that are open: a fault alone meets the next request."""

from __future__ import annotations

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
        self._watches: list[web.Request] = []

    @classmethod
    @asynccontextmanager
    async def before(cls, control_plane: ControlPlane, directory: Path) -> AsyncIterator[CuttingProxy]:
        async with super().before(control_plane, directory) as proxy:
            assert isinstance(proxy, CuttingProxy)
            yield proxy

    def cut_watches(self) -> None:
        """End the connections of the watches that are open now."""
        for request in self._watches:
            if request.transport is not None:
                request.transport.abort()
        self._watches.clear()

    async def _handle(self, request: web.Request, session: aiohttp.ClientSession, server: str) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            self._watches.append(request)
        try:
            return await super()._handle(request, session, server)
        except ConnectionError:  # we cut it ourselves
            return web.Response()
