"""Following the objects of one kind while the way to the API server fails as real ones do."""

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


class Seen:
    """What an observer was told."""

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

    async def has(self, name: str) -> None:
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
) -> AsyncIterator[Seen]:
    """A follower at work, whose watch is open."""
    seen = Seen()
    async with kube_client(proxy.kubeconfig) as kube:
        follower = Informer(kube, sessions.path, seen, relist_seconds=relist_seconds, **options)
        task = asyncio.create_task(follower.run())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def watches(fault: Fault) -> Callable[[web.Request], Fault]:
    return lambda request: fault if request.query.get("watch") == "true" else None


async def test_a_watch_that_was_cut_is_current_again_once_it_is_open(proxy: CuttingProxy, sessions: Sessions) -> None:
    """On a quiet cluster the first word after that can take a minute."""
    async with following(proxy, sessions) as seen:
        await seen.has(await sessions.create())
        proxy.cut_watches()

        async def is_lost() -> bool:
            return seen.losses > 0

        async def is_back() -> bool:
            return seen.is_current

        await until(is_lost, "the loss is noticed")
        await until(is_back, "the watch goes on")


async def test_a_watch_that_went_silent_is_opened_anew(proxy: CuttingProxy, sessions: Sessions) -> None:
    """As after a load balancer that forgot the connection: no end and no error tells of it."""
    proxy.fault = watches("silent")
    async with following(proxy, sessions, silent_seconds=0.5) as seen:

        async def is_silent() -> bool:
            return proxy.failed.get("silent", 0) > 1

        await until(is_silent, "a silent watch is given up")
        name = await sessions.create()
        proxy.fault = lambda _: None
        await seen.has(name)
        assert seen.losses == 0


async def test_a_watch_that_ends_at_once_is_not_opened_without_a_pause(proxy: CuttingProxy, sessions: Sessions) -> None:
    proxy.fault = watches("empty")
    async with following(proxy, sessions) as seen:
        began = time.monotonic()

        async def has_tried() -> bool:
            return proxy.failed.get("empty", 0) >= 4

        await until(has_tried, "it tries again")
        assert time.monotonic() - began > 1
        name = await sessions.create()
        proxy.fault = lambda _: None
        await seen.has(name)


async def test_a_list_that_is_refused_leaves_the_watch_at_work(proxy: CuttingProxy, sessions: Sessions) -> None:
    """Lists are the first that a busy API server turns away."""
    async with following(proxy, sessions, relist_seconds=1.0) as seen:
        await seen.has(await sessions.create())
        proxy.fault = lambda request: None if request.query.get("watch") == "true" else 429

        async def is_refused() -> bool:
            return proxy.failed.get("429", 0) > 0

        await until(is_refused, "a list is refused")
        await seen.has(await sessions.create())


async def test_a_list_that_never_comes_is_asked_for_ever_more_slowly(proxy: CuttingProxy, sessions: Sessions) -> None:
    proxy.fault = lambda _: 503
    async with following(proxy, sessions) as seen:
        name = await sessions.create()

        async def has_tried() -> bool:
            return proxy.failed.get("503", 0) >= 4

        await until(has_tried, "it tries again")
        assert (seen.lists, seen.is_current) == (0, False)
        proxy.fault = lambda _: None
        await seen.has(name)
