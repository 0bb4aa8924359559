"""All requests of the reconciler to Kubernetes. What they read and write ends up in the store."""

from __future__ import annotations

from typing import Any

from moorage_crds import names
from moorage_crds.types import AgentSession, AgentSessionStatus
from moorage_kube.client import MERGE_PATCH, KubeClient, KubeError, Manifest
from moorage_kube.informer import Informer, Observer
from moorage_operator import metrics
from moorage_operator.sandbox_pod.state import PodState
from moorage_operator.store import Store


class Cluster:
    """The AgentSessions and pods of one namespace."""

    def __init__(self, kube: KubeClient, *, namespace: str) -> None:
        self._kube = kube
        self.store = Store()
        self._sessions = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"

    async def follow_pods(self, observer: Observer, *, relist_seconds: float) -> None:
        """Report all pods of sessions to `observer` until cancelled."""
        informer = Informer(
            self._kube, self._pods, observer, selector=names.SESSION_LABEL, relist_seconds=relist_seconds
        )
        await informer.run()

    async def list_sessions(self) -> set[str]:
        """Store all sessions. Returns the names of those that exist and of those that are gone. Raises KubeError."""
        before = set(self.store.sessions)
        listed: set[str] = set()
        version = 0
        async for page in self._kube.pages(self._sessions):
            listed.update(self.store.put_session(manifest) for manifest in page["items"])
            version = int(page["metadata"]["resourceVersion"])
        self.store.keep_sessions(listed, version)
        return before | listed

    async def refresh(self, name: str) -> None:
        """Read one session and its pod from the API server. Raises KubeError."""
        for known, path, put, remove in (
            (self.store.sessions.get(name), self._sessions, self.store.put_session, self.store.remove_session),
            (self.store.pods.get(name), self._pods, self.store.put_pod, self.store.remove_pod),
        ):
            found = await self._kube.find(f"{path}/{name}")
            if known is not None and (found is None or found["metadata"]["uid"] != known.uid):
                remove({"metadata": {"name": name, "uid": known.uid}})
            if found is not None:
                put(found)

    async def create_pod(self, manifest: Manifest) -> None:
        """Create a pod. If its name is taken, read that pod into the store: it may be ours. Raises KubeError."""
        try:
            created = await self._write("create", "pod", "POST", self._pods, body=manifest)
        except KubeError as error:
            if error.reason != "AlreadyExists":
                raise
            found = await self._kube.find(f"{self._pods}/{manifest['metadata']['name']}")
            if found is not None:
                self.store.put_pod(found)
            return
        self.store.put_pod(created)

    async def delete_pod(self, pod: PodState, *, is_forced: bool = False) -> None:
        """Delete exactly this pod. It may be gone already. `is_forced` does not wait for its node.

        Raises KubeError, with status 409 when another pod has its name now.
        """
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}}
        if is_forced:
            body["gracePeriodSeconds"] = 0
        gone = {"metadata": {"name": pod.name, "uid": pod.uid}}
        try:
            response = await self._write("delete", "pod", "DELETE", f"{self._pods}/{pod.name}", body=body)
        except KubeError as error:
            if error.status != 404:
                raise
            self.store.remove_pod(gone)
            return
        if response.get("kind") != "Pod":
            return
        metadata = response["metadata"]
        if "finalizers" in metadata or (metadata.get("deletionGracePeriodSeconds") and not is_forced):
            self.store.put_pod(response)
        else:  # it was on no node, it had ended, or the deletion was forced: it is gone now
            self.store.remove_pod(gone)

    async def label_pod(self, pod: PodState, labels: dict[str, str]) -> None:
        """Add these labels to exactly this pod. Raises KubeError."""
        body = {"metadata": {"uid": pod.uid, "labels": labels}}
        changed = await self._write(
            "patch", "pod", "PATCH", f"{self._pods}/{pod.name}", body=body, content_type=MERGE_PATCH
        )
        self.store.put_pod(changed)

    async def write_status(self, session: AgentSession, status: AgentSessionStatus) -> None:
        """Replace the status by one merge patch, which sets removed fields to null. Raises KubeError.

        The uid in the patch protects a later resource of that name.
        """
        fields = status.manifest()
        removed = {name: None for name in session.status.manifest() if name not in fields}
        changed = await self._write(
            "patch",
            "agentsession status",
            "PATCH",
            f"{self._sessions}/{session.name}/status",
            body={"metadata": {"uid": session.uid}, "status": {**fields, **removed}},
            content_type=MERGE_PATCH,
        )
        self.store.put_session(changed)

    async def _write(self, verb: str, resource: str, method: str, path: str, **options: Any) -> Manifest:
        metrics.WRITES.labels(verb=verb, resource=resource).inc()
        return await self._kube.request(method, path, **options)
