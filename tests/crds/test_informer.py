"""The informer behind a proxy that fails in the ways in which real connections fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from moorage_kube.client import Manifest
from moorage_kube.informer import Informer
from support.kube.control_plane import ControlPlane
from support.kube.cutting import CuttingProxy
from support.kube.faults import Fault
from support.kube.sessions import Sessions, kube_client, namespace_on
from support.waiting import until

pytestmark = pytest.mark.timeout(15 * 60)


class Recorder:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.lists = 0
        self.losses = 0
        self.is_current = False

    def on_object(self, manifest: Manifest) -> None:
        self.names.add(manifest["metadata"]["name"])

    def on_deleted(self, manifest: Manifest) -> None:
        self.names.discard(manifest["metadata"]["name"])

    def on_listed(self, names: set[str], version: int) -> None:
        self.names &= names
        self.lists += 1

    def on_disconnected(self) -> None:
        self.is_current = False
        self.losses += 1

    def on_connected(self) -> None:
        self.is_current = True

    async def wait_for(self, name: str) -> None:
        async def is_there() -> bool:
            return name in self.names

        await until(is_there, f"{name} is seen")


@pytest.fixture
async def sessions(control_plane: ControlPlane) -> AsyncIterator[Sessions]:
    async with namespace_on(control_plane) as made:
        yield made


@pytest.fixture
async def proxy(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy.before(control_plane, tmp_path) as made:
        yield made


@asynccontextmanager
async def following(
    proxy: CuttingProxy, sessions: Sessions, *, relist_seconds: float = 600.0, **options: Any
) -> AsyncIterator[Recorder]:
    """Run an informer in the background."""
    seen = Recorder()
    async with kube_client(proxy.kubeconfig) as kube:
        informer = Informer(kube, sessions.path, seen, relist_seconds=relist_seconds, **options)
        task = asyncio.create_task(informer.run())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def watches(fault: Fault) -> Callable[[web.Request], Fault]:
    return lambda request: fault if request.query.get("watch") == "true" else None


async def test_a_cut_watch_is_current_again_as_soon_as_it_is_reopened(proxy: CuttingProxy, sessions: Sessions) -> None:
    """On an idle cluster the first event after that can take a minute."""
    async with following(proxy, sessions) as seen:
        await until(lambda: seen.is_current, "the watch is open")
        proxy.cut_watches()

        async def is_lost() -> bool:
            return seen.losses > 0

        async def is_back() -> bool:
            return seen.is_current

        await until(is_lost, "the loss is noticed")
        await until(is_back, "the watch goes on")


async def test_a_silent_watch_is_reopened(proxy: CuttingProxy, sessions: Sessions) -> None:
    """A load balancer that forgot the connection sends neither an end nor an error."""
    proxy.fault = watches("silent")
    async with following(proxy, sessions, silent_seconds=0.5) as seen:

        async def is_silent() -> bool:
            return proxy.failed.get("silent", 0) > 1

        await until(is_silent, "a silent watch is given up")
        name = await sessions.create()
        proxy.fault = lambda _: None
        await seen.wait_for(name)
        assert seen.losses == 0


async def test_a_watch_that_ends_immediately_is_reopened_after_a_pause(proxy: CuttingProxy, sessions: Sessions) -> None:
    proxy.fault = watches("empty")
    async with following(proxy, sessions) as seen:
        began = time.monotonic()

        async def has_tried() -> bool:
            return proxy.failed.get("empty", 0) >= 4

        await until(has_tried, "it tries again")
        assert time.monotonic() - began > 1
        name = await sessions.create()
        proxy.fault = lambda _: None
        await seen.wait_for(name)


async def test_the_watch_goes_on_when_a_list_is_refused(proxy: CuttingProxy, sessions: Sessions) -> None:
    """An overloaded API server refuses lists first."""
    async with following(proxy, sessions, relist_seconds=1.0) as seen:
        await seen.wait_for(await sessions.create())
        proxy.fault = lambda request: None if request.query.get("watch") == "true" else 429

        async def is_refused() -> bool:
            return proxy.failed.get("429", 0) > 0

        await until(is_refused, "a list is refused")
        await seen.wait_for(await sessions.create())


async def test_a_failing_list_is_retried_with_growing_pauses(proxy: CuttingProxy, sessions: Sessions) -> None:
    proxy.fault = lambda _: 503
    async with following(proxy, sessions) as seen:
        name = await sessions.create()

        async def has_tried() -> bool:
            return proxy.failed.get("503", 0) >= 4

        await until(has_tried, "it tries again")
        assert (seen.lists, seen.is_current) == (0, False)
        proxy.fault = lambda _: None
        await seen.wait_for(name)
