"""What the follower of pods shows, on its way into the store and the queue."""

from __future__ import annotations

import asyncio

from moorage_kube.client import Manifest
from moorage_operator import metrics
from moorage_operator.store import Store
from moorage_operator.work_queue import WorkQueue


class FollowedPods:
    def __init__(self, store: Store, queue: WorkQueue) -> None:
        self._store = store
        self._queue = queue
        self.are_listed = asyncio.Event()
        """Before, a session whose pod is not known looks as if it had none."""

    def on_object(self, manifest: Manifest) -> None:
        if not self._store.has_pod(manifest):
            self._queue.add(self._store.see_pod(manifest))

    def on_deleted(self, manifest: Manifest) -> None:
        self._queue.add(self._store.forget_pod(manifest))

    def on_listed(self, names: set[str], version: int) -> None:
        self._queue.add_all(self._store.keep_pods(names, version))
        self.are_listed.set()

    def on_disconnected(self) -> None:
        """What is known stays, and so do passes over it: each write says what it was made for."""
        metrics.LOSSES.inc()

    def on_connected(self) -> None:
        """Nothing waits for that."""
