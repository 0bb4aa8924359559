"""Gives a box its network and keeps it while the box runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from moorage_sandbox.host.network.namespaces import Namespaces, open_namespaces
from moorage_sandbox.host.network.programs import NetworkError
from moorage_sandbox.host.network.routes import close_routes
from moorage_sandbox.host.network.slirp import Slirp, start_slirp
from moorage_sandbox.host.processes.launcher import Launcher, LaunchError

RESTART_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class BoxNetwork:
    """`uid` and `gid` are the box's. `note` takes what does not work, and "" when everything works."""

    launcher: Launcher
    uid: int | None
    gid: int | None
    note: Callable[[str], None]

    @asynccontextmanager
    async def connect(self, pid: int) -> AsyncIterator[None]:
        """Connect the namespaces of process `pid` while the block runs.

        Must be entered before the box runs anything. If the routes cannot be set, the box gets no network at all.
        """
        with ExitStack() as descriptors:
            keeper: asyncio.Task[None] | None = None
            try:
                namespaces = await open_namespaces(pid)
                descriptors.callback(namespaces.close)
                slirp = await self._open(namespaces)
                keeper = asyncio.create_task(self._keep_slirp(namespaces, slirp))
            except (NetworkError, LaunchError, OSError) as error:
                self.note(f"The sandbox has no network: {error}")
            try:
                yield
            finally:
                if keeper is not None:
                    keeper.cancel()
                    await asyncio.gather(keeper, return_exceptions=True)

    async def _open(self, namespaces: Namespaces) -> Slirp:
        """Set the routes and start slirp at the same time. No process runs yet that could use one without the other."""
        routes = asyncio.create_task(close_routes(self.launcher, namespaces, uid=self.uid, gid=self.gid))
        try:
            slirp = await self._start_slirp(namespaces)
            try:
                await routes
            except BaseException:
                await slirp.stop()
                raise
        finally:
            routes.cancel()
            await asyncio.gather(routes, return_exceptions=True)
        return slirp

    async def _keep_slirp(self, namespaces: Namespaces, slirp: Slirp) -> None:
        """Start slirp again each time it ends. The routes stay in the box's namespace."""
        while True:
            try:
                await slirp.child.wait()
            finally:
                await slirp.stop()
            self.note("The sandbox's network is being restarted")
            while True:
                try:
                    slirp = await self._start_slirp(namespaces)
                except (NetworkError, LaunchError, OSError) as error:
                    self.note(f"The sandbox has no network: {error}")
                    await asyncio.sleep(RESTART_PAUSE_SECONDS)
                else:
                    self.note("")
                    break

    async def _start_slirp(self, namespaces: Namespaces) -> Slirp:
        return await start_slirp(self.launcher, namespaces, uid=self.uid, gid=self.gid)
