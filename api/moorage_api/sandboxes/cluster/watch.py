"""One watch per replica: keeps the last known state of all AgentSession resources in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from moorage_api.sandboxes.cluster.agent_sessions import AgentSessions
from moorage_api.sandboxes.cluster.session_resource import KnownResource, read_resource

RELIST_SECONDS = 600.0
"""Interval of reading the whole list again, in case the watch has missed a change."""


class SharedWatch:
    """`run()` follows the cluster until it is cancelled. The other methods read from memory."""

    def __init__(self, resources: AgentSessions) -> None:
        self._resources = resources
        self._known: dict[str, KnownResource] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.has_listed = False
        """Whether the list was read at least once. Before that, an unknown name may exist."""
        self.is_current = False
        """Whether the watch is connected, so that an unknown name does not exist now."""
        self.is_away = False
        """Whether the cluster was lost, so that the known states may be outdated."""

    def get(self, name: str) -> KnownResource | None:
        return self._known.get(name)

    def offer(self, resource: Mapping[str, Any]) -> KnownResource:
        """Store the resource from a response unless a newer one is known. Returns the newest one."""
        name, new = resource["metadata"]["name"], read_resource(resource)
        known = self._known.get(name)
        if known is None or int(known.resource_version) < int(new.resource_version):
            self._known[name] = new
            self._wake(name)
            return new
        return known

    async def wait_for_change(self, name: str, since: KnownResource | None, *, within_seconds: float) -> None:
        """Return when the known state of `name` differs from `since`, or after `within_seconds`."""
        if self._known.get(name) != since:
            return
        event = asyncio.Event()
        self._waiting.setdefault(name, set()).add(event)
        try:
            async with asyncio.timeout(within_seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            waiting = self._waiting[name]
            waiting.discard(event)
            if not waiting:
                del self._waiting[name]

    async def run(self) -> None:
        await self._resources.follow(self, relist_seconds=RELIST_SECONDS)

    def on_object(self, manifest: Mapping[str, Any]) -> None:
        self.offer(manifest)

    def on_deleted(self, manifest: Mapping[str, Any]) -> None:
        """Forget the resource, unless we already know a newer one with this name."""
        name, version = manifest["metadata"]["name"], int(manifest["metadata"]["resourceVersion"])
        known = self._known.get(name)
        if known is not None and int(known.resource_version) <= version:
            del self._known[name]
            self._wake(name)

    def on_listed(self, names: set[str], version: int) -> None:
        for name in self._known.keys() - names:
            if int(self._known[name].resource_version) <= version:  # a newer one is from a response during the list
                del self._known[name]
                self._wake(name)
        self.has_listed = True
        self.on_connected()

    def on_disconnected(self) -> None:
        self.is_current, self.is_away = False, True

    def on_connected(self) -> None:
        self.is_current, self.is_away = True, False

    def _wake(self, name: str) -> None:
        for event in self._waiting.get(name, ()):
            event.set()
