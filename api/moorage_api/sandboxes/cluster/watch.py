"""One watch for a whole replica: what the cluster last said of every session's resource."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any

from moorage_api.sandboxes.cluster.agent_sessions import AgentSessions
from moorage_api.sandboxes.cluster.resource import Seen, seen
from moorage_crds.kube import KubeError

logger = logging.getLogger(__name__)

RELIST_SECONDS = 600.0
"""The whole list is read again this often: what a watch failed to say is found out."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0


class SharedWatch:
    """`run()` follows the cluster until it is cancelled; the rest answers from memory."""

    def __init__(self, resources: AgentSessions) -> None:
        self._resources = resources
        self._seen: dict[str, Seen] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._version: str | None = None
        self._listed_at = 0.0
        self.has_listed = False
        """Whether absence here means anything."""
        self.is_current = False
        """Whether absence means that there is none now."""
        self.is_away = False
        """What is here is what the cluster said last, before it was lost."""
        self._failures = 0
        """In a row."""

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
        while True:
            try:
                if self._version is None or time.monotonic() - self._listed_at > RELIST_SECONDS:
                    await self._list()
                await self._follow()
            except (KubeError, ValueError) as error:
                self._failures += 1
                is_gone = isinstance(error, KubeError) and error.is_gone
                if is_gone:  # our place in the log of changes is gone: read everything anew
                    self._version = None
                else:
                    self.is_current, self.is_away = False, True
                    logger.warning("Lost sight of the cluster, will look again: %s", error)
                if not is_gone or self._failures > 1:
                    await asyncio.sleep(pause_seconds(self._failures))

    async def _list(self) -> None:
        found: dict[str, Seen] = {}
        version = ""
        async for page in self._resources.pages():
            found.update({item["metadata"]["name"]: seen(item) for item in page["items"]})
            version = page["metadata"]["resourceVersion"]
        for name, known in self._seen.items():
            if int(known.resource_version) > int(version):  # a request was answered while we read
                found[name] = known
        before, self._seen = self._seen, found
        self._version, self._listed_at = version, time.monotonic()
        self.has_listed = self.is_current = True
        self.is_away = False
        for name in before.keys() | found.keys():
            if before.get(name) != found.get(name):
                self._wake(name)

    async def _follow(self) -> None:
        assert self._version is not None
        async for event in self._resources.watch(since=self._version):
            self._found()
            resource = event["object"]
            self._version = resource["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                self._forget(resource)
            elif event["type"] in ("ADDED", "MODIFIED"):
                self.offer(resource)
        self._found()

    def _found(self) -> None:
        self.is_current, self.is_away = True, False
        self._failures = 0

    def _forget(self, resource: Mapping[str, Any]) -> None:
        """Unless what we know is a later one of that name."""
        name, version = resource["metadata"]["name"], int(resource["metadata"]["resourceVersion"])
        known = self._seen.get(name)
        if known is not None and int(known.resource_version) <= version:
            del self._seen[name]
            self._wake(name)

    def _wake(self, name: str) -> None:
        for event in self._waiting.get(name, ()):
            event.set()


def pause_seconds(failures: int) -> float:
    """Longer with each failure in a row, and never the same for all replicas."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing
