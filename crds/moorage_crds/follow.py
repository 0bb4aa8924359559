"""Follow the objects of one kind: list them page by page, then watch from there on. Nothing falls in between."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, Protocol

from moorage_crds.kube import WATCH_SECONDS, Kube, KubeError

Manifest = dict[str, Any]

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0


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
        """The watch goes on."""


class Follower:
    """`run()` follows until it is cancelled. Lists again after `relist_seconds`: a second look at what events said."""

    def __init__(self, kube: Kube, path: str, observer: Observer, *, relist_seconds: float, selector: str = "") -> None:
        self._kube = kube
        self._path = path
        self._selector = selector
        self._observer = observer
        self._relist_seconds = relist_seconds
        self._version: str | None = None
        self._listed_at = 0.0
        self._failures = 0
        """In a row."""

    async def run(self) -> None:
        while True:
            try:
                if self._version is None or self._left_seconds <= 0:
                    await self._list()
                await self._watch()
            except (KubeError, ValueError) as error:
                self._failures += 1
                is_gone = isinstance(error, KubeError) and error.is_gone
                if is_gone:  # our place in the log of changes is gone: read everything anew
                    self._version = None
                else:
                    self._observer.saw_nothing()
                    logger.warning("Lost sight of the cluster, will look again: %s", error)
                if not is_gone or self._failures > 1:
                    await asyncio.sleep(pause_seconds(self._failures))

    @property
    def _left_seconds(self) -> float:
        return self._listed_at + self._relist_seconds - time.monotonic()

    async def _list(self) -> None:
        shown: set[str] = set()
        version = ""
        async for page in self._kube.pages(self._path, selector=self._selector):
            for manifest in page["items"]:
                self._observer.saw(manifest)
                shown.add(manifest["metadata"]["name"])
            version = page["metadata"]["resourceVersion"]
        self._version, self._listed_at = version, time.monotonic()
        self._observer.saw_all(shown, int(version))

    async def _watch(self) -> None:
        assert self._version is not None
        seconds = max(1, min(WATCH_SECONDS, round(self._left_seconds)))
        events = self._kube.watch(self._path, since=self._version, selector=self._selector, seconds=seconds)
        async for event in events:
            self._saw_server()
            manifest = event["object"]
            self._version = manifest["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                self._observer.saw_deleted(manifest)
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._observer.saw(manifest)
        self._saw_server()

    def _saw_server(self) -> None:
        self._failures = 0
        self._observer.saw_server()


def pause_seconds(failures: int) -> float:
    """Longer with each failure in a row, and never the same for all replicas."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing
