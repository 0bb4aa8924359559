"""One watch for a whole replica: what the cluster last said of every session's resource."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from moorage_api.sandboxes.cluster.agent_sessions import AgentSessions
from moorage_api.sandboxes.cluster.resource import Seen, seen

RELIST_SECONDS = 600.0
"""The whole list is read again this often: what a watch failed to say is found out."""


class SharedWatch:
    """`run()` follows the cluster until it is cancelled; the rest answers from memory."""

    def __init__(self, resources: AgentSessions) -> None:
        self._resources = resources
        self._seen: dict[str, Seen] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.has_listed = False
        """Whether absence here means anything."""
        self.is_current = False
        """Whether absence means that there is none now."""
        self.is_away = False
        """What is here is what the cluster said last, before it was lost."""

    def get(self, name: str) -> Seen | None:
        return self._seen.get(name)

    def offer(self, resource: Mapping[str, Any]) -> Seen:
        """Take in what a request was answered, unless the watch was faster. Returns what is known now."""
        name, new = resource["metadata"]["name"], seen(resource)
        known = self._seen.get(name)
        if known is None or int(known.resource_version) < int(new.resource_version):
            self._seen[name] = new
            self._wake(name)
            return new
        return known

    async def changed(self, name: str, since: Seen | None, *, within_seconds: float) -> None:
        """Return when something else than `since` is known of `name`, or after `within_seconds`."""
        if self._seen.get(name) != since:
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
        """Unless what we know is a later one of that name."""
        name, version = manifest["metadata"]["name"], int(manifest["metadata"]["resourceVersion"])
        known = self._seen.get(name)
        if known is not None and int(known.resource_version) <= version:
            del self._seen[name]
            self._wake(name)

    def on_listed(self, names: set[str], version: int) -> None:
        for name in self._seen.keys() - names:
            if int(self._seen[name].resource_version) <= version:  # else a request was answered while we read
                del self._seen[name]
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
