"""What Kopf calls: every event of a resource feeds the store and the queue, and nothing else.

`on.event` alone makes Kopf write nothing, add no finalizer and retry nothing: retries are the queue's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kopf

from moorage_crds import names
from moorage_kube.client import PAGE_SIZE
from moorage_kube.informer import KUBE_BACKOFF
from moorage_operator.cluster import Cluster
from moorage_operator.work_queue import WorkQueue

LISTED = None
"""Kopf's type of an event that is no event: what it lists before it watches. Most of it is known from our own list."""
IDLE_SECONDS = 0.2
"""Kopf keeps a task and the last event for each object this long: of thousands, that is most of the memory."""


def registry(
    cluster: Cluster, queue: WorkQueue, *, kubeconfig: Path | None, on_started: Callable[[], None]
) -> kopf.OperatorRegistry:
    made = kopf.OperatorRegistry()

    @kopf.on.startup(registry=made)
    async def started(**_: Any) -> None:
        on_started()

    @kopf.on.login(registry=made)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is not None:
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=made)
    async def agent_session_seen(event: kopf.RawEvent, **_: Any) -> None:
        manifest = dict(event["object"])
        if event["type"] is LISTED and cluster.store.has_session(manifest):
            return
        is_gone = event["type"] == "DELETED"
        queue.add(cluster.store.forget_session(manifest) if is_gone else cluster.store.see_session(manifest))

    return made


def kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # with it Kopf would need to list namespaces and definitions
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = PAGE_SIZE
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.networking.request_timeout = 15
    settings.networking.error_backoffs = Pauses()
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    return settings


class Pauses:
    """As long as it takes. With a last pause Kopf ends, and whoever ends is started again after minutes."""

    def __iter__(self) -> Iterator[float]:
        return map(KUBE_BACKOFF.pause_seconds, itertools.count(1))


class NoDiffs(kopf.DiffBaseStorage):
    """Nobody asks what changed since the last event: the default copies every object whole to find that out."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """There is nothing to keep."""


class NoProgress(kopf.ProgressStorage):
    """Handlers of events are not tried again, so there is no progress to write into objects."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """There is nothing to keep."""

    def purge(self, **_: Any) -> None:
        """There is nothing to remove."""

    def touch(self, **_: Any) -> None:
        """There is nothing to wake."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
