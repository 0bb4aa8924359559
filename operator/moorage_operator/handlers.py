"""What Kopf calls: every event feeds the store and the queue, and nothing else.

`on.event` alone makes Kopf write nothing, add no finalizer and retry nothing: retries are the queue's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf

from moorage_crds import names
from moorage_operator.cluster import Cluster
from moorage_operator.work_queue import WorkQueue


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
        is_gone = event["type"] == "DELETED"
        queue.add(cluster.store.forget_session(manifest) if is_gone else cluster.store.see_session(manifest))

    @kopf.on.event("", "v1", "pods", labels={names.SESSION_LABEL: kopf.PRESENT}, registry=made)
    async def pod_seen(event: kopf.RawEvent, **_: Any) -> None:
        manifest = dict(event["object"])
        is_gone = event["type"] == "DELETED"
        queue.add(cluster.store.forget_pod(manifest) if is_gone else cluster.store.see_pod(manifest))

    return made


def kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # with it Kopf would need to list namespaces and definitions
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 330
    settings.networking.request_timeout = 15
    settings.networking.error_backoffs = (0.1, 1, 5, 10)
    return settings
