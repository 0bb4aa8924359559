"""The only module of the api that sends requests to Kubernetes: the AgentSessions of one namespace, as dicts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from moorage_crds import names
from moorage_kube.client import MERGE_PATCH, KubeClient, KubeError, Manifest
from moorage_kube.informer import Informer, Observer

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class AgentSessions:
    """Every method raises KubeError."""

    def __init__(self, kube: KubeClient, *, namespace: str) -> None:
        self._kube = kube
        self._path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"

    @classmethod
    @asynccontextmanager
    async def connect(cls, *, namespace: str | None, kubeconfig: Path | None) -> AsyncIterator[AgentSessions]:
        """Connect with a kubeconfig, or with the pod's service account. The default namespace is the pod's own.

        Sends no request yet. Raises KubeError without credentials, OSError without a namespace.
        """
        kube = await KubeClient.connect(kubeconfig)
        try:
            yield cls(kube, namespace=namespace or own_namespace())
        finally:
            await kube.close()

    async def create(self, body: Manifest) -> Manifest:
        return await self._kube.request("POST", self._path, body=body)

    async def patch(self, session_id: UUID, body: Manifest) -> Manifest:
        """Apply a merge patch. The error is a 409 if `body` names a resource version that is not the stored one."""
        return await self._kube.request("PATCH", self._path_of(session_id), body=body, content_type=MERGE_PATCH)

    async def get(self, session_id: UUID) -> Manifest | None:
        return await self._kube.find(self._path_of(session_id))

    async def delete(self, session_id: UUID) -> None:
        """Delete the resource. Does nothing if it does not exist."""
        try:
            await self._kube.request("DELETE", self._path_of(session_id))
        except KubeError as error:
            if error.status != 404:
                raise

    async def follow(self, observer: Observer, *, relist_seconds: float) -> None:
        """Report all resources and their changes to `observer`. Runs until cancelled."""
        await Informer(self._kube, self._path, observer, relist_seconds=relist_seconds).run()

    def _path_of(self, session_id: UUID) -> str:
        return f"{self._path}/{names.resource_name(session_id)}"


def own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip()


def is_refusal(error: KubeError) -> bool:
    """Whether a retry of the same request would have the same result."""
    return 400 <= error.status < 500 and error.status not in (404, 408, 409, 410, 429)
