"""An informer: it lists the objects of one kind page by page, then watches them from that version on."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Protocol

from moorage_common.backoff import Backoff
from moorage_kube.client import SILENT_SECONDS, WATCH_SECONDS, KubeClient, KubeError, Manifest

logger = logging.getLogger(__name__)

KUBE_BACKOFF = Backoff(0.4, 15.0, jitter=0.5)
"""The pauses after failed requests to the API server. The jitter keeps replicas from retrying at the same moment."""
LIST_AGAIN_SECONDS = 30.0
"""How long the informer waits before it repeats a periodic list that failed."""
SHORTEST_WATCH_SECONDS = 0.5
"""A watch that ends sooner and without an event counts as a failure."""


class Observer(Protocol):
    """Receives what the informer reads, in the order of the API server. It may receive an unchanged object again."""

    def on_object(self, manifest: Manifest) -> None:
        """A list or an event contains this object."""

    def on_deleted(self, manifest: Manifest) -> None:
        """The object was deleted; `manifest` is its last state."""

    def on_listed(self, names: set[str], version: int) -> None:
        """A full list of resource version `version` is complete, and it contains exactly the objects `names`."""

    def on_connected(self) -> None:
        """The API server accepted the watch and sends changes from now on."""

    def on_disconnected(self) -> None:
        """The API server cannot be reached or refuses the request. The informer tries again."""


class Informer:
    """`run()` reports to the observer until it is cancelled.

    It repeats the full list after `relist_seconds`, because a watch can miss a change.
    """

    def __init__(
        self,
        kube: KubeClient,
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
        self._consecutive_failures = 0

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
        self._consecutive_failures += 1
        is_expired = isinstance(error, KubeError) and error.is_expired
        if self._version is not None and self._seconds_to_list <= 0:  # the periodic list failed: watch on without it
            self._list_at = time.monotonic() + LIST_AGAIN_SECONDS
        elif is_expired:  # the API server no longer has the changes since our version: list everything again
            self._version = None
        if not is_expired:
            self._observer.on_disconnected()
            logger.warning("The Kubernetes API server cannot be watched, will try again: %s", error)
        if not is_expired or self._consecutive_failures > 1:
            await asyncio.sleep(KUBE_BACKOFF.pause_seconds(self._consecutive_failures))

    async def _list(self) -> None:
        names: set[str] = set()
        version = ""
        async for page in self._kube.pages(self._path, selector=self._selector):
            for manifest in page["items"]:
                self._observer.on_object(manifest)
                names.add(manifest["metadata"]["name"])
            version = page["metadata"]["resourceVersion"]
        self._version, self._list_at = version, time.monotonic() + self._relist_seconds
        self._observer.on_listed(names, int(version))

    async def _watch(self) -> None:
        assert self._version is not None
        began, is_empty = time.monotonic(), True
        events = self._kube.watch(
            self._path,
            since=self._version,
            selector=self._selector,
            seconds=max(1, min(WATCH_SECONDS, round(self._seconds_to_list))),
            silent_seconds=self._silent_seconds,
            on_open=self._observer.on_connected,
        )
        async with aclosing(events):
            async for event in events:
                is_empty = False
                self._consecutive_failures = 0
                manifest = event["object"]
                self._version = manifest["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    self._observer.on_deleted(manifest)
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self._observer.on_object(manifest)
        if is_empty and time.monotonic() - began < SHORTEST_WATCH_SECONDS:
            raise KubeError(0, "WatchEnded", "The API server ended the watch immediately after it opened it")
        self._consecutive_failures = 0
