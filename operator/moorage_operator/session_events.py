"""Kopf's part: every event of an AgentSession goes to the store and the work queue, and nothing else happens here.

With `on.event` alone, Kopf writes nothing, adds no finalizer and retries nothing. The work queue does the retries.
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
from moorage_operator.store import Store
from moorage_operator.work_queue import WorkQueue

LISTED = None
"""Kopf's event type for an object of the list before its watch. Our own list has shown most of them already."""
IDLE_SECONDS = 0.2
"""How long Kopf keeps a task and the last event for each object: for thousands of objects, most of its memory."""


def build_registry(
    store: Store, queue: WorkQueue, *, kubeconfig: Path | None, on_started: Callable[[], None]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        on_started()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is not None:
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def on_agent_session(event: kopf.RawEvent, **_: Any) -> None:
        manifest = dict(event["object"])
        if event["type"] is LISTED and store.has_session(manifest):
            return
        is_deleted = event["type"] == "DELETED"
        queue.add(store.remove_session(manifest) if is_deleted else store.put_session(manifest))

    return registry


def build_kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # scanning needs the right to list namespaces and resource definitions
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = PAGE_SIZE
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.networking.request_timeout = 15
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    return settings


class EndlessBackoffs:
    """The pauses between Kopf's retries. After the last one Kopf would end, and Kubernetes restarts it only later."""

    def __iter__(self) -> Iterator[float]:
        return map(KUBE_BACKOFF.pause_seconds, itertools.count(1))


class NoDiffBase(kopf.DiffBaseStorage):
    """We do not use Kopf's diffs. Its default storage copies every object to compute them."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """There is nothing to store."""


class NoProgress(kopf.ProgressStorage):
    """Kopf does not retry event handlers, so there is no progress to write into the objects."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """There is nothing to store."""

    def purge(self, **_: Any) -> None:
        """There is nothing to remove."""

    def touch(self, **_: Any) -> None:
        """There is nothing to update."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
