"""Passes what the informer reads about pods to the store and the work queue."""

from __future__ import annotations

import asyncio

from moorage_kube.client import Manifest
from moorage_operator import metrics
from moorage_operator.store import Store
from moorage_operator.work_queue import WorkQueue


class PodEvents:
    """The observer of the pod informer."""

    def __init__(self, store: Store, queue: WorkQueue) -> None:
        self._store = store
        self._queue = queue
        self.are_listed = asyncio.Event()
        """Set after the first list. Before that, a session whose pod is unknown looks like a session without a pod."""

    def on_object(self, manifest: Manifest) -> None:
        if not self._store.has_pod(manifest):
            self._queue.add(self._store.put_pod(manifest))

    def on_deleted(self, manifest: Manifest) -> None:
        self._queue.add(self._store.remove_pod(manifest))

    def on_listed(self, names: set[str], version: int) -> None:
        self._queue.add_all(self._store.keep_pods(names, version))
        self.are_listed.set()

    def on_connected(self) -> None:
        """Nothing waits for the connection."""

    def on_disconnected(self) -> None:
        """Reconciling goes on with what is known: each write names the version or uid that it is meant for."""
        metrics.POD_WATCH_FAILURES.inc()
