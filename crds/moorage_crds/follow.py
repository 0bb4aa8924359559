"""Follow the objects of one kind: list them page by page, then watch from there on. Nothing falls in between."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, Protocol

from moorage_crds.kube import SILENT_SECONDS, WATCH_SECONDS, Kube, KubeError

Manifest = dict[str, Any]

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0
LIST_AGAIN_SECONDS = 30.0
SHORTEST_WATCH_SECONDS = 0.5


class Observer(Protocol):
    """What is told, in the order in which it was shown. An object may be shown again as it is known already."""

    def saw(self, manifest: Manifest) -> None:
        """An object as it is in a list or after an event."""

    def saw_deleted(self, manifest: Manifest) -> None:
        """As it was last."""

    def saw_all(self, names: set[str], version: int) -> None:
        """The list of this version had these and no others."""

    def saw_nothing(self) -> None:
        """The server cannot be reached or refuses, and will be asked again."""

    def saw_server(self) -> None:
        """It has taken the watch: from now on it tells what changes."""


class Follower:
    """`run()` follows until it is cancelled. Lists again after `relist_seconds`: a second look at what events said."""

    def __init__(
        self,
        kube: Kube,
        path: str,
        observer: Observer,
        *,
        relist_seconds: float,
        selector: str = "",
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._kube = kube
        self._path = path
        self._selector = selector
        self._observer = observer
        self._relist_seconds = relist_seconds
        self._silent_seconds = silent_seconds
        self._version: str | None = None
        self._list_at = 0.0
        self._failures = 0
        """In a row."""

    async def run(self) -> None:
        while True:
            try:
                if self._version is None or self._seconds_to_list <= 0:
                    await self._list()
                await self._watch()
            except (KubeError, ValueError) as error:
                await self._recover(error)

    @property
    def _seconds_to_list(self) -> float:
        return self._list_at - time.monotonic()

    async def _recover(self, error: KubeError | ValueError) -> None:
        self._failures += 1
        is_gone = isinstance(error, KubeError) and error.is_gone
        if self._version is not None and self._seconds_to_list <= 0:  # a second look can wait, and events go on
            self._list_at = time.monotonic() + LIST_AGAIN_SECONDS
        elif is_gone:  # our place in the log of changes is gone: read everything anew
            self._version = None
        if not is_gone:
            self._observer.saw_nothing()
            logger.warning("Lost sight of the cluster, will look again: %s", error)
        if not is_gone or self._failures > 1:
            await asyncio.sleep(pause_seconds(self._failures))

    async def _list(self) -> None:
        shown: set[str] = set()
        version = ""
        async for page in self._kube.pages(self._path, selector=self._selector):
            for manifest in page["items"]:
                self._observer.saw(manifest)
                shown.add(manifest["metadata"]["name"])
            version = page["metadata"]["resourceVersion"]
        self._version, self._list_at = version, time.monotonic() + self._relist_seconds
        self._observer.saw_all(shown, int(version))

    async def _watch(self) -> None:
        assert self._version is not None
        began, is_empty = time.monotonic(), True
        events = self._kube.watch(
            self._path,
            since=self._version,
            selector=self._selector,
            seconds=max(1, min(WATCH_SECONDS, round(self._seconds_to_list))),
            silent_seconds=self._silent_seconds,
            opened=self._observer.saw_server,
        )
        async for event in events:
            is_empty = False
            self._failures = 0
            manifest = event["object"]
            self._version = manifest["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                self._observer.saw_deleted(manifest)
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._observer.saw(manifest)
        if is_empty and time.monotonic() - began < SHORTEST_WATCH_SECONDS:
            raise KubeError(0, "WatchEnded", "The API server ends a watch as soon as it is open")
        self._failures = 0


def pause_seconds(failures: int) -> float:
    """Longer with each failure in a row, and never the same for all replicas."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing
